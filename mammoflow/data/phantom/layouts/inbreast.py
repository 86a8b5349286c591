"""INbreast's layout: 14-bit DICOM with the patient's hash in the file name; outlines as property lists; one table.

It reproduces the real release's quirks: patient and age are `removed`; region names have several spellings, or are
empty; some outlines are markers of one or two points; films without lesions have no outline file; a few films lack a
density, or have a view in the table that differs from the file name.
"""

import hashlib
import plistlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mammoflow.data.phantom import dicom, marginals, tracing
from mammoflow.data.phantom.cases import Film, Lesion, Patient
from mammoflow.data.phantom.film import DrawnFilm
from mammoflow.data.phantom.layouts.layout import File, FilmFiles, Row, Rows, csv_bytes
from mammoflow.data.phantom.marginals import BENIGN, MALIGNANT, MASS, pick
from mammoflow.data.phantom.seeds import generator

ROOT = "INbreast Release 1.0"
TABLE = f"{ROOT}/INbreast.csv"
COLUMNS = (
    "Patient ID",
    "Patient age",
    "Laterality",
    "View",
    "Acquisition date",
    "File Name",
    "ACR",
    "Bi-Rads",
)
"""Columns of the table, in the release's order and spelling."""

BITS = 14
_MARKED = 0.3
"""Share of lesions that come with a marker [0-1]."""
_UNNAMED = 0.03
"""Share of lesions without a name [0-1]."""
_ODD_ROW = 108
"""Patients of the release; in each such number, one has a film without a density and one a film with view `FB`."""
_POLYGON, _MARKER = 15, 19
"""Region types of OsiriX, which wrote the release's outlines."""

_NAMES = {
    "asymmetry": ("Asymmetry", "Assymetry"),
    "distortion": ("Distortion",),
    "spiculated": ("Spiculated Region", "Espiculated Region"),
    "mass": ("Mass",),
    "calcification": ("Calcifications", "Cluster", "Calcification"),
    "unnamed": ("Unnamed", ""),
}
"""Names that readers gave to lesions."""


def film_files(patient: Patient, film: Film, drawn: DrawnFilm, seed: int) -> FilmFiles:
    """Return a film's DICOM file, its outlines if it has lesions, and its row of the table."""
    place = [other.film_id for other in patient.films].index(film.film_id)
    number = 20_000_000 + 4 * patient.number + place
    row = {
        "Patient ID": "removed",
        "Patient age": "removed",
        "Laterality": film.side[0],
        "View": "FB" if (patient.number % _ODD_ROW, place) == (2, 0) else film.view,
        "Acquisition date": _date(patient, seed),
        "File Name": number,
        "ACR": "" if (patient.number % _ODD_ROW, place) == (1, 0) else patient.density,
        "Bi-Rads": birads(film, seed),
    }
    return FilmFiles(files=_files(patient, film, drawn, number, seed), rows={TABLE: [row]})


def metadata(rows: Rows) -> dict[str, bytes]:
    """Return the table, with semicolons between fields."""
    return {TABLE: csv_bytes(rows.get(TABLE, ()), COLUMNS, ";")}


def birads(film: Film, seed: int) -> str:
    """Return the BI-RADS of a film's breast: 1 without lesions, 4a to 6 with a malignant one, else 2 or 3."""
    if not film.lesions:
        return "1"
    pathology = MALIGNANT if any(lesion.pathology == MALIGNANT for lesion in film.lesions) else BENIGN
    breast = film.film_id.removesuffix(f"_{film.view}")
    return pick(marginals.BIRADS[pathology], generator(seed, breast, "birads").random())


def _date(patient: Patient, seed: int) -> str:
    year, month = generator(seed, patient.patient_id, "date").integers([2008, 1], [2011, 13])
    return f"{year}{month:02}"


def _files(patient: Patient, film: Film, drawn: DrawnFilm, number: int, seed: int) -> Iterator[File]:
    patient_hash = hashlib.sha256(f"{seed} {patient.patient_id}".encode()).hexdigest()[:16]
    view = "ML" if film.view == "MLO" else film.view
    name = f"{number}_{patient_hash}_MG_{film.side[0]}_{view}_ANON.dcm"
    identity = dicom.Identity(
        patient="removed",
        description="",
        study=dicom.uid(patient_hash, "study"),
        series=dicom.uid(patient_hash, film.film_id, "series"),
        instance=dicom.uid(patient_hash, film.film_id),
        side=film.side[0],
        view=film.view,
        digital=True,
    )
    pixels_HW = (drawn.pixels >> (16 - BITS)).astype(np.uint16)
    yield f"{ROOT}/AllDICOMs/{name}", dicom.encode(pixels_HW, film.codec, identity, BITS)
    if film.lesions:
        regions = _regions(film, drawn, generator(seed, film.film_id, "regions"))
        image = {"ImageIndex": 0, "NumberOfROIs": len(regions), "ROIs": regions}
        yield f"{ROOT}/AllXML/{number}.xml", plistlib.dumps({"Images": [image]}, sort_keys=False)


def _regions(film: Film, drawn: DrawnFilm, rng: np.random.Generator) -> list[Row]:
    """Return the outlines of a film's lesions, with some markers among them."""
    regions = []
    for lesion in film.lesions:
        mask_HW = drawn.masks[lesion.kind, lesion.number]
        vertices_V2 = tracing.polygon(mask_HW)
        regions.append(_region(_name(lesion, rng), vertices_V2, float(mask_HW.sum())))
        if rng.random() < _MARKED:
            points = vertices_V2.mean(axis=0) + rng.normal(0, 2, (int(rng.integers(1, 3)), 2))
            regions.append(_region(str(rng.choice(["Calcification", "Point 1", "Point 3"])), points, 0.0))
    return [{**region, "IndexInImage": index} for index, region in enumerate(regions)]


def _region(name: str, points_V2: np.ndarray[Any, Any], area: float) -> Row:
    """Return one region as OsiriX writes it, with vertices as strings `(x, y)` [px]."""
    x, y = points_V2.mean(axis=0)
    return {
        "Area": area,
        "Center": f"({x:.6f}, {y:.6f}, 0.000000)",
        "Name": name,
        "NumberOfPoints": len(points_V2),
        "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points_V2],
        "Type": _MARKER if len(points_V2) < 3 else _POLYGON,
    }


def _name(lesion: Lesion, rng: np.random.Generator) -> str:
    """Return a reader's name for a lesion, in one of the release's spellings."""
    fits = {
        "unnamed": rng.random() < _UNNAMED,
        "asymmetry": "ASYMMETRIC" in lesion.shape,
        "distortion": "DISTORTION" in lesion.shape,
        "spiculated": "SPICULATED" in lesion.edge,
        "mass": lesion.kind == MASS,
    }
    name = next((name for name, fit in fits.items() if fit), "calcification")
    return str(rng.choice(_NAMES[name]))
