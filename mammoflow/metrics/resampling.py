"""Bootstrap intervals by patient, since images of one patient are alike. No torch, no Ray, no files.

Patients are drawn with replacement, those with a malignant image and those without each among themselves; an image
counts as often as its patient was drawn. Every statistic of one `Resampling` has the same draws, so the difference of
two models is taken draw by draw.

Shape letters: N images, P patients, D draws, G groups of equal scores.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mammoflow.errors import SplitError
from mammoflow.facts.results import Interval
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics.roc import FloatArray, Labels, Scores, checked

DRAWS = 2000
_CHUNK = 50  # draws at a time: 50 x 10,000 images take 4 MB, which a core's cache holds


class Resampling:
    """Draws of the patients of a set of images.

    Source: Efron and Tibshirani 1993, percentile intervals; Rutter 2000 for patients with several images.
    """

    def __init__(self, labels: Labels, patients: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> None:
        """Draw the patients.

        Args:
            labels: 0 or 1, (N,).
            patients: whose each image is, (N,).
            draws: how many, at least 1.
            seed: of the draws.

        Raises:
            SplitError: one class only, or not one patient an image.
        """
        labels_N = np.asarray(labels, np.int64)
        if len(patients) != len(labels_N):
            raise SplitError(f"{len(patients)} patients of {len(labels_N)} images; give each image's own")
        checked(labels_N, np.zeros(len(labels_N)))
        self._labels_N = labels_N
        names, self._patient_N = np.unique(np.asarray(patients), return_inverse=True)
        malignant_P = np.zeros(len(names), bool)
        np.logical_or.at(malignant_P, self._patient_N, labels_N == MALIGNANT)
        rng = np.random.default_rng(seed)
        self._times_DP = np.zeros((draws, len(names)), np.int32)
        for stratum in (np.flatnonzero(malignant_P), np.flatnonzero(~malignant_P)):
            _draw(rng, stratum, self._times_DP)

    def aucs(self, scores: Scores) -> FloatArray:
        """Return the AUC of each draw (D,) [0-1]; NaN where a draw holds one class only.

        Args:
            scores: (N,).

        Raises:
            SplitError: a score that is not finite, or not one an image.
        """
        labels_N, scores_N = checked(self._labels_N, scores)
        order_N = np.argsort(scores_N, kind="stable")
        first_G = np.flatnonzero(np.diff(scores_N[order_N], prepend=np.nan) != 0)  # where a run of equal scores begins
        malignant_N = labels_N[order_N] == MALIGNANT
        return np.concatenate([_areas(times, malignant_N, first_G) for times in self._times(order_N)])

    def shares(self, hits: npt.ArrayLike, among: npt.ArrayLike) -> FloatArray:
        """Return what share of some images is hit in each draw (D,) [0-1], e.g. sensitivity; NaN where there is none.

        Args:
            hits: bool (N,).
            among: bool (N,), the images that count.
        """
        among_N = np.asarray(among, bool)
        hits_N = np.asarray(hits, bool) & among_N
        every_N = np.arange(len(among_N))
        parts = [(times @ hits_N.astype(float), times @ among_N.astype(float)) for times in self._times(every_N)]
        hit_D, of_D = (np.concatenate(part) for part in zip(*parts, strict=True))
        shares_D: FloatArray = np.divide(hit_D, of_D, out=np.full(len(of_D), np.nan), where=of_D > 0)
        return shares_D

    def values(self, statistic: Callable[[FloatArray], float]) -> FloatArray:
        """Return any statistic of each draw (D,).

        Args:
            statistic: of how often each image was drawn, (N,), its value.
        """
        every_N = np.arange(len(self._labels_N))
        return np.array([statistic(weights_N) for times in self._times(every_N) for weights_N in times])

    def _times(self, order_N: npt.NDArray[np.int64]) -> Iterator[FloatArray]:
        """Yield how often each image was drawn, images in this order, some draws at a time."""
        patient_N = self._patient_N[order_N]
        for start in range(0, len(self._times_DP), _CHUNK):
            yield self._times_DP[start : start + _CHUNK, patient_N].astype(np.float64)


def interval(values_D: FloatArray) -> Interval:
    """Return the 95% interval of the draws of a statistic; draws without a value are left out.

    Raises:
        SplitError: more than half have none.
    """
    there_D = values_D[~np.isnan(values_D)]
    if len(there_D) < len(values_D) / 2:
        raise SplitError(
            f"{len(values_D) - len(there_D)} of {len(values_D)} draws of patients lack a class; use more patients"
        )
    low, high = np.quantile(there_D, (0.025, 0.975))
    return Interval(low=float(low), high=float(high))


def _draw(rng: np.random.Generator, stratum: npt.NDArray[np.int64], times_DP: npt.NDArray[np.int32]) -> None:
    """Draw as many of these patients as there are, and count how often each comes."""
    if len(stratum):
        for times_P in times_DP:
            drawn = rng.integers(len(stratum), size=len(stratum))
            times_P[stratum] = np.bincount(drawn, minlength=len(stratum))


def _areas(times: FloatArray, malignant_N: npt.NDArray[np.bool_], first_G: npt.NDArray[np.int64]) -> FloatArray:
    """Return the AUC of each draw; images are sorted by score, and equal scores count half."""
    malignant_DG = np.add.reduceat(times * malignant_N, first_G, axis=1)
    benign_DG = np.add.reduceat(times * ~malignant_N, first_G, axis=1)
    below_DG = np.cumsum(benign_DG, axis=1) - benign_DG / 2
    pairs_D = malignant_DG.sum(axis=1) * benign_DG.sum(axis=1)
    won_D = np.einsum("dg,dg->d", malignant_DG, below_DG)
    areas_D: FloatArray = np.divide(won_D, pairs_D, out=np.full(len(pairs_D), np.nan), where=pairs_D > 0)
    return areas_D
