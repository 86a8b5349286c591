"""From images to breasts and patients: one score for all views of each. No torch, no Ray, no files.

A view that is missing is left out: the score is that of the views there are.
"""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Level = Literal["image", "breast", "patient"]
Rule = Literal["mean", "max"]
LEVELS: tuple[Level, ...] = ("image", "breast", "patient")
RULES: tuple[Rule, ...] = ("mean", "max")

_KEYS = {"breast": ["patient_id", "laterality"], "patient": ["patient_id"]}


def group(rows: pa.Table, level: Level, rule: Rule = "mean") -> pa.Table:
    """Return one row a breast or patient: its label, the highest of its images', and its score over them.

    Args:
        rows: one model's, one row an image, with at least `patient_id`, `laterality`, `label`, `score_tta` and
            `image_id` (schema.SCORES). Images of unknown side make a breast of their own for each patient.
        level: image returns one row an image.
        rule: mean | max over the views' scores.

    Returns:
        Columns `patient_id`, `laterality` (not of patients), `label`, `score_tta`, `images` (how many), sorted by the
        first ones.
    """
    if level == "image":
        kept = rows.select(["patient_id", "laterality", "label", "score_tta"])
        return kept.append_column("images", pa.array([1] * rows.num_rows, pa.int64()))
    keys = _KEYS[level]
    wanted = [("label", "max"), ("score_tta", rule), ("image_id", "count")]
    found = rows.group_by(keys, use_threads=False).aggregate(wanted)
    names = {"label_max": "label", f"score_tta_{rule}": "score_tta", "image_id_count": "images"}
    return found.rename_columns([names.get(name, name) for name in found.column_names]).sort_by(
        [(key, "ascending") for key in keys]
    )


def patients(rows: pa.Table) -> list[str]:
    """Return whose each row is."""
    return list(pc.cast(rows["patient_id"], pa.string()).to_pylist())
