"""What a frozen ensemble reaches on a split. A metric is one entry of `METRICS`. No Ray, MLflow, torch.

Shape letters: N images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.facts.results import Measure, Performance, RocCurve
from mammoflow.metrics import calibration, operating_points, roc
from mammoflow.metrics.roc import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An ensemble's scores on a split."""

    labels: npt.NDArray[np.int64]
    """0 or 1, (N,)."""
    scores: FloatArray
    """Means of the members' flip-averaged scores (N,) [0-1]."""
    probabilities: FloatArray
    """Calibrated scores (N,) [0-1]."""
    cutoff: float
    """An image is called malignant at a score of at least this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric that the report, report.json, the job's tables and the model card show."""

    name: str
    """Heads its column and names it in JSON."""
    compute: Callable[[Judged], float]


METRICS = (
    Metric(name="partial AUC", compute=lambda judged: roc.partial_auc(judged.labels, judged.scores)),
    Metric(
        name="calibration error",
        compute=lambda judged: calibration.expected_error(judged.labels, judged.probabilities),
    ),
    Metric(name="Brier score", compute=lambda judged: calibration.brier(judged.labels, judged.probabilities)),
)
"""Beside AUC, sensitivity and specificity. A further entry is shown in report.json, the comparison of ensembles, the
tables of sites and of the baseline, and the model card."""


def measure(scores: pa.Table, chosen: Ensemble) -> Performance:
    """Return what an ensemble reaches, at its own cut-off and by its own calibration.

    Args:
        scores: schema.SCORES of every member on one split.
        chosen: the ensemble.

    Raises:
        SplitError: rows of several splits, or one class only.
        LakeError: a member without scores.
    """
    means = ensembles.average(scores, chosen)
    labels_N, scores_N = ensembles.columns(means)
    probabilities_N = chosen.calibration.apply(scores_N)
    judged = Judged(labels=labels_N, scores=scores_N, probabilities=probabilities_N, cutoff=chosen.cutoff)
    return Performance(
        score=ensembles.summarise(means)[ENSEMBLE],
        at_cutoff=operating_points.at_cutoff(labels_N, scores_N, chosen.cutoff),
        calibration=chosen.calibration.kind,
        measures=tuple(Measure(name=metric.name, value=metric.compute(judged)) for metric in METRICS),
    )


def roc_curves(scores: pa.Table, chosen: Ensemble) -> tuple[RocCurve, ...]:
    """Return the ROC curves of the members, flip-averaged, and of the ensemble, which comes last.

    Args:
        scores: schema.SCORES of every member on one split.
        chosen: the ensemble.

    Raises:
        SplitError: one class only.
        LakeError: a member without scores.
    """
    tables = {name: ensembles.rows_of(scores, name) for name in chosen.names}
    curves = []
    for name, rows in (*tables.items(), (ENSEMBLE, ensembles.average(scores, chosen))):
        false_positive, true_positive, _ = roc.roc_points(*ensembles.columns(rows))
        curves.append(
            RocCurve(
                name=name, false_positive=tuple(false_positive.tolist()), true_positive=tuple(true_positive.tolist())
            )
        )
    return tuple(curves)
