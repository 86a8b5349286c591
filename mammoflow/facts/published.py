"""The records that mammoflow publishes: `summary.json`, `report.json`, figures of other data, the leaderboard.

A public file is one record with a `version`, which rises whenever a reader of an earlier one could misread it.
"""

from dataclasses import dataclass
from typing import Literal

from mammoflow.facts.results import (
    CalibrationFigures,
    Difference,
    LevelFigures,
    ListedAuc,
    OperatingPoint,
    Performance,
    RocCurve,
    Score,
    Subgroup,
)
from mammoflow.facts.stages import Counts, PatchAccuracy, RankingRow, RegisteredFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to a whole-image score, frozen on validation and judged on test."""

    name: str
    made_of: str
    members: dict[str, int]
    """Model -> how often it counts in the mean."""
    val_auc: float
    reached: Performance
    over_baseline: Difference | None
    """AUC above the two-step baseline's, by DeLong; None without a baseline."""
    paper_auc: float | None
    averaged: bool
    """It is a mean of several models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """One whole-image classifier of the paper's Table 2 or 3."""

    table: int
    """2 (Resnet50 patch classifier) or 3 (VGG16)."""
    backbone: str
    """Our name of its patch classifier's backbone."""
    patch_set: str
    """S1 | S10."""
    top_layers: str
    """In our notation (models/top_spec.py)."""
    plain_auc: float
    """Test AUC per image."""
    auc: float | None
    """Test AUC of the flip-averaged score; None where not given."""
    epoch: int
    """Epoch of the best validation AUC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPatchRow:
    """One patch classifier of the paper's Table 1."""

    backbone: str
    weights: str | None
    """That training began with; None: random."""
    patch_set: str
    accuracy: float
    """On test [0-1]."""
    epoch: int
    """Epoch of the best validation accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Of others, as the paper's text gives them, on other films than these."""

    cad_auc: float
    """Commercial computer-aided detection on average."""
    radiologists_sensitivity: float
    """Radiologists of US screening."""
    radiologists_specificity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFigures:
    """A candidate of a search, with test figures where it was scored and the paper's where it has this very one."""

    ranked: RankingRow
    test: Score | None
    paper: PaperRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRow:
    """A row of Table 1."""

    backbone: str
    weights: str | None
    """That training began with; None: random."""
    patch_set: str
    test: PatchAccuracy
    best_epoch: int | None
    paper: PaperPatchRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The paper's Table 1, and its row of Table 2 on the other patch set: `figures.json` of `reproduction`."""

    version: Literal[1] = 1
    search: str
    """Fingerprint of the main run's search."""
    patch_classifiers: tuple[PatchRow, ...]
    patch_set: str
    """The other patch set."""
    other_set: tuple[CandidateFigures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """A registered ensemble on another site's test images."""

    cutoff_of: str
    """Whose cut-off and calibration it has: `as registered` | `of this site`."""
    reached: Performance


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRow:
    """A row of Table 4: what was reached after training on some patients of another site."""

    patients: int
    """0: as registered."""
    images: int
    malignant: int
    members: dict[str, Score]
    ensemble: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One ensemble on one data set's test images."""

    model: str
    data: str
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A registered ensemble on another data set: `figures.json` of `transfer`."""

    version: Literal[1] = 1
    model: str
    """URI of the version that was begun from."""
    site: tuple[SiteRow, ...]
    """Before any training there."""
    rows: tuple[TransferRow, ...]
    """Table 4, fewest patients first."""
    matrix: tuple[MatrixCell, ...]
    """The ensemble begun from and the one trained on, each on both data sets."""
    curves: tuple[RocCurve, ...]
    """On test after the most patients: members, then the ensemble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One model of a run."""

    name: str
    kind: str
    """Trunk family - top family."""
    val: Score
    test: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleFigures:
    """The ensemble of a run."""

    members: tuple[str, ...]
    val: Score
    test: Score
    at_cutoff: OperatingPoint
    """On test, at the cut-off of validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSummary:
    """The patch classifiers of a run on test."""

    best: str
    """Backbone of the best on validation."""
    trunks: dict[str, PatchAccuracy]
    """By backbone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a run: `summary.json`."""

    version: Literal[1] = 1
    recipe: str
    images: Counts
    patches: Counts
    patch: PatchSummary | None
    """None where no patch classifier was trained."""
    models: tuple[ModelFigures, ...]
    """Best validation AUC first."""
    ensemble: EnsembleFigures
    registered: str
    """URI of the registered model."""
    quarantined: int
    """Images left out."""
    seconds: dict[str, float]
    """Stage -> how long it took when it was built [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCounts:
    """What a run was trained and judged on."""

    images: Counts
    malignant: Counts
    patients: Counts
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every number of the report: `report.json`."""

    version: Literal[1] = 1
    recipe: str
    dataset: str
    protocol: str
    phantoms: bool
    registered: RegisteredFacts
    data: DataCounts
    patch_classifiers: dict[str, PatchAccuracy]
    """Backbone -> figures on test."""
    candidates: tuple[CandidateFigures, ...]
    """As the search ranked them."""
    pooled: dict[str, Score]
    """Candidates of other searches, which the ensemble could take, on test."""
    ensemble: Performance
    """The registered ensemble on test."""
    compared: tuple[Way, ...]
    levels: tuple[LevelFigures, ...]
    calibration: CalibrationFigures
    subgroups: tuple[Subgroup, ...]
    transfer: Transfer | None
    reproduction: Reproduction | None
    references: References


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardRow:
    """One model."""

    model: str
    """Name of a candidate, of an ensemble's rule, or of the baseline."""
    kind: str
    """ensemble | two-step | a family of top layers, e.g. Resnet-VGG."""
    run: str = ""
    """Recipe of its run; empty for a version that no evaluated run of the lake made."""
    data: str = ""
    """Release and size of the images that it was trained and judged on."""
    mark: str = ""
    """What must be said of these images: that they are phantoms, or that it is not known."""
    patients: int | None = None
    """Patients that it was trained on; None where that is not known."""
    val: ListedAuc | None = None
    """On validation, where it was chosen."""
    test: ListedAuc | None = None
    """On test, by which nothing was chosen."""
    version: str = ""
    """`<name>/<version>` in the registry; empty where it is not registered."""
    aliases: tuple[str, ...] = ()
    """Of that version, e.g. champion."""
    page: str = ""
    """Relative URL of its run's page; empty without one."""
