"""AUC, its interval, and the difference of two models' AUCs, by DeLong. No torch, no Ray, no files.

Every image counts as independent here; resampling.py keeps a patient's images together.

Shape letters: N images, M malignant and B benign ones among them (N = M + B). Labels are 0 or 1 (schema.MALIGNANT);
scores are any finite numbers, higher meaning more suspicious.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score, roc_curve

from mammoflow.errors import SplitError
from mammoflow.facts.results import Difference, Interval
from mammoflow.lake.schema import MALIGNANT

Labels = npt.ArrayLike
Scores = npt.ArrayLike
FloatArray = npt.NDArray[np.float64]

Z95 = 1.959963984540054
"""97.5% point of the normal distribution: two-sided 95% intervals."""


def auc(labels: Labels, scores: Scores) -> float:
    """Return the area under the ROC curve [0-1]; ties count half.

    Args:
        labels: 0 or 1, (N,).
        scores: (N,).

    Raises:
        SplitError: one class only, unequal lengths, or a score that is not finite.
    """
    labels_N, scores_N = checked(labels, scores)
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
    labels_N, scores_N = checked(labels, scores)
    malignant_N = labels_N == MALIGNANT
    ranks_N = rankdata(scores_N)
    among_M = rankdata(scores_N[malignant_N])
    among_B = rankdata(scores_N[~malignant_N])
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
    return _variance(*placements(labels, scores))


def auc_interval(labels: Labels, scores: Scores) -> Interval:
    """Return DeLong's 95% interval of the AUC, clipped to 0-1.

    Where DeLong's variance can't be had (one image of a class) or vanishes (perfect separation, equal scores), it would
    claim a certainty that a finite sample does not give; there the interval is Wilson's for as many trials as the
    smaller class has images.

    Raises:
        SplitError: as `auc`.
    """
    right_M, right_B = placements(labels, scores)
    area = float(right_M.mean())
    variance = _variance(right_M, right_B)
    if not variance > 0:
        trials = min(len(right_M), len(right_B))
        return wilson(area * trials, trials)
    margin = Z95 * variance**0.5
    return Interval(low=max(0.0, area - margin), high=min(1.0, area + margin))


def auc_difference(labels: Labels, first: Scores, second: Scores) -> Difference:
    """Return how much larger the first model's AUC is than the second's on the same images, and how certain that is.

    Where the variance can't be had or vanishes though the AUCs differ, the interval is Wilson's, as in `auc_interval`,
    of the difference brought from -1 to 1 onto a share.

    Args:
        labels: 0 or 1, (N,).
        first: (N,), scores of one model.
        second: (N,), of the other, images in the same order.

    Raises:
        SplitError: as `auc`.

    Source: DeLong et al. 1988, the paired test.
    """
    of_first, of_second = placements(labels, first), placements(labels, second)
    apart_M, apart_B = of_first[0] - of_second[0], of_first[1] - of_second[1]
    value = float(apart_M.mean())
    if not (apart_M.any() or apart_B.any()):
        return Difference(value=0.0, interval=Interval(low=0.0, high=0.0), p=1.0)  # the same ranking
    variance = _variance(apart_M, apart_B)
    if not variance > 0:
        trials = min(len(apart_M), len(apart_B))
        share = wilson((value + 1) / 2 * trials, trials)
        return Difference(value=value, interval=Interval(low=2 * share.low - 1, high=2 * share.high - 1))
    spread = variance**0.5
    interval = Interval(low=max(-1.0, value - Z95 * spread), high=min(1.0, value + Z95 * spread))
    return Difference(value=value, interval=interval, p=float(2 * norm.sf(abs(value) / spread)))


def partial_auc(labels: Labels, scores: Scores, least_specificity: float = 0.9) -> float:
    """Return the area under the part of the ROC curve at high specificity, scaled so that chance is .5 and the best 1.

    Args:
        labels: 0 or 1, (N,).
        scores: (N,).
        least_specificity: where the part begins [0-1).

    Raises:
        SplitError: as `auc`.

    Source: McClish 1989.
    """
    labels_N, scores_N = checked(labels, scores)
    return float(roc_auc_score(labels_N, scores_N, max_fpr=1 - least_specificity))


def roc_points(labels: Labels, scores: Scores) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the ROC curve: false positive rates, true positive rates and their cut-offs, from strict to lax.

    Raises:
        SplitError: as `auc`.
    """
    labels_N, scores_N = checked(labels, scores)
    false_positive, true_positive, cutoffs = roc_curve(labels_N, scores_N, drop_intermediate=False)
    return false_positive, true_positive, cutoffs


def wilson(hits: float, of: int) -> Interval:
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
    return Interval(low=max(0.0, float((middle - spread) / scale)), high=min(1.0, float((middle + spread) / scale)))


def checked(labels: Labels, scores: Scores) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return both as arrays.

    Raises:
        SplitError: no ROC curve can be drawn of them; see `auc`.
    """
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


def _variance(right_M: FloatArray, right_B: FloatArray) -> float:
    """Return DeLong's variance of a mean over both classes; NaN where one has a single image."""
    if min(len(right_M), len(right_B)) < 2:
        return float("nan")
    return float(right_M.var(ddof=1) / len(right_M) + right_B.var(ddof=1) / len(right_B))
