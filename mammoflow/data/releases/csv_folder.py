"""Your own images: a folder with images.csv and, optionally, lesions.csv. No Ray, no pixels.

images.csv has one row per image:
    path        below the folder
    patient_id  your id, free of names; if empty, a salted hash of the DICOM file's id
    label       1 malignant, 0 benign
    laterality  L | R; optional, taken from the DICOM file if empty
    view        CC | MLO | ...; optional, taken from the DICOM file if empty
    density     1-4 or A-D; optional
    split       train | val | test; optional
Paths and patient ids appear unchanged in the lake.

lesions.csv has one row per lesion:
    path        of its image
    kind        mass | calcification | other
    pathology   malignant | benign
and one of these, in pixels of the file; with `origin` = `bottom-left`, y is counted from the lower edge:
    mask                    a file below the folder
    xmin, ymin, xmax, ymax  a box
    x, y, radius            a circle
    polygon                 `x y x y ...`
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import (
    Listing,
    SourceFiles,
    box,
    density_class,
    lesion,
    listing,
    read_csv,
    refuse_escape,
    scan,
)
from mammoflow.errors import SourceError
from mammoflow.lake.schema import SPLITS

IMAGES, LESIONS = "images.csv", "lesions.csv"
IMAGE_COLUMNS = ("path", "patient_id", "label")
LESION_COLUMNS = ("path", "kind", "pathology")
KINDS, PATHOLOGIES = ("mass", "calcification", "other"), ("malignant", "benign")
SIDES = {"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}
ORIGINS = ("", "top-left", "bottom-left")
_CIRCLE = 64  # vertices that approximate a circle

Row = dict[str, str]
Vertices = list[tuple[float, float]]


def read(source: str) -> Listing:
    """Read a user's folder: one exam per row of images.csv.

    Raises:
        SourceError: images.csv is missing; a column is missing; an image is named twice; a path leads out of the
            folder; or a lesion is invalid or its image is not in images.csv.
    """
    files = scan(source)
    if not files.has(IMAGES):
        raise SourceError(
            f"{files.root} holds no {IMAGES}; write one with the columns {', '.join(IMAGE_COLUMNS)}, or name another "
            "--dataset"
        )
    rows = read_csv(files, IMAGES, IMAGE_COLUMNS)
    _check_paths(files, rows)
    lesions = _lesions(files, {row["path"] for row in rows})
    exams, problems = [], []
    for row in rows:
        fault = _fault(row)
        if fault:
            reason = f"{fault}; fix {IMAGES}, line {row['line']}"
            problems.append(left_out(_image_id(row), files.url(row["path"]), reason))
        else:
            exams.append(_exam(files, row, lesions[row["path"]]))
    return listing(files, exams, problems, {"rows": len(rows)})


def _check_paths(files: SourceFiles, rows: list[Row]) -> None:
    first_lines: dict[str, str] = {}
    for row in rows:
        refuse_escape(row["path"], files.url(IMAGES), "path", row["line"])
        first = first_lines.setdefault(_image_id(row), row["line"])
        if first != row["line"]:
            raise SourceError(
                f"{files.url(IMAGES)}: lines {first} and {row['line']} name the same image {row['path']}; keep one"
            )


def _image_id(row: Row) -> str:
    return row["path"].rpartition(".")[0] or row["path"]


def _fault(row: Row) -> str | None:
    """Return the first invalid value of a row, as an error; None if all are valid."""
    if row["label"] not in ("0", "1"):
        return f"column `label` is {row['label']!r}, but must be 1 (malignant) or 0 (benign)"
    if row.get("laterality", "").upper() not in ("", *SIDES):
        return f"column `laterality` is {row['laterality']!r}, but must be L or R, or empty"
    if row.get("split", "") not in ("", *SPLITS):
        return f"column `split` is {row['split']!r}, but must be one of {', '.join(SPLITS)}"
    return None


def _exam(files: SourceFiles, row: Row, lesions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "image_id": _image_id(row),
        "film_id": _image_id(row),
        "patient_id": row["patient_id"] or None,
        "laterality": SIDES.get(row.get("laterality", "").upper()),
        "view": row.get("view", "").upper() or None,
        "density": density_class(row.get("density", "")),
        "label": int(row["label"]),
        "part": row.get("split") or None,
        "path": files.url(row["path"]),
        "lesions": lesions,
    }


def _lesions(files: SourceFiles, images: set[str]) -> defaultdict[str, list[dict[str, Any]]]:
    """Return image path -> lesions."""
    lesions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    if not files.has(LESIONS):
        return lesions
    for row in read_csv(files, LESIONS, LESION_COLUMNS):
        path = row["path"]
        try:
            if path not in images:
                raise ValueError(f"image {path!r} is not in {IMAGES}")
            lesions[path].append(_lesion(files, row, f"{_image_id(row)}_{len(lesions[path]) + 1}"))
        except ValueError as error:
            raise SourceError(f"{files.url(LESIONS)}, line {row['line']}: {error}; fix the line") from error
    return lesions


def _lesion(files: SourceFiles, row: Row, lesion_id: str) -> dict[str, Any]:
    for column, allowed in (("kind", KINDS), ("pathology", PATHOLOGIES)):
        if row[column] not in allowed:
            raise ValueError(f"column `{column}` is {row[column]!r}, but must be one of {', '.join(allowed)}")
    if row.get("origin", "") not in ORIGINS:
        raise ValueError(f"column `origin` is {row['origin']!r}, but must be one of {', '.join(ORIGINS[1:])}")
    if row.get("mask"):
        refuse_escape(row["mask"], files.url(LESIONS), "mask", row["line"])
        return lesion(lesion_id, row["kind"], row["pathology"], masks=[files.url(row["mask"])])
    for columns, shape in SHAPES.items():
        if all(row.get(column) for column in columns):
            outline = shape(*(row[column] for column in columns))
            from_bottom = row.get("origin") == "bottom-left"
            return lesion(lesion_id, row["kind"], row["pathology"], outline=outline, from_bottom=from_bottom)
    raise ValueError("it has no mask, box, circle or polygon")


def _box(left: str, top: str, right: str, bottom: str) -> Vertices:
    return box(float(top), float(left), float(bottom), float(right))


def _circle(x: str, y: str, radius: str) -> Vertices:
    centre_x, centre_y, r = float(x), float(y), float(radius)
    turns = [2 * math.pi * index / _CIRCLE for index in range(_CIRCLE)]
    return [(centre_y + r * math.sin(turn), centre_x + r * math.cos(turn)) for turn in turns]


def _polygon(text: str) -> Vertices:
    values = [float(value) for value in text.replace(",", " ").split()]
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"column `polygon` holds {len(values)} numbers, but must hold x y of 3 vertices or more")
    return list(zip(values[1::2], values[::2], strict=True))


SHAPES: dict[tuple[str, ...], Callable[..., Vertices]] = {
    ("xmin", "ymin", "xmax", "ymax"): _box,
    ("x", "y", "radius"): _circle,
    ("polygon",): _polygon,
}
"""Columns that must all be filled -> function that turns them into vertices (row, column)."""
