"""The tables that scoring writes: a row an image, a breast, a patient. No Ray, no torch, no files.

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
    """Return the schema of a row an image, scored by an ensemble with these members."""
    return pa.schema(
        [
            ("path", pa.string()),
            ("key", pa.string()),  # of the path: heatmaps and DICOM files are named by it
            ("patient_id", pa.string()),  # a salted hash of the file's; null where it names nobody
            ("laterality", pa.string()),  # L | R; null where the file doesn't say
            ("view", pa.string()),  # CC | MLO | ...; null likewise
            ("vendor", pa.string()),  # of the machine, one of data.vendors; null likewise
            ("score", pa.float64()),  # the members' mean [0-1]; null where the file can't be used
            ("probability", pa.float64()),  # of malignant, the calibrated score [0-1]; null likewise
            ("malignant", pa.bool_()),  # whether the score reaches the ensemble's cut-off; null likewise
            ("members", pa.struct([(name, pa.float64()) for name in members])),  # flip-averaged, by candidate name
            ("warnings", pa.list_(pa.string())),  # in what it is unlike the images that the model was trained on
            ("model", pa.string()),  # <name>/<version> in the registry
            ("heatmap", pa.string()),  # file below the folder of scores; null where none was wanted
            ("report", pa.string()),  # Structured Report likewise; null where none was wanted, or the file is no DICOM
            ("error", pa.string()),  # why the file can't be used; empty where all went well
            ("size", pa.int64()),  # of the file [B]
            ("modified", pa.int64()),  # when it was written last [ns since 1970]
        ]
    )


def image_rows(
    about: Sequence[dict[str, Any]], members_NK: npt.NDArray[np.float64], ensemble: Ensemble, model: str
) -> pa.Table:
    """Return the rows of images.

    Args:
        about: of each image `path`, `key`, `patient_id`, `laterality`, `view`, `vendor`, `warnings`, `heatmap`,
            `report`, `error`, `size` and `modified`.
        members_NK: flip-averaged scores (N, K) [0-1], members in order; anything where an image has an error.
        ensemble: that decides.
        model: <name>/<version> in the registry.
    """
    score_N, probability_N, malignant_N = ensembles.decide(members_NK, ensemble)
    bad_N = np.array([row["error"] != "" for row in about], bool)
    members = [pa.array(column, mask=bad_N) for column in members_NK.T]
    columns = {name: [row[name] for row in about] for name in (about[0] if about else ())}
    columns |= {
        "score": pa.array(score_N, mask=bad_N),
        "probability": pa.array(probability_N, mask=bad_N),
        "malignant": pa.array(malignant_N, mask=bad_N),
        "members": pa.StructArray.from_arrays(members, list(ensemble.names), mask=pa.array(bad_N)),
        "model": [model] * len(about),
    }
    schema = images(ensemble.names)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def grouped(rows: pa.Table, what: str, ensemble: Ensemble) -> pa.Table:
    """Return a row a breast or patient, over the views that could be scored; missing views are left out.

    Args:
        rows: of images; those of unknown patients, and for breasts of unknown side, have no row.
        what: breasts | patients.
        ensemble: whose cut-off, chosen on single images, decides on the mean score.

    Returns:
        `patient_id`, `laterality` (of breasts), `score` and `probability` (means over views) [0-1], `highest` (largest
        probability of a view), `malignant`, `images`, `views` (their names, sorted), `model`; sorted by the first ones.
    """
    keys = _KEYS[what]
    kept = rows.filter(pc.is_valid(rows["score"]))
    for key in keys:
        kept = kept.filter(pc.is_valid(kept[key]))
    wanted = [
        *(("score", "mean"), ("probability", "mean"), ("probability", "max")),
        *(("path", "count"), ("view", "list"), ("model", "max")),
    ]
    found = kept.group_by(keys, use_threads=False).aggregate(wanted).sort_by([(key, "ascending") for key in keys])
    views = [sorted(view for view in own if view) for own in found["view_list"].to_pylist()]
    columns = {key: found[key] for key in keys}
    columns |= {
        "score": found["score_mean"],
        "probability": found["probability_mean"],
        "highest": found["probability_max"],
        "malignant": pc.greater_equal(found["score_mean"], ensemble.cutoff),
        "images": found["path_count"],
        "views": pa.array(views, pa.list_(pa.string())),
        "model": found["model_max"],
    }
    return pa.table(columns)


def caption(row: Mapping[str, Any]) -> str:
    """Return the caption of a heatmap: side, view, probability and decision of a row of images.parquet."""
    where = " ".join(part for part in (row["laterality"], row["view"]) if part)
    called = "malignant" if row["malignant"] else "benign"
    return f"{where + ': ' if where else ''}probability {row['probability']:.3f}, called {called} ({row['model']})"
