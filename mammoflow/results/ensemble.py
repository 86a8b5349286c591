"""Choose the members of the ensemble and its cut-off on validation, freeze both, and average. No Ray, MLflow, torch.

Nothing here can choose on test: `choose` refuses a table that holds a row of any other split than validation, and
`evaluation` reads the test split only when it is handed the frozen `Ensemble`.

Shape letters: N images, K members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.config import EnsembleConfig
from mammoflow.errors import LakeError, SplitError
from mammoflow.results import metrics, operating_points
from mammoflow.results.metrics import FloatArray
from mammoflow.schema import MALIGNANT, SCORES

ENSEMBLE = "ensemble"
"""Name of the ensemble in the column `model` of a scores table."""
CHOSEN_ON = "val"
_KINDS = ("Resnet-Resnet", "Resnet-VGG", "VGG-VGG", "VGG-Resnet")
"""Kinds of which the paper averages the best: convolutional top layers on either trunk."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Members and cut-off, chosen on validation and not to be changed afterwards."""

    members: tuple[Member, ...]
    """Whose flip-averaged scores are averaged, each with equal weight."""
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

    @property
    def names(self) -> tuple[str, ...]:
        """Return the members' candidate names."""
        return tuple(member.name for member in self.members)


def choose(val_scores: pa.Table, ranking: Sequence[Mapping[str, Any]], config: EnsembleConfig) -> Ensemble:
    """Choose the best candidate of each kind by validation AUC of the flip-averaged score, and the cut-off.

    Args:
        val_scores: schema.SCORES, rows of the validation split only, one for each candidate and image.
        ranking: of every scored candidate at least `name`, `kind`, `backbone` and `top_layers`.
        config: how the cut-off is chosen.

    Raises:
        SplitError: a row of another split, no rows, or one class only.
        LakeError: a scored candidate that the ranking does not know, or candidates scored on different images.

    Source: paper, results (mean of one model of each kind); chosen on validation, where the paper chose on test.
    """
    _refuse_other_splits(val_scores)
    known = {str(row["name"]): row for row in ranking}
    scored = pc.unique(val_scores["model"]).to_pylist()
    if unknown := sorted(set(scored) - set(known)):
        raise LakeError(
            f"scores of {unknown}, which the search's ranking lacks; it has {sorted(known)}: score that search anew"
        )
    candidates = [_member(known[name], rows_of(val_scores, name)) for name in scored]
    members = _best_of_each_kind(candidates)
    means = _mean_scores(val_scores, tuple(member.name for member in members))
    labels_N, scores_N = columns(means)
    cutoff = operating_points.choose_cutoff(labels_N, scores_N, *config.cutoff_rule)
    point = operating_points.at_cutoff(labels_N, scores_N, cutoff)
    return Ensemble(
        members=members,
        cutoff=point.cutoff,
        val_images=means.num_rows,
        val_auc=metrics.auc(labels_N, scores_N),
        val_ci95=metrics.auc_interval(labels_N, scores_N),
        val_sensitivity=point.sensitivity.value,
        val_specificity=point.specificity.value,
    )


def average(scores: pa.Table, ensemble: Ensemble) -> pa.Table:
    """Return the ensemble's rows (schema.SCORES, model "ensemble"): plain means of the members' scores, image by image.

    Raises:
        LakeError: a member without scores, or members scored on different images.

    Source: paper, methods (the plain mean of the members' flip-averaged scores).
    """
    return _mean_scores(scores, ensemble.names)


def summarise(scores: pa.Table) -> dict[str, dict[str, Any]]:
    """Return figures of each model of a one-split table: images, malignant, AUC and interval, plain and flip-averaged.

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
            "auc": metrics.auc(labels_N, plain_N),
            "ci95": list(metrics.auc_interval(labels_N, plain_N)),
            "auc_tta": metrics.auc(labels_N, averaged_N),
            "ci95_tta": list(metrics.auc_interval(labels_N, averaged_N)),
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


def decide(members_NK: FloatArray, ensemble: Ensemble) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return probability (N,) and decision (N,) from the members' flip-averaged scores (N, K), members in order."""
    probability_N: FloatArray = members_NK.mean(axis=1)
    return probability_N, probability_N >= ensemble.cutoff


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
        return Ensemble(**{**values, "members": members, "val_ci95": (low, high)})
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


def _refuse_other_splits(scores: pa.Table) -> None:
    splits = pc.unique(scores["split"]).to_pylist()
    if splits != [CHOSEN_ON]:
        raise SplitError(
            f"scores of the splits {splits}; members and cut-off are chosen on {CHOSEN_ON!r} alone, so that test stays "
            "untouched: pass the validation scores only"
        )


def _member(row: Mapping[str, Any], scores: pa.Table) -> Member:
    labels_N, scores_N = columns(scores)
    return Member(
        name=str(row["name"]),
        kind=str(row["kind"]),
        backbone=str(row["backbone"]),
        top_layers=str(row["top_layers"]),
        val_auc=metrics.auc(labels_N, scores_N),
    )


def _best_of_each_kind(candidates: Sequence[Member]) -> tuple[Member, ...]:
    """Return the best of each kind, kinds in alphabetical order; of equals the first by name.

    Where there is any of the paper's four kinds, only these are averaged.
    """
    plain = [member for member in candidates if member.kind in _KINDS]
    best: dict[str, Member] = {}
    for member in sorted(plain or candidates, key=lambda member: (-member.val_auc, member.name)):
        best.setdefault(member.kind, member)
    return tuple(best[kind] for kind in sorted(best))


def _mean_scores(scores: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the plain mean over these models, image by image, as rows of the model "ensemble"."""
    tables = [rows_of(scores, name) for name in names]
    images = tables[0]["image_id"]
    for name, table in zip(names, tables, strict=True):
        if not table.num_rows or not table["image_id"].equals(images):
            raise LakeError(
                f"{name} has scores of {table.num_rows} images, {names[0]} of {len(images)}, or not of the same ones; "
                "score every member on the same split"
            )
    means = tables[0]
    for column in ("score", "score_tta"):
        mean_N = np.mean([table[column].to_numpy() for table in tables], axis=0)
        means = means.set_column(means.schema.get_field_index(column), column, pa.array(mean_N))
    model = pa.array([ENSEMBLE] * means.num_rows, pa.string())
    return means.set_column(means.schema.get_field_index("model"), "model", model).cast(SCORES)
