"""A drawn release in the layout of CBIS-DDSM: folders of DICOM files and four metadata CSVs. Returns bytes only.

`plan` decides who is in it, `draw` draws one woman's files, `metadata` turns all their rows into the CSVs. It keeps
the real release's quirks: a line feed inside the last quoted path, crop and mask named in either order or both
000000.dcm in folders of their own, some of them with each other's content, films that come as two series.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import dicom, film, marginals
from mammoflow.data.phantom.cases import Film, Lesion, Patient, Series, plan
from mammoflow.data.phantom.marginals import CALCIFICATION, MASS
from mammoflow.data.phantom.seeds import generator

__all__ = ["COLUMNS", "DrawnPatient", "Patient", "draw", "metadata", "plan"]

Row = dict[str, Any]
File = tuple[str, bytes]

_BEGIN = ("left or right breast", "image view", "abnormality id", "abnormality type")
_END = ("assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    MASS: ("patient_id", "breast_density", *_BEGIN, "mass shape", "mass margins", *_END),
    CALCIFICATION: ("patient_id", "breast density", *_BEGIN, "calc type", "calc distribution", *_END),
}
"""Columns of the two kinds of CSV, in the release's order and spelling."""

_SHORT = {MASS: "mass", CALCIFICATION: "calc"}
_PART = {"train": "Training", "test": "Test"}
_CROP, _MASK = "cropped images", "ROI mask images"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPatient:
    """The files and metadata rows of one woman."""

    files: Iterator[File]
    """(path within the release, DICOM bytes); drawn while it is read, once: real sizes would not fit in memory."""
    rows: dict[str, list[Row]]
    """Rows by the CSV's file name."""


def csv_name(kind: str, part: str) -> str:
    """Return the file name of the CSV of one kind and official part."""
    return f"{_SHORT[kind]}_case_description_{part}_set.csv"


def draw(patient: Patient, config: PhantomConfig, seed: int) -> DrawnPatient:
    """Draw one woman of `plan(config, seed)`, her films, masks and crops.

    Returns:
        Files whose paths are those of the rows, and the rows; the same seed gives the same bytes.
    """
    rows: dict[str, list[Row]] = {}
    for each in patient.films:
        for series in each.series:
            some = [_row(patient, each, series, lesion, seed) for lesion in series.lesions]
            rows.setdefault(csv_name(series.kind, series.part), []).extend(some)
    return DrawnPatient(files=_files(patient, config, seed), rows=rows)


def metadata(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, bytes]:
    """Return the four CSVs by file name, from the rows of any number of women in any order.

    A CSV without rows holds its header: the real release always has all four.
    """
    files = {}
    for kind, columns in COLUMNS.items():
        for part in _PART:
            name = csv_name(kind, part)
            stream = io.StringIO(newline="")
            writer = csv.DictWriter(stream, columns, lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(sorted(rows.get(name, ()), key=lambda row: [str(row[column]) for column in columns]))
            files[name] = stream.getvalue().encode()
    return files


def _case(film_: Film, series: Series) -> str:
    """Return the case folder of one series, e.g. Mass-Training_P_00001_LEFT_CC."""
    return f"{_SHORT[series.kind].capitalize()}-{_PART[series.part]}_{film_.film_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where crop and mask of one lesion lie, and what the CSV calls them."""

    crop: str
    mask: str
    crop_column: str
    mask_column: str


def _places(film_: Film, series: Series, lesion: Lesion, seed: int) -> _Places:
    """Draw which of the release's three ways to name crop and mask this lesion has."""
    folder = f"{_case(film_, series)}_{lesion.number}"
    rng = generator(seed, folder, "paths")
    separate = rng.random() < marginals.SEPARATE_FOLDERS[lesion.kind]
    swapped = rng.random() < marginals.SWAPPED_CONTENTS
    names = ("000000.dcm", "000001.dcm") if series.kind == MASS else ("000001.dcm", "000000.dcm")
    if separate:
        marks, names = (_CROP, _MASK), ("000000.dcm", "000000.dcm")
    else:
        marks = (_MASK, _MASK)
    paths = [f"{_folder(folder, mark, seed)}/{name}" for mark, name in zip(marks, names, strict=True)]
    crop, mask = reversed(paths) if swapped else paths
    return _Places(crop=crop, mask=mask, crop_column=paths[0], mask_column=paths[1])


def _folder(case: str, series: str, seed: int) -> str:
    return f"{case}/{dicom.uid(str(seed), case, series, 'study')}/{dicom.uid(str(seed), case, series)}"


def _film_path(case: str, seed: int) -> str:
    return f"{_folder(case, 'film', seed)}/000000.dcm"


def _row(patient: Patient, film_: Film, series: Series, lesion: Lesion, seed: int) -> Row:
    """Return one lesion's row, the line feed inside its last path as in the release."""
    places = _places(film_, series, lesion, seed)
    crop, mask = places.crop_column, places.mask_column
    values = (
        patient.patient_id,
        patient.density,
        film_.side,
        film_.view,
        lesion.number,
        lesion.kind,
        lesion.shape,
        lesion.edge,
        lesion.assessment,
        lesion.pathology,
        lesion.subtlety,
        _film_path(_case(film_, series), seed),
        crop if series.kind == MASS else crop + "\n",
        mask + "\n" if series.kind == MASS else mask,
    )
    return dict(zip(COLUMNS[series.kind], values, strict=True))


def _files(patient: Patient, config: PhantomConfig, seed: int) -> Iterator[File]:
    for each in patient.films:
        drawn = film.draw(each, patient, config, seed)
        for series in each.series:
            case = _case(each, series)
            path = _film_path(case, seed)
            yield path, dicom.encode(drawn.pixels, each.codec, _identity(case, path, "full mammogram images", each))
            for lesion in series.lesions:
                places = _places(each, series, lesion, seed)
                mask_HW = drawn.masks[lesion.kind, lesion.number]
                crop_HW = drawn.pixels[_around(mask_HW)]
                folder = f"{case}_{lesion.number}"
                crop, mask = (_identity(folder, places.crop, _CROP, each), _identity(folder, places.mask, _MASK, each))
                yield places.crop, dicom.encode(crop_HW, "raw", crop)
                # masks are mostly air: run lengths keep a release of any size small
                yield places.mask, dicom.encode(mask_HW.astype(np.uint8) * np.uint8(255), "rle", mask)


def _identity(case: str, path: str, description: str, film_: Film) -> dicom.Identity:
    """Return the tags of the file at `path`, whose folders are its study and series."""
    _, study, series, name = path.split("/")
    return dicom.Identity(
        patient=case,
        description=description,
        study=study,
        series=series,
        instance=dicom.uid(series, name),
        number=int(name.removesuffix(".dcm")) + 1,
        side=film_.side[0] if film_.tagged else None,
        view=film_.view if film_.tagged else None,
    )


def _around(mask_HW: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of the outline's bounding box with a margin of a tenth."""
    bounds = []
    for axis in (1, 0):
        line = np.flatnonzero(mask_HW.any(axis=axis))
        margin = (line[-1] - line[0]) // 10 + 2
        bounds.append(slice(max(line[0] - margin, 0), line[-1] + margin + 1))
    return bounds[0], bounds[1]
