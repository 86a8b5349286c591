"""One DICOM file: header, stream, decoder, values, identity. No Ray, no lake."""
