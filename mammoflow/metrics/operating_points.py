"""Operating points: cut-offs chosen on validation, and what they do to a set of images. No torch, no Ray, no files.

Shape letters: N images. Labels are 0 or 1 (schema.MALIGNANT); an image is called malignant at `score >= cutoff`.
"""

import numpy as np

from mammoflow.facts.results import OperatingPoint, Proportion
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics.roc import FloatArray, Labels, Scores, checked, roc_points, wilson

_ROUNDING = 1e-12


def youden_cutoff(labels: Labels, scores: Scores) -> float:
    """Return the cut-off of largest sensitivity + specificity; of equal ones the laxer, which misses fewer cancers.

    It lies halfway between two neighbouring scores, so that rounding does not turn a decision over.

    Args:
        labels: 0 or 1 of the *validation* images, (N,); on test images the figure would flatter.
        scores: (N,).

    Raises:
        SplitError: as `metrics.auc`.

    Source: Youden 1950.
    """
    false_positive, true_positive, cutoffs = roc_points(labels, scores)
    index = np.round(true_positive - false_positive, 12)[1:]  # the first point calls nothing malignant
    best = len(index) - int(np.argmax(index[::-1]))  # the last of the largest
    return _halfway(cutoffs, best)


def cutoff_at_sensitivity(labels: Labels, scores: Scores, least: float) -> float:
    """Return the cut-off of largest specificity at which at least this share of malignant images is called malignant.

    Args:
        labels: 0 or 1 of the *validation* images, (N,).
        scores: (N,).
        least: sensitivity to reach (0-1].

    Raises:
        SplitError: as `metrics.auc`.
    """
    _, true_positive, cutoffs = roc_points(labels, scores)
    first = int(np.argmax(true_positive >= least - _ROUNDING))
    return _halfway(cutoffs, first)


def cutoff_at_specificity(labels: Labels, scores: Scores, least: float) -> float:
    """Return the cut-off of largest sensitivity at which at least this share of benign images is not called malignant.

    Args:
        labels: 0 or 1 of the *validation* images, (N,).
        scores: (N,).
        least: specificity to reach [0-1]. Where no cut-off reaches it but one that calls nothing malignant, that one.

    Raises:
        SplitError: as `metrics.auc`.
    """
    false_positive, _, cutoffs = roc_points(labels, scores)
    last = int(np.flatnonzero(1 - false_positive >= least - _ROUNDING)[-1])
    return _halfway(cutoffs, last) if last else float(np.nextafter(cutoffs[1], np.inf))


def choose_cutoff(labels: Labels, scores: Scores, rule: str, least: float) -> float:
    """Return the cut-off that a rule chooses.

    Args:
        labels: 0 or 1 of the *validation* images, (N,).
        scores: (N,).
        rule: youden | sensitivity | specificity.
        least: what the rule's figure may not fall below [0-1]; youden has none.

    Raises:
        SplitError: as `metrics.auc`.
    """
    if rule == "youden":
        return youden_cutoff(labels, scores)
    return {"sensitivity": cutoff_at_sensitivity, "specificity": cutoff_at_specificity}[rule](labels, scores, least)


def at_cutoff(labels: Labels, scores: Scores, cutoff: float) -> OperatingPoint:
    """Return sensitivity and specificity of calling images malignant at `score >= cutoff`.

    Raises:
        SplitError: as `metrics.auc`.
    """
    labels_N, scores_N = checked(labels, scores)
    called_N = scores_N >= cutoff
    malignant_N = labels_N == MALIGNANT
    return OperatingPoint(
        cutoff=float(cutoff),
        sensitivity=proportion(int(called_N[malignant_N].sum()), int(malignant_N.sum())),
        specificity=proportion(int((~called_N[~malignant_N]).sum()), int((~malignant_N).sum())),
    )


def proportion(hits: int, of: int) -> Proportion:
    """Return hits / of with its 95% interval."""
    return Proportion(value=hits / of, interval=wilson(hits, of), hits=hits, of=of)


def _halfway(cutoffs: FloatArray, chosen: int) -> float:
    """Return a cut-off halfway to the next score below, so that rounding does not turn a decision over."""
    upper = float(cutoffs[chosen])
    below = float(cutoffs[chosen + 1]) if chosen + 1 < len(cutoffs) else upper
    middle = (upper + below) / 2
    return middle if middle > below else upper  # neighbours one rounding step apart have no middle
