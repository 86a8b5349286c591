"""The ensemble, frozen: members, cut-off, calibration; averages and what they do to a split. No Ray, MLflow, torch.

selection.py chooses it, on validation alone; `evaluation` reads the test split only when it is handed one.

Shape letters: N images, K members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.errors import LakeError, SplitError
from mammoflow.lake.schema import MALIGNANT, SCORES
from mammoflow.metrics import calibration, operating_points, resampling, roc
from mammoflow.metrics.calibration import Calibration
from mammoflow.metrics.resampling import Resampling
from mammoflow.metrics.roc import FloatArray

ENSEMBLE = "ensemble"
"""Name of the ensemble in the column `model` of a scores table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One whole-image classifier of the ensemble."""

    name: str
    """Candidate name, e.g. resnet50-256x1-128x1."""
    kind: str
    """Trunk family - top family, e.g. Resnet-VGG."""
    backbone: str
    """Name of its trunk's backbone."""
    top_layers: str
    """Its top-layer spec."""
    val_auc: float
    """Validation AUC of its flip-averaged scores."""
    times: int = 1
    """How often it counts in the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Members and cut-off, chosen on validation and not to be changed afterwards."""

    members: tuple[Member, ...]
    """Whose flip-averaged scores are averaged, each as many times as it says."""
    cutoff: float
    """The ensemble calls an image malignant at a mean score of at least this [0-1]."""
    val_images: int
    """Validation images that all of this was chosen on."""
    val_auc: float
    """Validation AUC of the ensemble; flattered, for members and cut-off were chosen on the same images."""
    val_ci95: tuple[float, float]
    """95% interval of it."""
    val_sensitivity: float
    """At the cut-off, on validation [0-1]."""
    val_specificity: float
    """At the cut-off, on validation [0-1]."""
    rule: str = "best_of_kinds"
    """How members were chosen (`EnsembleConfig.rule`)."""
    calibration: Calibration = field(default_factory=Calibration)
    """From the mean score to a probability; fitted on validation."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the members' candidate names."""
        return tuple(member.name for member in self.members)


def average(scores: pa.Table, ensemble: Ensemble) -> pa.Table:
    """Return the ensemble's rows (schema.SCORES, model "ensemble"): means of the members' scores, image by image.

    Raises:
        LakeError: a member without scores, or members scored on different images.

    Source: paper, methods (the plain mean of the members' flip-averaged scores).
    """
    return mean_scores(scores, ensemble.members)


def summarise(scores: pa.Table) -> dict[str, dict[str, Any]]:
    """Return figures of each model of a one-split table: images, malignant, AUC and interval, plain and flip-averaged.

    `ci95` and `ci95_tta` are DeLong's, `ci95_patients` is that of the flip-averaged AUC by bootstrap of patients.

    Raises:
        SplitError: rows of several splits, or one class only.
    """
    splits = pc.unique(scores["split"]).to_pylist()
    if len(splits) != 1:
        raise SplitError(f"scores of the splits {splits} in one table; summarise one split at a time")
    figures: dict[str, dict[str, Any]] = {}
    for name in pc.unique(scores["model"]).to_pylist():
        rows = rows_of(scores, name)
        labels_N, plain_N = columns(rows, "score")
        _, averaged_N = columns(rows, "score_tta")
        figures[name] = {
            "images": len(labels_N),
            "malignant": int((labels_N == MALIGNANT).sum()),
            "auc": roc.auc(labels_N, plain_N),
            "ci95": list(roc.auc_interval(labels_N, plain_N)),
            "auc_tta": roc.auc(labels_N, averaged_N),
            "ci95_tta": list(roc.auc_interval(labels_N, averaged_N)),
            "ci95_patients": list(resampling.interval(_resampling(rows).aucs(averaged_N))),
        }
    return figures


def performance(scores: pa.Table, ensemble: Ensemble) -> operating_points.OperatingPoint:
    """Return sensitivity and specificity of the frozen ensemble on a split, with intervals.

    Args:
        scores: schema.SCORES of every member on one split.
        ensemble: with its cut-off, chosen on validation.
    """
    labels_N, scores_N = columns(average(scores, ensemble))
    return operating_points.at_cutoff(labels_N, scores_N, ensemble.cutoff)


def decide(members_NK: FloatArray, ensemble: Ensemble) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return what the ensemble says of images.

    Args:
        members_NK: the members' flip-averaged scores (N, K) [0-1], members in order.
        ensemble: the frozen choice.

    Returns:
        score_N, the members' mean; probability_N, the calibrated score; malignant_N, bool: `score >= cutoff`.
    """
    times_K = [member.times for member in ensemble.members]
    score_N: FloatArray = np.average(members_NK, axis=1, weights=times_K)
    return score_N, ensemble.calibration.apply(score_N), score_N >= ensemble.cutoff


def to_dict(ensemble: Ensemble) -> dict[str, Any]:
    """Return the ensemble as plain values that JSON holds."""
    return asdict(ensemble)


def from_dict(values: Mapping[str, Any]) -> Ensemble:
    """Return the ensemble that `to_dict` wrote.

    Raises:
        LakeError: a field is missing or unknown.
    """
    try:
        members = tuple(Member(**member) for member in values["members"])
        low, high = values["val_ci95"]
        fitted = calibration.from_dict(values["calibration"])
        return Ensemble(**{**values, "members": members, "val_ci95": (low, high), "calibration": fitted})
    except (KeyError, TypeError, ValueError) as error:
        raise LakeError(
            f"this is no ensemble of this version of mammoflow: {error}; choose and register it anew"
        ) from error


def rows_of(scores: pa.Table, model: str) -> pa.Table:
    """Return one model's rows of a scores table, sorted by image."""
    return scores.filter(pc.equal(scores["model"], model)).sort_by("image_id")


def columns(rows: pa.Table, score: str = "score_tta") -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return labels int64 (N,) and scores float64 (N,) of one model's rows."""
    return rows["label"].to_numpy().astype(np.int64), rows[score].to_numpy()


def mean_scores(scores: pa.Table, members: Sequence[Member]) -> pa.Table:
    """Return the mean over some models, image by image, as rows of the model "ensemble"; see `average`."""
    tables = [rows_of(scores, member.name) for member in members]
    images = tables[0]["image_id"]
    for member, table in zip(members, tables, strict=True):
        if not table.num_rows or not table["image_id"].equals(images):
            raise LakeError(
                f"{member.name} has scores of {table.num_rows} images, {members[0].name} of {len(images)}, or not of "
                "the same ones; score every member on the same split"
            )
    times = [member.times for member in members]
    means = tables[0]
    for column in ("score", "score_tta"):
        mean_N = np.average([table[column].to_numpy() for table in tables], axis=0, weights=times)
        means = means.set_column(means.schema.get_field_index(column), column, pa.array(mean_N))
    model = pa.array([ENSEMBLE] * means.num_rows, pa.string())
    return means.set_column(means.schema.get_field_index("model"), "model", model).cast(SCORES)


def _resampling(rows: pa.Table) -> Resampling:
    return Resampling(rows["label"].to_numpy(), rows["patient_id"].to_pylist())
