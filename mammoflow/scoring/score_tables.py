"""The tables that scoring writes: a row per image, breast or patient. No Ray, no torch, no files.

Shape letters: N images, K members.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import Ensemble

PHANTOM_MARK = "by a model trained on phantoms: no clinical meaning"
"""Mark of pictures and reports by such a model."""

_KEYS = {"breasts": ["patient_id", "laterality"], "patients": ["patient_id"]}


def images(members: Sequence[str]) -> pa.Schema:
    """Return the schema of images.parquet, a row per image, for an ensemble with these members."""
    return pa.schema(
        [
            ("path", pa.string()),
            ("key", pa.string()),  # hash of the path; names heatmaps and DICOM files
            ("patient_id", pa.string()),  # salted hash; null if the file has none
            ("laterality", pa.string()),  # L | R; null if unknown
            ("view", pa.string()),  # CC | MLO | ...; null if unknown
            ("vendor", pa.string()),  # of the machine; null if unknown
            ("score", pa.float64()),  # mean of the members [0-1]; null after an error
            ("probability", pa.float64()),  # of malignant, the calibrated score [0-1]; null after an error
            ("malignant", pa.bool_()),  # whether the score reaches the cut-off; null after an error
            ("members", pa.struct([(name, pa.float64()) for name in members])),  # flip-averaged, by candidate name
            ("warnings", pa.list_(pa.string())),  # how it differs from the training images
            ("model", pa.string()),  # <name>/<version> in the registry
            ("heatmap", pa.string()),  # file below the folder of scores; null without one
            ("report", pa.string()),  # Structured Report below the folder; null without one
            ("error", pa.string()),  # why scoring failed; empty on success
            ("size", pa.int64()),  # of the file [B]
            ("modified", pa.int64()),  # last change [ns since 1970]
        ]
    )


def image_rows(
    facts: Sequence[dict[str, Any]], members_NK: npt.NDArray[np.float64], ensemble: Ensemble, model: str
) -> pa.Table:
    """Return the rows of images.

    Args:
        facts: per image `path`, `key`, `patient_id`, `laterality`, `view`, `vendor`, `warnings`, `heatmap`,
            `report`, `error`, `size` and `modified`.
        members_NK: flip-averaged scores (N, K) [0-1], members in order; anything where an image has an error.
        ensemble: its cut-off decides.
        model: <name>/<version> in the registry.
    """
    score_N, probability_N, malignant_N = ensembles.decide(members_NK, ensemble)
    bad_N = np.array([row["error"] != "" for row in facts], bool)
    members = [pa.array(column, mask=bad_N) for column in members_NK.T]
    columns = {name: [row[name] for row in facts] for name in (facts[0] if facts else ())}
    columns |= {
        "score": pa.array(score_N, mask=bad_N),
        "probability": pa.array(probability_N, mask=bad_N),
        "malignant": pa.array(malignant_N, mask=bad_N),
        "members": pa.StructArray.from_arrays(members, list(ensemble.names), mask=pa.array(bad_N)),
        "model": [model] * len(facts),
    }
    schema = images(ensemble.names)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def grouped(rows: pa.Table, what: str, ensemble: Ensemble) -> pa.Table:
    """Return a row per breast or patient over its scored views.

    Args:
        rows: of images. Images of unknown patients, or for breasts of unknown side, are left out.
        what: breasts | patients.
        ensemble: its cut-off, chosen on single images, decides on the mean score.

    Returns:
        `patient_id`, `laterality` (of breasts), `score` and `probability` (means over views) [0-1], `highest` (largest
        probability of a view), `malignant`, `images`, `views` (their names, sorted), `model`; sorted by the first ones.
    """
    keys = _KEYS[what]
    scored = rows.filter(pc.is_valid(rows["score"]))
    for key in keys:
        scored = scored.filter(pc.is_valid(scored[key]))
    figures = [
        *(("score", "mean"), ("probability", "mean"), ("probability", "max")),
        *(("path", "count"), ("view", "list"), ("model", "max")),
    ]
    means = scored.group_by(keys, use_threads=False).aggregate(figures).sort_by([(key, "ascending") for key in keys])
    views = [sorted(view for view in names if view) for names in means["view_list"].to_pylist()]
    columns = {key: means[key] for key in keys}
    columns |= {
        "score": means["score_mean"],
        "probability": means["probability_mean"],
        "highest": means["probability_max"],
        "malignant": pc.greater_equal(means["score_mean"], ensemble.cutoff),
        "images": means["path_count"],
        "views": pa.array(views, pa.list_(pa.string())),
        "model": means["model_max"],
    }
    return pa.table(columns)


def caption(row: Mapping[str, Any]) -> str:
    """Return the caption of a heatmap: side, view, probability and decision of a row of images.parquet."""
    where = " ".join(part for part in (row["laterality"], row["view"]) if part)
    called = "malignant" if row["malignant"] else "benign"
    return f"{where + ': ' if where else ''}probability {row['probability']:.3f}, called {called} ({row['model']})"
