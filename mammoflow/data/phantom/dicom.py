"""Encode pixels as DICOM: secondary captures as in CBIS-DDSM, or digital mammograms. Bytes only, no files.

NumPy, pydicom and GDCM only. UIDs are derived from names, so the same name gives the same file.
"""

import io
from dataclasses import dataclass

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

SYNTAXES = {
    "raw": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
    "jpeg-lossless": JPEGLosslessSV1,
}
"""Transfer syntax of each codec; all are lossless. Source: DICOM PS3.5, 10 and A.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The tags that identify a file."""

    patient: str
    """PatientID and PatientName; in CBIS-DDSM the case folder, e.g. Mass-Training_P_00001_LEFT_CC."""
    description: str
    """SeriesDescription: `full mammogram images`, `cropped images` or `ROI mask images`."""
    study: str
    series: str
    instance: str
    number: int = 1
    """InstanceNumber within the series."""
    side: str | None = None
    """Laterality, L or R; None leaves the tag out."""
    view: str | None = None
    """ViewPosition and PatientOrientation, CC or MLO; None leaves the tags out."""
    digital: bool = False
    """A digital mammogram for presentation; otherwise the secondary capture of a film."""


def uid(*names: str) -> str:
    """Return a UID derived from these names."""
    return str(generate_uid(entropy_srcs=["mammoflow phantom", *names]))


def encode(
    pixels_HW: npt.NDArray[np.uint16] | npt.NDArray[np.uint8], codec: str, identity: Identity, stored: int | None = None
) -> bytes:
    """Return a DICOM file of `pixels_HW`, uint8 or uint16 (H, W), MONOCHROME2.

    Args:
        pixels_HW: values below 2 ** stored.
        codec: a name of SYNTAXES.
        identity: its identifying tags.
        stored: BitsStored; None for all allocated bits.

    Raises:
        KeyError: the codec is not in SYNTAXES.
        RuntimeError: GDCM can't compress the pixels, e.g. an odd number of 8-bit pixels as JPEG lossless.
    """
    dataset = _dataset(identity)
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[codec]
    bits = stored or pixels_HW.itemsize * 8
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels_HW.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels_HW.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(pixels_HW.min()), int(pixels_HW.max())
    if codec == "raw":
        dataset.PixelData = _even(pixels_HW)
        dataset["PixelData"].VR = "OW"
    elif codec == "rle":
        plugin = "pydicom" if pixels_HW.nbytes % 2 else "gdcm"  # GDCM is faster, but crashes on odd sizes
        dataset.compress(RLELossless, pixels_HW, encoding_plugin=plugin, generate_instance_uid=False)
    else:
        dataset.PixelData = encapsulate([_compress(pixels_HW, SYNTAXES[codec], bits)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _dataset(identity: Identity) -> Dataset:
    """Return a data set without pixels, with the tags of the real films."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPInstanceUID = identity.instance
    dataset.StudyDate, dataset.ContentDate = "20160720", "20160426"
    dataset.StudyTime, dataset.ContentTime = "120000", "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "MG"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesDescription = identity.description
    dataset.PatientName = dataset.PatientID = identity.patient
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.BodyPartExamined = "BREAST"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = identity.study, identity.series
    dataset.SeriesNumber, dataset.InstanceNumber = 1, identity.number
    if identity.view is not None:
        dataset.PatientOrientation = dataset.ViewPosition = identity.view
    if identity.digital:
        _add_digital_tags(dataset, identity)
    else:
        _add_capture_tags(dataset, identity)
    return dataset


def _add_capture_tags(dataset: Dataset, identity: Identity) -> None:
    """Add the tags of a digitised film of DDSM."""
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.ConversionType = "WSD"
    dataset.SecondaryCaptureDeviceManufacturer = "mammoflow"
    dataset.StudyID = "DDSM"
    if identity.side is not None:
        dataset.Laterality = identity.side


def _add_digital_tags(dataset: Dataset, identity: Identity) -> None:
    """Add the tags of a digital mammogram. Source: DICOM PS3.3, A.27 and C.8.11."""
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = "mammoflow"
    dataset.StudyID = ""
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BurnedInAnnotation = "NO"
    if identity.side is not None:
        dataset.ImageLaterality = identity.side


def _even(pixels_HW: npt.NDArray[np.uint16] | npt.NDArray[np.uint8]) -> bytes:
    """Return the pixels' bytes, padded to an even number. Source: DICOM PS3.5, 8.1.1."""
    data = pixels_HW.tobytes()
    return data + b"\0" * (len(data) % 2)


def _compress(pixels_HW: npt.NDArray[np.uint16] | npt.NDArray[np.uint8], syntax: UID, bits: int) -> bytes:
    """Return one frame as JPEG 2000 or JPEG lossless, which pydicom can't write by itself."""
    writer = gdcm.ImageWriter()  # owns the image, so keep it alive
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels_HW.shape[1], pixels_HW.shape[0], 1))
    monochrome = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    image.SetPhotometricInterpretation(monochrome)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, pixels_HW.itemsize * 8, bits, bits - 1, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(_even(pixels_HW))
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"GDCM can't compress {pixels_HW.shape} px of {bits} bits as {syntax.name}; store it raw")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    parts = [fragments.GetFragment(i).GetByteValue().GetBuffer() for i in range(fragments.GetNumberOfFragments())]
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)
