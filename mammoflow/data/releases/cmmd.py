"""CMMD: its clinical table and the headers of its DICOM files, as an exams table. No Ray, no pixels, no lesions.

The label is the breast's. Side and view stand in the headers alone, so each file's header is read. Images of the
other breast, which the table does not judge, are left out.

Source: Cui et al. 2021, The Cancer Imaging Archive, CMMD (doi:10.7937/tcia.eqde-4b16).
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mammoflow.data.dicom import reader
from mammoflow.data.dicom.reader import Identity
from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import Listing, SourceFiles, exams_table, read_sheet, scan
from mammoflow.errors import DecodeError, SourceError
from mammoflow.lake.schema import BENIGN, MALIGNANT

TABLE = "CMMD_clinicaldata_revision.xlsx"
ROOTS = ("", "CMMD")
COLUMNS = ("ID1", "LeftRight", "classification")
LABELS = {"Benign": BENIGN, "Malignant": MALIGNANT}

_PATIENT = re.compile(r"D[12]-\d{4}")
_READERS = 16  # headers are small: reading them waits for the disk or the network


def read(source: str) -> Listing:
    """Read a CMMD folder: one exam per image of a breast with a diagnosis.

    Raises:
        SourceError: no clinical table, or one without a column or with an unknown classification.
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
    with ThreadPoolExecutor(_READERS) as pool:
        headers = dict(zip(images, pool.map(_header, map(files.url, images)), strict=True))
    exams, problems, unjudged = [], [], 0
    for path, patient in images.items():
        said = headers[path]
        if isinstance(said, str):
            problems.append(left_out(_image_id(path), files.url(path), said))
        elif (patient, said.laterality) in labels:
            exams.append(_exam(files, path, patient, said, labels[patient, said.laterality]))
        else:
            unjudged += 1
    patients = len({exam["patient_id"] for exam in exams})
    counts = {"breasts": len(labels), "of a breast without a diagnosis, left out": unjudged}
    counts |= {"images": len(exams), "patients": patients}
    return Listing(exams=exams_table(exams), problems=tuple(problems), counts=counts, files=files)


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


def _header(url: str) -> Identity | str:
    """Return what a file says of side and view, or why it can't be used."""
    try:
        said = reader.read_identity(url)
    except DecodeError as error:
        return error.reason
    if said.laterality is None:
        return "its header names no side, so it can't be matched to a diagnosis; fetch the file again"
    return said


def _image_id(path: str) -> str:
    return path.removeprefix("CMMD/").removesuffix(".dcm")


def _exam(files: SourceFiles, path: str, patient: str, said: Identity, label: int) -> dict[str, Any]:
    return {
        "image_id": _image_id(path),
        "film_id": _image_id(path),
        "patient_id": patient,
        "laterality": said.laterality,
        "view": said.view,
        "density": None,
        "label": label,
        "part": None,
        "path": files.url(path),
        "lesions": [],
    }
