"""From scores to probabilities: fitted and chosen on validation, and how well they hold. No torch, no Ray, no files.

The models' losses are weighted so that both classes count alike, so a score is no share of cancers. Every way keeps
the order of the scores (isotonic may make neighbours equal), so AUCs and decisions at a cut-off stay as they are.

Shape letters: N images, B bins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedGroupKFold

from mammoflow.facts.results import Reliability, ReliabilityPoint
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics.roc import FloatArray, Labels, Scores, checked, wilson

Kind = Literal["none", "temperature", "logistic", "isotonic"]
KINDS: tuple[Kind, ...] = ("none", "temperature", "logistic", "isotonic")
"""In the order of their freedom: of equally good ones the first is taken."""

_FOLDS, _SEED = 5, 0
_LEAST = 1e-6  # scores are kept this far from 0 and 1, whose logits are not finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A rising map from score to probability."""

    kind: Kind = "none"
    """none: the score itself; temperature: logit / T; logistic: slope * logit + shift; isotonic: a staircase."""
    slope: float = 1.0
    """Of the logit: 1 / T, or the logistic's."""
    shift: float = 0.0
    """Added to the logit; the logistic's."""
    at: tuple[float, ...] = ()
    """Scores where the staircase's corners are."""
    to: tuple[float, ...] = ()
    """Their probabilities, straight lines between them."""

    def apply(self, scores: Scores) -> FloatArray:
        """Return the probability of malignant of each score (N,) [0-1]."""
        scores_N = np.asarray(scores, np.float64)
        if self.kind == "none":
            return scores_N
        if self.kind == "isotonic":
            return np.interp(scores_N, self.at, self.to)
        return 1 / (1 + np.exp(-(self.slope * _logits(scores_N) + self.shift)))


def fit(labels: Labels, scores: Scores, patients: Sequence[str]) -> Calibration:
    """Return the calibration of least log loss on patients that it was not fitted to, fitted to all.

    The kinds are compared by cross-validation in five folds of patients, fewer where a class has fewer of them; where
    not even two can be made, scores stay as they are.

    Args:
        labels: 0 or 1 of the *validation* images, (N,).
        scores: (N,) [0-1].
        patients: whose each image is, (N,).

    Raises:
        SplitError: as `metrics.auc`.
    """
    labels_N, scores_N = checked(labels, scores)
    losses: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for train, held in _folds(labels_N, np.asarray(patients)):
        for kind in KINDS:
            fitted = fit_kind(kind, labels_N[train], scores_N[train])
            losses[kind].append(log_loss(labels_N[held], _inside(fitted.apply(scores_N[held])), labels=[0, 1]))
    best = min(KINDS, key=lambda kind: float(np.mean(losses[kind])) if losses[kind] else 0.0)
    return fit_kind(best, labels_N, scores_N)


def fit_kind(kind: Kind, labels: Labels, scores: Scores) -> Calibration:
    """Return the calibration of one kind.

    A fit that would turn the order of the scores round, as where they are worse than chance, is none.

    Args:
        kind: one of `KINDS`.
        labels: 0 or 1, (N,).
        scores: (N,) [0-1].

    Raises:
        SplitError: as `metrics.auc`.

    Source: Guo et al. 2017 (temperature); Platt 1999, with his targets, which keep slopes finite where classes are
    apart (temperature and logistic); Zadrozny and Elkan 2002 (isotonic).
    """
    labels_N, scores_N = checked(labels, scores)
    if kind == "none":
        return Calibration()
    malignant = int((labels_N == MALIGNANT).sum())
    lowest, highest = 1 / (len(labels_N) - malignant + 2), (malignant + 1) / (malignant + 2)
    if kind == "isotonic":
        stairs = IsotonicRegression(y_min=lowest, y_max=highest, out_of_bounds="clip").fit(scores_N, labels_N)
        return Calibration(kind=kind, at=tuple(stairs.X_thresholds_.tolist()), to=tuple(stairs.y_thresholds_.tolist()))
    soft_N = np.where(labels_N == MALIGNANT, highest, lowest)
    model = LogisticRegression(C=np.inf, fit_intercept=kind == "logistic")
    logits_N1 = _logits(scores_N)[:, None]
    both = np.repeat([1, 0], len(labels_N))  # each image as malignant by its target, and as benign by the rest
    model.fit(np.concatenate([logits_N1, logits_N1]), both, sample_weight=np.concatenate([soft_N, 1 - soft_N]))
    slope = float(model.coef_[0, 0])
    if slope <= 0:
        return Calibration()
    return Calibration(kind=kind, slope=slope, shift=float(np.ravel(model.intercept_)[0]))


def bins(labels: Labels, probabilities: Scores, count: int = 10) -> list[ReliabilityPoint]:
    """Return the points of the reliability curve: images by rising probability, in bins of equal size.

    Args:
        labels: 0 or 1, (N,).
        probabilities: (N,) [0-1].
        count: B, at most; equal probabilities are never torn apart.

    Raises:
        SplitError: as `metrics.auc`.
    """
    labels_N, probabilities_N = checked(labels, probabilities)
    _, of_N = np.unique(probabilities_N, return_inverse=True)
    last = np.cumsum(np.bincount(of_N))  # images up to each value
    bin_N = np.minimum((last[of_N] - 1) * count // len(labels_N), count - 1)
    points = []
    for number in np.unique(bin_N):
        inside_N = bin_N == number
        images, malignant = int(inside_N.sum()), int((labels_N[inside_N] == MALIGNANT).sum())
        points.append(
            ReliabilityPoint(
                predicted=float(probabilities_N[inside_N].mean()),
                observed=malignant / images,
                interval=wilson(malignant, images),
                images=images,
            )
        )
    return points


def expected_error(labels: Labels, probabilities: Scores, count: int = 10) -> float:
    """Return the expected calibration error: how far the bins' probabilities are from their shares, on average [0-1].

    Source: Naeini et al. 2015, with bins of equal size.
    """
    points = bins(labels, probabilities, count)
    apart = sum(point.images * abs(point.predicted - point.observed) for point in points)
    return apart / sum(point.images for point in points)


def brier(labels: Labels, probabilities: Scores) -> float:
    """Return the mean squared difference of probability and outcome [0-1]."""
    labels_N, probabilities_N = checked(labels, probabilities)
    return float(brier_score_loss(labels_N, probabilities_N))


def reliability(labels: Labels, probabilities: Scores) -> Reliability:
    """Return how well probabilities hold: error, Brier score and the points of the curve."""
    return Reliability(
        error=expected_error(labels, probabilities),
        brier=brier(labels, probabilities),
        points=tuple(bins(labels, probabilities)),
    )


def _folds(
    labels_N: npt.NDArray[np.int64], patients_N: npt.NDArray[Any]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the images to fit to and those held back, no patient in both and both classes in each."""
    of_class = [len(np.unique(patients_N[labels_N == label])) for label in (0, 1)]
    count = min(_FOLDS, *of_class)
    if count < 2:
        return
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=_SEED)
    for train, held in folds.split(labels_N, labels_N, patients_N):
        if len(np.unique(labels_N[train])) == 2 and len(held):
            yield train, held


def _inside(probabilities_N: FloatArray) -> FloatArray:
    return np.clip(probabilities_N, _LEAST, 1 - _LEAST)


def _logits(scores_N: FloatArray) -> FloatArray:
    inside_N = _inside(scores_N)
    logits_N: FloatArray = np.log(inside_N) - np.log1p(-inside_N)
    return logits_N
