"""Read one DICOM file: header, codestream, stored values, grey values, identity. No Ray, no lake."""
