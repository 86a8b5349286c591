"""Small DICOM files and a small CBIS-DDSM folder, made by hand for tests."""

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def dicom(pixels: NDArray, bits: int = 16, *, signed: bool = False, photometric: str = "MONOCHROME2", **tags) -> bytes:
    """Encode a grey image, uncompressed; `tags` are further elements by keyword."""
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    item.SOPClassUID, item.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    item.Rows, item.Columns = pixels.shape
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, photometric
    item.BitsAllocated = pixels.dtype.itemsize * 8
    item.BitsStored, item.HighBit, item.PixelRepresentation = bits, bits - 1, int(signed)
    item.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    out = BytesIO()
    item.save_as(out, enforce_file_format=True)
    return out.getvalue()


def breast(height: int = 240, width: int = 160, seed: int = 0) -> NDArray[np.uint16]:
    """Half an ellipse of grey texture on dark air, at the left edge."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (height * 0.42)) ** 2 + (columns / (width * 0.75)) ** 2 < 1
    return np.where(inside, rng.integers(25000, 45000, (height, width)), 300).astype(np.uint16)


def disc(height: int, width: int, row: int, column: int, radius: int) -> NDArray[np.uint8]:
    """A mask of 0 and 255."""
    rows, columns = np.mgrid[:height, :width]
    return (((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) * 255).astype(np.uint8)


HEADER = (
    "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,a,b,assessment,pathology,"
    "subtlety,image file path,cropped image file path,ROI mask file path"
)


def metadata(rows: list[tuple], kind: str, part: str) -> str:
    """A case description CSV: rows of (patient, side, view, number, pathology), paths in the classic form."""
    prefix = f"{kind.capitalize()}-{'Training' if part == 'train' else 'Test'}"
    lines = [HEADER.format(density="breast_density" if kind == "mass" else "breast density")]
    for patient, side, view, number, pathology in rows:
        case = f"{prefix}_{patient}_{side}_{view}"
        image, roi = f"{case}/1.1/1.2/000000.dcm", f"{case}_{number}/1.3/1.4"
        lines.append(
            f"{patient},2,{side},{view},{number},{kind},X,Y,4,{pathology},3,{image},{roi}/000000.dcm,"
            f'"{roi}/000001.dcm\n"'
        )
    return "\r\n".join(lines) + "\r\n"


def write(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def release(root: Path, patients: int, seed: int = 0) -> None:
    """A training release of masses: two views a patient, every other malignant, mask and crop swapped in turn."""
    rows = [
        (f"P_{n:05}", "LEFT", view, 1, "MALIGNANT" if n % 2 else "BENIGN")
        for n in range(patients)
        for view in ("CC", "MLO")
    ]
    text = metadata(rows, "mass", "train")
    write(root / "mass_case_description_train_set.csv", text.encode())
    for index, row in enumerate(csv.DictReader(text.splitlines(keepends=True))):
        film = breast(seed=seed + index)
        mask = disc(*film.shape, 100 + index % 40, 60, 18)
        write(root / row["image file path"], dicom(film, PatientID="someone"))
        crop, roi = root / row["cropped image file path"], root / row["ROI mask file path"].strip()
        write(crop if index % 2 else roi, dicom(mask, 8))
        write(roi if index % 2 else crop, dicom(film[80:130, 40:90]))
