"""AUC with its interval, ROC curves and operating points. NumPy and scikit-learn only: no torch, no Ray, no files.

Shape letters: N images, M malignant and B benign ones among them (N = M + B). Labels are 0 or 1 (schema.MALIGNANT);
scores are any finite numbers, higher meaning more suspicious; an image is called malignant at `score >= cutoff`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from mammoflow.errors import SplitError
from mammoflow.schema import MALIGNANT

Labels = npt.ArrayLike
Scores = npt.ArrayLike
FloatArray = npt.NDArray[np.float64]

Z95 = 1.959963984540054
"""97.5% point of the normal distribution: two-sided 95% intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of images and its 95% interval by Wilson."""

    value: float
    """hits / of [0-1]."""
    low: float
    """Lower end of the interval [0-1]."""
    high: float
    """Upper end of the interval [0-1]."""
    hits: int
    """Images counted."""
    of: int
    """Images they are counted among."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What a cut-off does to a set of images."""

    cutoff: float
    """An image is called malignant at a score of at least this."""
    sensitivity: Proportion
    """Malignant images called malignant."""
    specificity: Proportion
    """Benign images called benign."""


def auc(labels: Labels, scores: Scores) -> float:
    """Return the area under the ROC curve [0-1]; ties count half.

    Args:
        labels: 0 or 1, (N,).
        scores: (N,).

    Raises:
        SplitError: one class only, unequal lengths, or a score that is not finite.
    """
    labels_N, scores_N = _checked(labels, scores)
    return float(roc_auc_score(labels_N, scores_N))


def placements(labels: Labels, scores: Scores) -> tuple[FloatArray, FloatArray]:
    """Return what share of the other class each image is ranked right against; both have the AUC as mean.

    Args:
        labels: 0 or 1, (N,).
        scores: (N,).

    Returns:
        float64 (M,) of the malignant images and (B,) of the benign ones, in the order given [0-1].

    Raises:
        SplitError: as `auc`.

    Source: DeLong et al. 1988, structural components V10 and V01; by midranks in O(N log N), Sun and Xu 2014.
    """
    labels_N, scores_N = _checked(labels, scores)
    malignant_N = labels_N == MALIGNANT
    ranks_N = _midranks(scores_N)
    among_M = _midranks(scores_N[malignant_N])
    among_B = _midranks(scores_N[~malignant_N])
    malignant, benign = len(among_M), len(among_B)
    right_M = (ranks_N[malignant_N] - among_M) / benign
    right_B = 1.0 - (ranks_N[~malignant_N] - among_B) / malignant
    return right_M, right_B


def auc_variance(labels: Labels, scores: Scores) -> float:
    """Return DeLong's variance of the AUC; NaN where a class has one image only.

    Raises:
        SplitError: as `auc`.

    Source: DeLong et al. 1988.
    """
    right_M, right_B = placements(labels, scores)
    if min(len(right_M), len(right_B)) < 2:
        return float("nan")
    return float(right_M.var(ddof=1) / len(right_M) + right_B.var(ddof=1) / len(right_B))


def auc_interval(labels: Labels, scores: Scores) -> tuple[float, float]:
    """Return the 95% interval of the AUC, clipped to 0-1.

    Where DeLong's variance can't be had (one image of a class) or vanishes (perfect separation, equal scores), it would
    claim a certainty that a finite sample does not give; there the interval is Wilson's for as many trials as the
    smaller class has images.

    Raises:
        SplitError: as `auc`.
    """
    right_M, right_B = placements(labels, scores)
    area = float(right_M.mean())
    variance = auc_variance(labels, scores)
    if not variance > 0:
        trials = min(len(right_M), len(right_B))
        return wilson(area * trials, trials)
    margin = Z95 * variance**0.5
    return max(0.0, area - margin), min(1.0, area + margin)


def roc_points(labels: Labels, scores: Scores) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the ROC curve: false positive rates, true positive rates and their cut-offs, from strict to lax.

    Raises:
        SplitError: as `auc`.
    """
    labels_N, scores_N = _checked(labels, scores)
    false_positive, true_positive, cutoffs = roc_curve(labels_N, scores_N, drop_intermediate=False)
    return false_positive, true_positive, cutoffs


def youden_cutoff(labels: Labels, scores: Scores) -> float:
    """Return the cut-off of largest sensitivity + specificity; of equal ones the laxer, which misses fewer cancers.

    It lies halfway between two neighbouring scores, so that rounding does not turn a decision over.

    Args:
        labels: 0 or 1 of the *validation* images, (N,); on test images the figure would flatter.
        scores: (N,).

    Raises:
        SplitError: as `auc`.

    Source: Youden 1950.
    """
    false_positive, true_positive, cutoffs = roc_points(labels, scores)
    index = np.round(true_positive - false_positive, 12)[1:]  # the first point calls nothing malignant
    best = len(index) - int(np.argmax(index[::-1]))  # the last of the largest
    chosen = float(cutoffs[best])
    below = float(cutoffs[best + 1]) if best + 1 < len(cutoffs) else chosen
    middle = (chosen + below) / 2
    return middle if middle > below else chosen  # neighbours one rounding step apart have no middle


def at_cutoff(labels: Labels, scores: Scores, cutoff: float) -> OperatingPoint:
    """Return sensitivity and specificity of calling images malignant at `score >= cutoff`.

    Raises:
        SplitError: as `auc`.
    """
    labels_N, scores_N = _checked(labels, scores)
    called_N = scores_N >= cutoff
    malignant_N = labels_N == MALIGNANT
    return OperatingPoint(
        cutoff=float(cutoff),
        sensitivity=proportion(int(called_N[malignant_N].sum()), int(malignant_N.sum())),
        specificity=proportion(int((~called_N[~malignant_N]).sum()), int((~malignant_N).sum())),
    )


def proportion(hits: int, of: int) -> Proportion:
    """Return hits / of with its 95% interval."""
    low, high = wilson(hits, of)
    return Proportion(value=hits / of, low=low, high=high, hits=hits, of=of)


def wilson(hits: float, of: int) -> tuple[float, float]:
    """Return the 95% score interval of a share.

    Args:
        hits: successes, 0 to `of`; may be a fraction of a trial.
        of: trials, at least 1.

    Source: Wilson 1927.
    """
    share = hits / of
    spread = Z95 * np.sqrt(share * (1 - share) / of + Z95**2 / (4 * of**2))
    scale = 1 + Z95**2 / of
    middle = share + Z95**2 / (2 * of)
    return max(0.0, float((middle - spread) / scale)), min(1.0, float((middle + spread) / scale))


def _checked(labels: Labels, scores: Scores) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return both as arrays, or raise SplitError where no ROC curve can be drawn."""
    labels_N = np.asarray(labels, dtype=np.int64)
    scores_N = np.asarray(scores, dtype=np.float64)
    if labels_N.shape != scores_N.shape or labels_N.ndim != 1:
        raise SplitError(f"{labels_N.shape} labels and {scores_N.shape} scores; give one score and one label an image")
    if not np.isfinite(scores_N).all():
        raise SplitError(
            f"{int((~np.isfinite(scores_N)).sum())} of {len(scores_N)} scores are not finite; check the model"
        )
    malignant = int((labels_N == MALIGNANT).sum())
    if not 0 < malignant < len(labels_N):
        raise SplitError(
            f"{malignant} malignant of {len(labels_N)} images; an AUC, a cut-off and a sensitivity need at least one "
            "image of each class: use more images or another seed"
        )
    return labels_N, scores_N


def _midranks(values_N: FloatArray) -> FloatArray:
    """Return ranks from 1, equal values sharing the mean of theirs."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: FloatArray = last - (counts - 1) / 2
    return middle[inverse_N]
