"""Users' own images: a folder with images.csv and, where there are outlines, lesions.csv. No Ray, no pixels.

images.csv, a row an image: `path` (below the folder), `patient_id` (yours, free of names; where it is empty, a salted
hash of the DICOM file's), `label` (1 malignant, 0 benign); optional `laterality` (L | R) and `view` (CC | MLO | ...),
taken from the DICOM file where empty, `density` (1-4 or A-D) and `split` (train | val | test). Paths and patient ids
stand in the lake as they are here.

lesions.csv, a row a lesion: `path` (of its image), `kind` (mass | calcification | other), `pathology` (malignant |
benign), and one of: `mask` (a file below the folder); `xmin`, `ymin`, `xmax`, `ymax` (a box); `x`, `y`, `radius` (a
circle); `polygon` (`x y x y ...`). All in pixels of the file; with `origin` = `bottom-left`, y counts from below.
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
    exams_table,
    lesion,
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
_CIRCLE = 64  # vertices

Row = dict[str, str]
Vertices = list[tuple[float, float]]


def read(source: str) -> Listing:
    """Read a user's folder: one exam per row of images.csv.

    Raises:
        SourceError: no images.csv, a column missing, an image named twice, a path that leads out of the folder, or a
            lesion that can't be read or whose image is not in images.csv.
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
            reason = f"{fault}; mend {IMAGES}, line {row['line']}"
            problems.append(left_out(_image_id(row), files.url(row["path"]), reason))
        else:
            exams.append(_exam(files, row, lesions[row["path"]]))
    patients = len({exam["patient_id"] for exam in exams})
    counts = {"rows": len(rows), "images": len(exams), "patients": patients}
    return Listing(exams=exams_table(exams), problems=tuple(problems), counts=counts, files=files)


def _check_paths(files: SourceFiles, rows: list[Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        refuse_escape(row["path"], files.url(IMAGES), "path", row["line"])
        first = seen.setdefault(_image_id(row), row["line"])
        if first != row["line"]:
            raise SourceError(
                f"{files.url(IMAGES)}: lines {first} and {row['line']} name the same image {row['path']}; keep one"
            )


def _image_id(row: Row) -> str:
    return row["path"].rpartition(".")[0] or row["path"]


def _fault(row: Row) -> str | None:
    """Return what of a row can't be understood."""
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
    """Return path of an image -> its lesions."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    if not files.has(LESIONS):
        return found
    for row in read_csv(files, LESIONS, LESION_COLUMNS):
        path = row["path"]
        try:
            if path not in images:
                raise ValueError(f"image {path!r} is not in {IMAGES}")
            found[path].append(_lesion(files, row, f"{_image_id(row)}_{len(found[path]) + 1}"))
        except ValueError as error:
            raise SourceError(f"{files.url(LESIONS)}, line {row['line']}: {error}; mend the line") from error
    return found


def _lesion(files: SourceFiles, row: Row, lesion_id: str) -> dict[str, Any]:
    for column, known in (("kind", KINDS), ("pathology", PATHOLOGIES)):
        if row[column] not in known:
            raise ValueError(f"column `{column}` is {row[column]!r}, but must be one of {', '.join(known)}")
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
"""Columns that must all be filled, to the function that makes vertices (row, column) of them."""
