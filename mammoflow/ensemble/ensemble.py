"""The frozen ensemble: members, cut-off, calibration; averages, and what models reach. No Ray, MLflow, torch.

selection.py chooses it, on validation alone; split_door.py opens the test split only to a frozen one.

Shape letters: N images, K members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow import lake
from mammoflow.errors import LakeError, SplitError
from mammoflow.facts import codec
from mammoflow.facts.results import Auc, Interval, Score
from mammoflow.lake.schema import MALIGNANT, SCORES
from mammoflow.metrics import resampling, roc
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
    """Validation AUC of the mean; flattered, as members and cut-off were chosen on the same images."""
    val_by_patient: Interval | None
    """95% interval of it, by bootstrap of patients; None where a class has too few."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What was chosen on validation: `ensembles.json` of the stage `ensemble`, `choice.json` of `two_step`."""

    version: Literal[1] = 1
    by_rule: dict[str, Ensemble]
    """Rule -> the ensemble that it chose."""


def write_choices(url: str, by_rule: Mapping[str, Ensemble]) -> None:
    """Write frozen choices as JSON."""
    lake.write_bytes(url, codec.to_json(Choices(by_rule=dict(by_rule))))


def read_choices(url: str) -> dict[str, Ensemble]:
    """Return the frozen choices that `write_choices` wrote.

    Raises:
        LakeError: the file is missing, damaged, or of another version of mammoflow.
    """
    return codec.from_json(lake.read_bytes(url), Choices, url).by_rule


def average(scores: pa.Table, ensemble: Ensemble) -> pa.Table:
    """Return the ensemble's rows (schema.SCORES, model "ensemble"): means of the members' scores, image by image.

    Raises:
        LakeError: a member without scores, or members scored on different images.

    Source: paper, methods (the plain mean of the members' flip-averaged scores).
    """
    return mean_scores(scores, ensemble.members)


def summarise(scores: pa.Table) -> dict[str, Score]:
    """Return what each model of a one-split table reaches, by name.

    Models scored on the same images share the draws of patients.

    Raises:
        SplitError: rows of several splits, or one class only.
    """
    splits = pc.unique(scores["split"]).to_pylist()
    if len(splits) != 1:
        raise SplitError(f"scores of the splits {splits} in one table; summarise one split at a time")
    figures: dict[str, Score] = {}
    draws: Resampling | None = None
    drawn_for: pa.Table | None = None
    for name in pc.unique(scores["model"]).to_pylist():
        rows = rows_of(scores, name)
        images = rows.select(["image_id", "patient_id", "label"])
        labels_N, plain_N = columns(rows, "score")
        _, averaged_N = columns(rows)
        if draws is None or not images.equals(drawn_for):
            draws, drawn_for = Resampling(labels_N, rows["patient_id"].to_pylist()), images
        figures[name] = Score(
            images=len(labels_N),
            malignant=int((labels_N == MALIGNANT).sum()),
            plain=_auc(labels_N, plain_N, draws),
            flips=_auc(labels_N, averaged_N, draws),
        )
    return figures


def summarise_ensemble(scores: pa.Table, ensemble: Ensemble) -> Score:
    """Return what the ensemble reaches on the split that its members' scores are of."""
    return summarise(average(scores, ensemble))[ENSEMBLE]


def _auc(labels_N: npt.NDArray[np.int64], scores_N: FloatArray, draws: Resampling) -> Auc:
    return Auc(
        value=roc.auc(labels_N, scores_N),
        by_patient=resampling.interval(draws.aucs(scores_N)),
        delong=roc.auc_interval(labels_N, scores_N),
    )


def decide(members_NK: FloatArray, ensemble: Ensemble) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return the ensemble's scores, probabilities and decisions.

    Args:
        members_NK: the members' flip-averaged scores (N, K) [0-1], members in order.
        ensemble: the frozen choice.

    Returns:
        score_N, the members' mean; probability_N, the calibrated score; malignant_N, bool: `score >= cutoff`.
    """
    times_K = [member.times for member in ensemble.members]
    score_N: FloatArray = np.average(members_NK, axis=1, weights=times_K)
    return score_N, ensemble.calibration.apply(score_N), score_N >= ensemble.cutoff


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
