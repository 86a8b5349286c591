"""INbreast: an exams table from its metadata table, DICOM file names and XML outlines. No Ray, no pixels.

Patients are identified only by the hash in file names. BI-RADS 3 is left out; 1 and 2 are benign, 4 to 6 malignant.
Lesions take the pathology of their image, since the release gives none per lesion.

Source: Moreira et al. 2012 (doi:10.1016/j.acra.2011.09.014); paper, 2.2.
"""

import plistlib
import re
from typing import Any

from mammoflow import lake
from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import (
    PATHOLOGY,
    Listing,
    SourceFiles,
    birads_label,
    density_class,
    lesion,
    listing,
    read_csv,
    read_sheet,
    scan,
)
from mammoflow.errors import LakeError, SourceError

ROOTS = ("", "INbreast Release 1.0")
TABLES = ("INbreast.csv", "INbreast.xls")
FILMS = 387
"""Films without BI-RADS 3. Source: paper, 2.2."""
COLUMNS = ("Laterality", "View", "File Name", "ACR", "Bi-Rads")
VIEWS = {"CC": "CC", "ML": "MLO", "MLO": "MLO"}
KINDS = {
    "mass": "mass",
    "spiculated region": "mass",
    "espiculated region": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
}
"""Name of a region, in lower case -> kind of lesion; any other name is `other`."""

_DICOM = re.compile(r"^(?P<file>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>[A-Z]+)_ANON\.dcm$")
_POINT = re.compile(r"\(\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\)")
_LEAST_VERTICES = 3  # fewer make a marker, not an outline


def read(source: str) -> Listing:
    """Read an INbreast folder: one exam per image with BI-RADS other than 3.

    Raises:
        SourceError: the folder lacks the table of INbreast, or the table lacks a column.
    """
    files = scan(source)
    rows = [
        row for row in _rows(files) if row["File Name"].isdigit()
    ]  # the Excel file ends in two rows without an image
    dicoms = _dicoms(files)
    exams, problems, excluded = [], [], 0
    for row in rows:
        number = row["File Name"]
        try:
            label = birads_label(row["Bi-Rads"])
        except ValueError as error:
            problems.append(left_out(number, files.url(""), f"{error}; fix the table"))
            continue
        if label is None:
            excluded += 1
        elif number not in dicoms:
            reason = f"no DICOM file {number}_*_ANON.dcm, whose name holds the patient; fetch it"
            problems.append(left_out(number, files.url("AllDICOMs"), reason))
        else:
            exams.append(_exam(files, row, dicoms[number], label))
    return listing(files, exams, problems, {"rows": len(rows), "BI-RADS 3, left out": excluded})


def _rows(files: SourceFiles) -> list[dict[str, str]]:
    for name, reader in ((TABLES[0], _semicolons), (TABLES[1], read_sheet)):
        path = files.locate(name, ROOTS)
        if path:
            return reader(files, path, COLUMNS)
    raise SourceError(
        f"{files.root} holds no INbreast: looked for {' and '.join(TABLES)} there and in its folder {ROOTS[1]}; "
        "put one of them beside AllDICOMs, or name another --dataset"
    )


def _semicolons(files: SourceFiles, path: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    return read_csv(files, path, columns, ";")


def _dicoms(files: SourceFiles) -> dict[str, tuple[str, re.Match[str]]]:
    """Return file number -> relative path of the DICOM file and its parsed name."""
    dicoms = {}
    for folder, names in files.folders.items():
        for name in names:
            match = _DICOM.match(name)
            if match:
                dicoms[match["file"]] = (f"{folder}/{name}" if folder else name, match)
    return dicoms


def _exam(files: SourceFiles, row: dict[str, str], dicom: tuple[str, re.Match[str]], label: int) -> dict[str, Any]:
    path, name = dicom
    number = row["File Name"]
    return {
        "image_id": number,
        "film_id": number,
        "patient_id": name["patient"],
        "laterality": name["side"],
        "view": VIEWS.get(name["view"], name["view"]),
        "density": density_class(row["ACR"]),
        "label": label,
        "part": None,
        "path": files.url(path),
        "lesions": _lesions(files, number, PATHOLOGY[label]),
    }


def _lesions(files: SourceFiles, number: str, pathology: str) -> list[dict[str, Any]]:
    """Return the outlined regions in an image's XML file, if it has one.

    Raises:
        SourceError: the file is not a property list of regions.
    """
    path = files.locate(f"AllXML/{number}.xml", ROOTS)
    if path is None:
        return []
    url = files.url(path)
    try:
        regions = plistlib.loads(lake.read_bytes(url))["Images"][0]["ROIs"]
        outlines = [(str(region.get("Name") or ""), _vertices(region["Point_px"])) for region in regions]
    except (LakeError, plistlib.InvalidFileException, KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{url} is not an INbreast outline file ({error!r}); fetch it again") from error
    return [
        lesion(f"{number}_{index}", KINDS.get(name.strip().lower(), "other"), pathology, outline=vertices)
        for index, (name, vertices) in enumerate(outlines, start=1)
        if len(vertices) >= _LEAST_VERTICES
    ]


def _vertices(points: list[str]) -> list[tuple[float, float]]:
    """Parse points written as `(x, y)` into (row, column)."""
    vertices = []
    for point in points:
        match = _POINT.fullmatch(point.strip())
        if match is None:
            raise ValueError(f"point {point!r}")
        vertices.append((float(match[2]), float(match[1])))
    return vertices
