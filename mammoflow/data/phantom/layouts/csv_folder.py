"""The layout of users' own folders: digital mammograms as DICOM, PNG, TIFF and PGM in turn, images.csv, lesions.csv.

Lesions are given as masks, boxes, circles and polygons in turn, some with y counted from the lower edge. If some
patients are in an official test part, every image has a split.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mammoflow.data.phantom import dicom, tracing
from mammoflow.data.phantom.cases import Film, Patient
from mammoflow.data.phantom.film import DrawnFilm
from mammoflow.data.phantom.layouts.layout import File, FilmFiles, Row, Rows, csv_bytes
from mammoflow.data.phantom.marginals import MALIGNANT
from mammoflow.data.phantom.seeds import generator

IMAGES, LESIONS = "images.csv", "lesions.csv"
IMAGE_COLUMNS = ("path", "patient_id", "laterality", "view", "label", "density", "split")
_MASK, _BOX, _CIRCLE, _POLYGON = "mask", ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "radius"), "polygon"
LESION_COLUMNS = ("path", "kind", "pathology", _MASK, *_BOX, *_CIRCLE, _POLYGON, "origin")

FORMATS = (
    ("dcm", 12),
    ("png", 16),
    ("tiff", 16),
    ("pgm", 8),
    ("dcm", 14),
    ("png", 8),
    ("tiff", 8),
    ("pgm", 16),
    ("dcm", 10),
)
"""File extensions and bits per pixel, used in turn."""

_VAL = 0.2
"""Share of patients outside test who are in validation, if images have a split [0-1]."""

BoolArray = npt.NDArray[np.bool_]


def film_files(patient: Patient, film: Film, drawn: DrawnFilm, seed: int) -> FilmFiles:
    """Return a film's image file and masks, its row of images.csv, and one row of lesions.csv per lesion."""
    turn = 2 * patient.number + [other.film_id for other in patient.films].index(film.film_id)
    ending, bits = FORMATS[turn % len(FORMATS)]
    path = f"films/{film.film_id}.{ending}"
    malignant = [lesion.pathology == MALIGNANT for lesion in film.lesions]
    image = {
        "path": path,
        "patient_id": patient.patient_id,
        "laterality": film.side[0],
        "view": film.view,
        "label": int(any(malignant)),
        "density": "ABCD"[patient.density - 1],
        "split": _split(patient, seed),
    }
    rows: list[Row] = []
    masks: list[tuple[str, BoolArray]] = []
    for lesion, is_malignant, lesion_turn in zip(film.lesions, malignant, count(turn), strict=False):
        mask_HW = drawn.masks[lesion.kind, lesion.number]
        mask_path = f"masks/{film.film_id}_{lesion.kind}_{lesion.number}.png"
        outline = _outline(mask_HW, mask_path, lesion_turn)
        pathology = "malignant" if is_malignant else "benign"
        rows.append({"path": path, "kind": lesion.kind, "pathology": pathology, **outline})
        if _MASK in outline:
            masks.append((mask_path, mask_HW))
    files = _files(film, drawn, path, bits, masks)
    return FilmFiles(files=files, rows={IMAGES: [image], LESIONS: rows})


def metadata(rows: Rows) -> dict[str, bytes]:
    """Return the two tables; the column `split` only if some image is in test."""
    images = list(rows.get(IMAGES, ()))
    columns = [name for name in IMAGE_COLUMNS if name != "split" or any(row["split"] == "test" for row in images)]
    shown = [{name: row[name] for name in columns} for row in images]
    return {IMAGES: csv_bytes(shown, columns), LESIONS: csv_bytes(rows.get(LESIONS, ()), LESION_COLUMNS)}


def _split(patient: Patient, seed: int) -> str:
    """Return a patient's split: test if any film is in the official test part."""
    if any(series.part == "test" for film in patient.films for series in film.series):
        return "test"
    return "val" if generator(seed, patient.patient_id, "val").random() < _VAL else "train"


def _outline(mask_HW: BoolArray, mask_path: str, turn: int) -> Row:
    """Return the columns that outline a lesion: a mask, box, circle or polygon, by turn."""
    if turn % (len(_SHAPES) + 1) == 0:
        return {_MASK: mask_path}
    shape = _SHAPES[turn % (len(_SHAPES) + 1) - 1]
    if turn // (len(_SHAPES) + 1) % 2 == 0:
        return shape(mask_HW)
    return shape(mask_HW[::-1]) | {"origin": "bottom-left"}  # traced upside down, y counts from the lower edge


def _box(mask_HW: BoolArray) -> Row:
    return dict(zip(_BOX, tracing.box(mask_HW), strict=True))


def _circle(mask_HW: BoolArray) -> Row:
    return {name: f"{value:.1f}" for name, value in zip(_CIRCLE, tracing.circle(mask_HW), strict=True)}


def _polygon(mask_HW: BoolArray) -> Row:
    return {_POLYGON: " ".join(str(value) for value in tracing.polygon(mask_HW).ravel())}


_SHAPES: tuple[Callable[[BoolArray], Row], ...] = (_box, _circle, _polygon)


def _files(film: Film, drawn: DrawnFilm, path: str, bits: int, masks: list[tuple[str, BoolArray]]) -> Iterator[File]:
    pixels_HW = drawn.pixels >> (16 - bits)
    if path.endswith(".dcm"):
        yield path, dicom.encode(pixels_HW.astype(np.uint16), film.codec, _identity(film), bits)
    else:
        yield path, _image(path[path.rindex(".") :], pixels_HW.astype(np.uint8) if bits == 8 else pixels_HW)
    for mask_path, mask_HW in masks:
        yield mask_path, _image(".png", mask_HW.astype(np.uint8) * np.uint8(255))


def _image(ending: str, pixels_HW: npt.NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(ending, pixels_HW)[1].tobytes())


def _identity(film: Film) -> dicom.Identity:
    names = [dicom.uid(film.film_id, kind) for kind in ("study", "series", "instance")]
    return dicom.Identity(
        patient=film.film_id,
        description="",
        study=names[0],
        series=names[1],
        instance=names[2],
        side=film.side[0],
        view=film.view,
        digital=True,
    )
