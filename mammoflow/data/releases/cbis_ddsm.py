"""CBIS-DDSM: an exams table from its four case description CSVs; cbis_trees.py finds the files. No Ray, no pixels.

A row of the CSVs is a lesion; its path leads to an image *series*. One physical film may appear as two series (under
mass and under calcification), each with its own lesions. Here every series of a film carries the same label and the
union of lesions. Benign without callback counts as benign.

Source: The Cancer Imaging Archive, CBIS-DDSM (doi:10.7937/K9/TCIA.2016.7O02S9CY); paper, 2.1.
"""

from dataclasses import dataclass
from typing import Any

from mammoflow.data.quarantine import left_out
from mammoflow.data.releases import cbis_trees
from mammoflow.data.releases.cbis_trees import ROOTS, Tree
from mammoflow.data.releases.listing import (
    Listing,
    SourceFiles,
    exams_table,
    lesion,
    read_csv,
    refuse_escape,
    scan,
)
from mammoflow.errors import SourceError

CSV_FILES = {
    "mass_case_description_train_set.csv": ("train", "mass", "Mass-Training_"),
    "mass_case_description_test_set.csv": ("test", "mass", "Mass-Test_"),
    "calc_case_description_train_set.csv": ("train", "calcification", "Calc-Training_"),
    "calc_case_description_test_set.csv": ("test", "calcification", "Calc-Test_"),
}
"""File name -> the release's part, the kind of lesion, and the prefix of case folders."""
FILMS = 2458
"""Films that the paper uses. Source: paper, 2.1."""

DENSITY_COLUMNS = ("breast_density", "breast density")
COLUMNS = {
    "patient": "patient_id",
    "side": "left or right breast",
    "view": "image view",
    "number": "abnormality id",
    "pathology": "pathology",
    "image": "image file path",
    "crop": "cropped image file path",
    "mask": "ROI mask file path",
}
SIDES = {"LEFT": "L", "RIGHT": "R"}
VIEWS = {"CC": "CC", "MLO": "MLO"}
PATHOLOGIES = {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionRow:
    """One CSV row, with the newlines stripped in which some quoted fields end."""

    part: str
    kind: str
    patient: str
    side: str
    view: str
    number: str
    density: str
    pathology: str
    image: str
    crop: str
    mask: str

    @property
    def image_id(self) -> str:
        """The case folder of the image series, e.g. Mass-Training_P_00001_LEFT_CC."""
        return self.image.partition("/")[0]

    @property
    def film(self) -> tuple[str, str, str]:
        """Patient, side and view, which identify a physical film across parts and series."""
        return self.patient, self.side, self.view


def read(source: str) -> Listing:
    """Read a CBIS-DDSM folder: one exam per image series, with the label and lesions of its film.

    Each lesion lists the files that may be its mask: those the CSV names as mask and crop, which are often swapped, and
    any other DICOM file beside them. Decoding picks the mask by its pixels.

    Raises:
        SourceError: the folder holds none of the CSVs, or images whose CSV is missing; a CSV lacks a column; a path
            leads out of the source.
    """
    files = scan(source)
    tree = cbis_trees.index(files)
    by_csv = {name: _read_csv(files, name, path) for name, path in _find_csvs(tree).items()}
    rows = [row for some in by_csv.values() for row in some]
    faults = _faults(rows)
    films: dict[tuple[str, str, str], list[LesionRow]] = {}
    for row in rows:
        films.setdefault(row.film, []).append(row)
    good, problems = [], {}
    for film in films.values():
        fault = next((faults[row.image_id] for row in film if row.image_id in faults), None)
        if fault is None:
            good.append(film)
            continue
        for row in film:  # the film's label is uncertain, so none of its series is used
            path = files.url(tree.film(row.image))
            problems[row.image_id] = left_out(row.image_id, path, fault)
    exams = exams_table([exam for film in good for exam in _exams_of_film(tree, film)])
    counts = {f"rows in {name}": len(some) for name, some in by_csv.items()}
    counts |= {"patients": len({row.patient for row in rows}), "images": exams.num_rows, "films": len(good)}
    return Listing(exams=exams, problems=tuple(problems.values()), counts=counts, files=files)


def _faults(rows: list[LesionRow]) -> dict[str, str]:
    """Return image_id -> the invalid value or contradiction in its rows."""
    faults: dict[str, str] = {}
    first: dict[tuple[str, str], LesionRow] = {}
    for row in rows:
        values = (("side", row.side, SIDES), ("view", row.view, VIEWS), ("pathology", row.pathology, PATHOLOGIES))
        for field, value, allowed in values:
            if value not in allowed:
                reason = f"column `{COLUMNS[field]}` is {value!r}, but must be one of {', '.join(allowed)}; fix the CSV"
                faults.setdefault(row.image_id, reason)
        image = first.setdefault((row.image_id, ""), row)
        if (image.film, image.image) != (row.film, row.image):
            faults.setdefault(row.image_id, "its rows disagree on patient, side, view or path; fix the CSV")
        lesion = first.setdefault((row.image_id, row.number), row)
        if lesion.pathology != row.pathology:
            faults.setdefault(row.image_id, f"two rows of abnormality {row.number} disagree on pathology; fix the CSV")
    return faults


def _find_csvs(tree: Tree) -> dict[str, str]:
    """Return CSV name -> relative path of the CSVs present; refuse a folder with images whose CSV is missing."""
    files = tree.files
    paths = {name: path for name in CSV_FILES if (path := files.locate(name, ROOTS))}
    if not paths:
        raise SourceError(
            f"{files.root} holds no CBIS-DDSM: looked for {', '.join(CSV_FILES)} there and in its folders CBIS-DDSM "
            "and csv; put the case description CSVs beside the case folders, or name another --dataset"
        )
    for name, (_, _, prefix) in CSV_FILES.items():
        if name not in paths and any(case.startswith(prefix) for case in tree.by_case):
            raise SourceError(
                f"{files.root} holds folders {prefix}* but not {name} with their labels; put that CSV beside the case "
                "folders"
            )
    return paths


def _read_csv(files: SourceFiles, name: str, path: str) -> list[LesionRow]:
    part, kind, _ = CSV_FILES[name]
    rows = []
    for record in read_csv(files, path, tuple(COLUMNS.values())):
        density = next((record[column] for column in DENSITY_COLUMNS if column in record), None)
        if density is None:
            raise SourceError(
                f"{files.url(path)} has no column {' or '.join(DENSITY_COLUMNS)}; fetch it again, or fix its header"
            )
        values = {field: record[column] for field, column in COLUMNS.items()}
        for field in ("image", "crop", "mask"):
            refuse_escape(values[field], files.url(path), COLUMNS[field], record["line"])
        rows.append(LesionRow(part=part, kind=kind, density=density, **values))
    return rows


def _exams_of_film(tree: Tree, film: list[LesionRow]) -> list[dict[str, Any]]:
    """Return one exam per series of a film, each with the film's label and lesions."""
    lesions = {}
    for row in film:
        lesion_id = f"{row.image_id}_{row.number}"
        lesions[lesion_id] = lesion(lesion_id, row.kind, PATHOLOGIES[row.pathology], masks=_masks(tree, row))
    union = [lesions[lesion_id] for lesion_id in sorted(lesions)]
    label = int(any(item["pathology"] == "malignant" for item in union))
    densities = [
        int(row.density) for row in film if row.density in ("1", "2", "3", "4")
    ]  # two rows of the release have 0
    series = {row.image_id: row for row in film}
    return [
        {
            "image_id": image_id,
            "film_id": "_".join(row.film),
            "patient_id": row.patient,
            "laterality": SIDES[row.side],
            "view": row.view,
            "density": densities[0] if densities else None,
            "label": label,
            "part": row.part,
            "path": tree.files.url(tree.film(row.image)),
            "lesions": union,
        }
        for image_id, row in series.items()
    ]


def _masks(tree: Tree, row: LesionRow) -> list[str]:
    return [tree.files.url(path) for path in tree.masks(row.mask, row.crop)]
