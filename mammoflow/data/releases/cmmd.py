"""CMMD: an exams table from its clinical table and DICOM headers. No Ray, no pixels, no lesions.

An image's label is that of its breast. Only the DICOM headers give side and view, so every header is read. Images of a
breast without a diagnosis in the table are left out.

Source: Cui et al. 2021, The Cancer Imaging Archive, CMMD (doi:10.7937/tcia.eqde-4b16).
"""

import re
from typing import Any

from mammoflow.data.dicom import reader
from mammoflow.data.dicom.reader import Identity
from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import Listing, SourceFiles, listing, read_headers, read_sheet, scan
from mammoflow.errors import DecodeError, SourceError
from mammoflow.lake.schema import BENIGN, MALIGNANT

TABLE = "CMMD_clinicaldata_revision.xlsx"
ROOTS = ("", "CMMD")
FILMS = 5202
COLUMNS = ("ID1", "LeftRight", "classification")
LABELS = {"Benign": BENIGN, "Malignant": MALIGNANT}

_PATIENT = re.compile(r"D[12]-\d{4}")


def read(source: str) -> Listing:
    """Read a CMMD folder: one exam per image of a breast with a diagnosis.

    Raises:
        SourceError: the clinical table is missing, lacks a column, or holds an unknown classification.
    """
    files = scan(source)
    table = files.locate(TABLE, ROOTS)
    if table is None:
        raise SourceError(f"{files.root} holds no {TABLE}; put it beside the images, or name another --dataset")
    labels = _labels(files, table)
    images = {
        f"{folder}/{name}": match[0]
        for folder, names in files.folders.items()
        for name in names
        if name.endswith(".dcm") and (match := _PATIENT.search(folder))
    }
    headers = read_headers([files.url(path) for path in images], _header)
    exams, problems, undiagnosed = [], [], 0
    for path, patient in images.items():
        header = headers[files.url(path)]
        if isinstance(header, DecodeError):
            problems.append(left_out(_image_id(path), files.url(path), header.reason))
        elif (patient, header.laterality) in labels:
            exams.append(_exam(files, path, patient, header, labels[patient, header.laterality]))
        else:
            undiagnosed += 1
    counts = {"breasts": len(labels), "of a breast without a diagnosis, left out": undiagnosed}
    return listing(files, exams, problems, counts)


def _labels(files: SourceFiles, table: str) -> dict[tuple[str, str | None], int]:
    """Return (patient, side) -> label."""
    labels: dict[tuple[str, str | None], int] = {}
    for row in read_sheet(files, table, COLUMNS):
        if row["classification"] not in LABELS:
            raise SourceError(
                f"{files.url(table)}, row {row['line']}: column `classification` is {row['classification']!r}, but "
                f"must be one of {', '.join(LABELS)}; fetch it again"
            )
        key = (row["ID1"], row["LeftRight"])
        labels[key] = max(labels.get(key, BENIGN), LABELS[row["classification"]])
    return labels


def _header(url: str) -> Identity:
    header = reader.read_identity(url)
    if header.laterality is None:
        raise DecodeError("its header names no side, so it can't be matched to a diagnosis; fetch the file again")
    return header


def _image_id(path: str) -> str:
    return path.removeprefix("CMMD/").removesuffix(".dcm")


def _exam(files: SourceFiles, path: str, patient: str, header: Identity, label: int) -> dict[str, Any]:
    return {
        "image_id": _image_id(path),
        "film_id": _image_id(path),
        "patient_id": patient,
        "laterality": header.laterality,
        "view": header.view,
        "density": None,
        "label": label,
        "part": None,
        "path": files.url(path),
        "lesions": [],
    }
