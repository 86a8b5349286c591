"""CBIS-DDSM's layout: folders of DICOM files, one per series, and four metadata CSVs. Returns bytes only.

It reproduces the real release's quirks: a line feed inside the last quoted path; crop and mask named in either order,
or both 000000.dcm in separate folders; crops and masks with swapped contents; films that appear as two series.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mammoflow.data.phantom import dicom, marginals
from mammoflow.data.phantom.cases import Film, Lesion, Patient, Series
from mammoflow.data.phantom.film import DrawnFilm
from mammoflow.data.phantom.layouts.layout import File, FilmFiles, Row, Rows, csv_bytes
from mammoflow.data.phantom.marginals import CALCIFICATION, MASS
from mammoflow.data.phantom.seeds import generator

_BEGIN = ("left or right breast", "image view", "abnormality id", "abnormality type")
_END = ("assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    MASS: ("patient_id", "breast_density", *_BEGIN, "mass shape", "mass margins", *_END),
    CALCIFICATION: ("patient_id", "breast density", *_BEGIN, "calc type", "calc distribution", *_END),
}
"""Columns of both kinds of CSV, in the release's order and spelling."""

_SHORT = {MASS: "mass", CALCIFICATION: "calc"}
_PART = {"train": "Training", "test": "Test"}
_CROP, _MASK = "cropped images", "ROI mask images"


def csv_name(kind: str, part: str) -> str:
    """Return the file name of the CSV of one kind and official part."""
    return f"{_SHORT[kind]}_case_description_{part}_set.csv"


def film_files(patient: Patient, film: Film, drawn: DrawnFilm, seed: int) -> FilmFiles:
    """Return the files of one film, with the masks and crops of each series, and one row per lesion and series."""
    rows: dict[str, list[Row]] = {}
    for series in film.series:
        name = csv_name(series.kind, series.part)
        rows.setdefault(name, []).extend(_row(patient, film, series, lesion, seed) for lesion in series.lesions)
    return FilmFiles(files=_files(film, drawn, seed), rows=rows)


def metadata(rows: Rows) -> dict[str, bytes]:
    """Return the four CSVs; one without rows still has its header, since the real release always has all four."""
    files = {}
    for kind, columns in COLUMNS.items():
        for part in _PART:
            name = csv_name(kind, part)
            files[name] = csv_bytes(rows.get(name, ()), columns)
    return files


def _case(film: Film, series: Series) -> str:
    """Return the case folder of one series, e.g. Mass-Training_P_00001_LEFT_CC."""
    return f"{_SHORT[series.kind].capitalize()}-{_PART[series.part]}_{film.film_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Paths of the crop and mask of one lesion, and the paths that the CSV gives for them."""

    crop: str
    mask: str
    crop_column: str
    mask_column: str


def _places(film: Film, series: Series, lesion: Lesion, seed: int) -> _Places:
    """Draw which of the release's ways to name crop and mask this lesion uses."""
    folder = f"{_case(film, series)}_{lesion.number}"
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


def _row(patient: Patient, film: Film, series: Series, lesion: Lesion, seed: int) -> Row:
    """Return one lesion's row, with the release's line feed inside its last path."""
    places = _places(film, series, lesion, seed)
    crop, mask = places.crop_column, places.mask_column
    values = (
        patient.patient_id,
        patient.density,
        film.side,
        film.view,
        lesion.number,
        lesion.kind,
        lesion.shape,
        lesion.edge,
        lesion.assessment,
        lesion.pathology,
        lesion.subtlety,
        _film_path(_case(film, series), seed),
        crop if series.kind == MASS else crop + "\n",
        mask + "\n" if series.kind == MASS else mask,
    )
    return dict(zip(COLUMNS[series.kind], values, strict=True))


def _files(film: Film, drawn: DrawnFilm, seed: int) -> Iterator[File]:
    for series in film.series:
        case = _case(film, series)
        path = _film_path(case, seed)
        yield path, dicom.encode(drawn.pixels, film.codec, _identity(case, path, "full mammogram images", film))
        for lesion in series.lesions:
            places = _places(film, series, lesion, seed)
            mask_HW = drawn.masks[lesion.kind, lesion.number]
            crop_HW = drawn.pixels[_around(mask_HW)]
            folder = f"{case}_{lesion.number}"
            crop, mask = (_identity(folder, places.crop, _CROP, film), _identity(folder, places.mask, _MASK, film))
            yield places.crop, dicom.encode(crop_HW, "raw", crop)
            # masks are mostly air, so RLE keeps the release small
            yield places.mask, dicom.encode(mask_HW.astype(np.uint8) * np.uint8(255), "rle", mask)


def _identity(case: str, path: str, description: str, film: Film) -> dicom.Identity:
    """Return the tags of the file at `path`, whose folders name its study and series."""
    _, study, series, name = path.split("/")
    return dicom.Identity(
        patient=case,
        description=description,
        study=study,
        series=series,
        instance=dicom.uid(series, name),
        number=int(name.removesuffix(".dcm")) + 1,
        side=film.side[0] if film.tagged else None,
        view=film.view if film.tagged else None,
    )


def _around(mask_HW: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of the outline's bounding box, with a margin of a tenth."""
    bounds = []
    for axis in (1, 0):
        line = np.flatnonzero(mask_HW.any(axis=axis))
        margin = (line[-1] - line[0]) // 10 + 2
        bounds.append(slice(max(line[0] - margin, 0), line[-1] + margin + 1))
    return bounds[0], bounds[1]
