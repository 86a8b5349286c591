"""VinDr-Mammo: an exams table from its breast-level and finding annotations. No Ray, no pixels.

A study counts as a patient, since the release has no patient ids. A film's label follows the BI-RADS of its breast, as
in INbreast: 3 is left out, 1 and 2 are benign, 4 and 5 malignant. A finding's pathology follows its own BI-RADS, or
else that of its breast.

Source: Nguyen et al. 2023 (doi:10.1038/s41597-023-02100-7), PhysioNet.
"""

import ast
from collections import defaultdict
from typing import Any

from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import (
    PATHOLOGY,
    Listing,
    SourceFiles,
    birads_label,
    box,
    density_class,
    lesion,
    listing,
    read_csv,
    refuse_escape,
    scan,
)
from mammoflow.errors import SourceError

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
BREAST_COLUMNS = ("study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density", "split")
EDGES = ("ymin", "xmin", "ymax", "xmax")
FINDING_COLUMNS = ("image_id", "finding_categories", "finding_birads", *EDGES)
FILMS = 20_000
PARTS = {"training": "train", "test": "test"}
KINDS = {"Mass": "mass", "Suspicious Calcification": "calcification"}
"""Finding category -> kind of lesion; any other category is `other`."""


def read(source: str) -> Listing:
    """Read a VinDr-Mammo folder: one exam per image whose breast has BI-RADS other than 3.

    Raises:
        SourceError: an annotation file is missing or lacks a column, or a finding's box can't be read.
    """
    files = scan(source)
    for name in (BREASTS, FINDINGS):
        if not files.has(name):
            raise SourceError(f"{files.root} holds no {name}; fetch it from PhysioNet, or name another --dataset")
    rows = read_csv(files, BREASTS, BREAST_COLUMNS)
    findings = defaultdict(list)
    for finding in read_csv(files, FINDINGS, FINDING_COLUMNS):
        if finding["xmin"]:
            findings[finding["image_id"]].append(finding)
    exams, problems, excluded = [], [], 0
    for row in rows:
        try:
            label = birads_label(row["breast_birads"])
            if row["split"] not in PARTS:
                raise ValueError(f"split is {row['split']!r}, but must be one of {', '.join(PARTS)}")
        except ValueError as error:
            reason = f"{error}; fix {BREASTS}, line {row['line']}"
            problems.append(left_out(row["image_id"], files.url(BREASTS), reason))
            continue
        if label is None:
            excluded += 1
        else:
            exams.append(_exam(files, row, findings[row["image_id"]], label))
    return listing(files, exams, problems, {"rows": len(rows), "BI-RADS 3, left out": excluded})


def _exam(files: SourceFiles, row: dict[str, str], findings: list[dict[str, str]], label: int) -> dict[str, Any]:
    path = f"images/{row['study_id']}/{row['image_id']}.dicom"
    refuse_escape(path, files.url(BREASTS), "image_id", row["line"])
    return {
        "image_id": row["image_id"],
        "film_id": row["image_id"],
        "patient_id": row["study_id"],
        "laterality": row["laterality"],
        "view": row["view_position"],
        "density": density_class(row["breast_density"]),
        "label": label,
        "part": PARTS[row["split"]],
        "path": files.url(path),
        "lesions": [_lesion(files, number, finding, label) for number, finding in enumerate(findings, start=1)],
    }


def _lesion(files: SourceFiles, number: int, finding: dict[str, str], label: int) -> dict[str, Any]:
    try:
        categories = ast.literal_eval(finding["finding_categories"])
        edges = [float(finding[edge]) for edge in EDGES]
        finding_label = birads_label(finding["finding_birads"]) if finding["finding_birads"] else None
    except (ValueError, SyntaxError) as error:
        raise SourceError(
            f"{files.url(FINDINGS)}, line {finding['line']}: {error}; fetch it again, or fix the line"
        ) from error
    kind = next((KINDS[name] for name in categories if name in KINDS), "other")
    pathology = PATHOLOGY[label if finding_label is None else finding_label]
    return lesion(f"{finding['image_id']}_{number}", kind, pathology, outline=box(*edges))
