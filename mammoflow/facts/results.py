"""The figures of results: what models reach, in the words that reports, tables and cards share.

An AUC is of the flip-averaged score (the paper's A-AUC) unless its name says `plain`; its interval is by patient unless
its name says `delong`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95% interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """An area under the ROC curve and its intervals."""

    value: float
    """[0-1]."""
    by_patient: Interval | None
    """By bootstrap of patients, the default; None where a class has too few of them."""
    delong: Interval
    """By DeLong, which counts every image as independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one model reaches on one split, per image."""

    images: int
    malignant: int
    plain: Auc
    """Of the single prediction."""
    flips: Auc
    """Of the mean over four flips: the paper's A-AUC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of images."""

    value: float
    """hits / of [0-1]."""
    interval: Interval
    """By Wilson."""
    hits: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What a cut-off does to a set of images."""

    cutoff: float
    """An image is called malignant at a score of at least this."""
    sensitivity: Proportion
    """Malignant images called malignant."""
    specificity: Proportion
    """Benign images called benign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of two models' AUCs on the same images: first minus second."""

    value: float
    """[-1 to 1]."""
    interval: Interval
    p: float | None = None
    """Two-sided p of no difference [0-1]; None where it can't be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric of `ensemble.performance.METRICS`."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What a frozen ensemble reaches on a split, at its own cut-off and by its own calibration."""

    score: Score
    at_cutoff: OperatingPoint
    calibration: str
    """Kind of calibration."""
    measures: tuple[Measure, ...]
    """Every further metric, in the order of `METRICS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityPoint:
    """Images of similar probability."""

    predicted: float
    """Mean probability [0-1]."""
    observed: float
    """Share that is malignant [0-1]."""
    interval: Interval
    """Of that share, by Wilson."""
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How well probabilities hold."""

    error: float
    """Expected calibration error [0-1]."""
    brier: float
    """Mean squared difference of probability and outcome [0-1]."""
    points: tuple[ReliabilityPoint, ...]
    """Of the reliability curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigures:
    """Reliability of an ensemble's probabilities on test."""

    kind: str
    before: Reliability
    """Of raw scores."""
    after: Reliability
    """Of calibrated ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelFigures:
    """An ensemble on test by image, breast or patient."""

    level: str
    """image | breast | patient."""
    rule: str
    """mean | max over the views."""
    cases: int
    malignant: int
    auc: Auc
    at_cutoff: OperatingPoint
    """At the cut-off of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """One part of a split, and how a model does on it."""

    by: str
    """view | density | lesion | vendor."""
    name: str
    """Which part, e.g. MLO; `unknown` where the release or the file doesn't say."""
    images: int
    malignant: int
    auc: Auc | None
    """None where one class is missing."""
    sensitivity: Proportion | None
    """None without malignant images."""
    specificity: Proportion | None
    """None without benign images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """A model's ROC curve, from strict to lax."""

    name: str
    false_positive: tuple[float, ...]
    """1 - specificity at each cut-off [0-1]."""
    true_positive: tuple[float, ...]
    """Sensitivity at each cut-off [0-1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAuc:
    """A flip-averaged AUC per image, as the leaderboard lists it."""

    value: float
    by_patient: Interval | None = None
    images: int | None = None
