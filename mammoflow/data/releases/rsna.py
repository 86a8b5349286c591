"""RSNA-2022 screening mammography: an exams table from its train.csv. No Ray, no pixels; the release has no lesions.

An image's label is that of its breast. Source: RSNA Screening Mammography Breast Cancer Detection, 2022 (Kaggle).
"""

from typing import Any

from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import (
    Listing,
    SourceFiles,
    density_class,
    listing,
    read_csv,
    refuse_escape,
    scan,
)
from mammoflow.errors import SourceError

TABLE, FOLDER = "train.csv", "train_images"
FILMS = 54_706
COLUMNS = ("patient_id", "image_id", "laterality", "view", "cancer", "density")


def read(source: str) -> Listing:
    """Read an RSNA-2022 folder: one exam per row of train.csv.

    Raises:
        SourceError: train.csv is missing, or lacks a column.
    """
    files = scan(source)
    if not files.has(TABLE):
        raise SourceError(f"{files.root} holds no {TABLE}; put it beside {FOLDER}, or name another --dataset")
    rows = read_csv(files, TABLE, COLUMNS)
    exams, problems = [], []
    for row in rows:
        if row["cancer"] in ("0", "1"):
            exams.append(_exam(files, row))
        else:
            reason = f"column `cancer` is {row['cancer']!r}, but must be 0 or 1; fix {TABLE}, line {row['line']}"
            problems.append(left_out(row["image_id"], files.url(TABLE), reason))
    return listing(files, exams, problems, {"rows": len(rows)})


def _exam(files: SourceFiles, row: dict[str, str]) -> dict[str, Any]:
    path = f"{FOLDER}/{row['patient_id']}/{row['image_id']}.dcm"
    refuse_escape(path, files.url(TABLE), "image_id", row["line"])
    return {
        "image_id": row["image_id"],
        "film_id": row["image_id"],
        "patient_id": row["patient_id"],
        "laterality": row["laterality"],
        "view": row["view"],
        "density": density_class(row["density"]),
        "label": int(row["cancer"]),
        "part": None,
        "path": files.url(path),
        "lesions": [],
    }
