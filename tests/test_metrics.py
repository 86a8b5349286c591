"""AUC, its interval, operating points: against slow formulas and published values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from mammoflow.errors import SplitError
from mammoflow.results import metrics


@st.composite
def scored_images(draw):
    """Labels of both classes, at least two images each, and scores coarse enough to tie."""
    malignant, benign = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    labels = draw(st.permutations([1] * malignant + [0] * benign))
    scores = draw(arrays(float, malignant + benign, elements=st.integers(0, 8).map(lambda n: n / 8)))
    return np.array(labels), scores


def slow_delong(labels, scores):
    """AUC and variance straight from DeLong's definition: every pair compared."""
    malignant, benign = scores[labels == 1], scores[labels == 0]
    wins = (malignant[:, None] > benign) + 0.5 * (malignant[:, None] == benign)
    of_malignant, of_benign = wins.mean(axis=1), wins.mean(axis=0)
    variance = of_malignant.var(ddof=1) / len(malignant) + of_benign.var(ddof=1) / len(benign)
    return wins.mean(), variance


@given(scored_images())
def test_delong_equals_the_slow_formula(case):
    labels, scores = case
    area, variance = slow_delong(labels, scores)
    assert metrics.auc(labels, scores) == pytest.approx(area)
    assert metrics.auc_variance(labels, scores) == pytest.approx(variance, abs=1e-12)
    low, high = metrics.auc_interval(labels, scores)
    assert 0 <= low <= area + 1e-12
    assert area - 1e-12 <= high <= 1
    assert low < high
    if variance > 1e-9:
        assert low == pytest.approx(max(0, area - 1.959964 * variance**0.5), abs=1e-6)


def test_delong_of_a_case_worked_by_hand():
    # Malignant .9 .4 .8, benign .1 .4: shares won (1, .75, 1) and (1, 5/6).
    labels, scores = [1, 1, 1, 0, 0], [0.9, 0.4, 0.8, 0.1, 0.4]
    assert metrics.auc(labels, scores) == pytest.approx(11 / 12)
    assert metrics.auc_variance(labels, scores) == pytest.approx((1 / 48) / 3 + (1 / 72) / 2)


def test_interval_covers_the_true_area():
    rng = np.random.default_rng(3)
    true = 0.7602  # P(X > Y) of normals one standard deviation apart
    covered = 0
    for _ in range(400):
        labels = np.repeat([0, 1], [60, 40])
        low, high = metrics.auc_interval(labels, rng.normal(labels.astype(float), 1))
        covered += low <= true <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_perfect_separation_is_not_certainty():
    low, high = metrics.auc_interval([0] * 30 + [1] * 10, np.arange(40))
    assert high == pytest.approx(1)
    assert low == pytest.approx(10 / (10 + metrics.Z95**2))
    assert metrics.auc_interval([0, 0, 1], [0.1, 0.2, 0.3])[0] < 0.3


@given(scored_images())
def test_youden_is_the_best_cutoff_and_survives_rounding(case):
    labels, scores = case
    cutoff = metrics.youden_cutoff(labels, scores)

    def index(at, shift=0.0):
        point = metrics.at_cutoff(labels, scores + shift, at)
        return point.sensitivity.value + point.specificity.value - 1

    best = max(index(at) for at in np.unique(scores))
    assert index(cutoff) == pytest.approx(best)
    if cutoff > scores.min():
        assert index(cutoff, 1e-6) == index(cutoff, -1e-6) == index(cutoff)


def test_youden_prefers_sensitivity_among_equals():
    assert metrics.youden_cutoff([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.15)


def test_at_cutoff_counts_and_wilson_agrees_with_scipy():
    point = metrics.at_cutoff([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.4, 0.1, 0.0], 0.5)
    assert (point.sensitivity.hits, point.sensitivity.of) == (2, 3)
    assert (point.specificity.hits, point.specificity.of) == (3, 4)
    expected = binomtest(2, 3).proportion_ci(method="wilson")
    assert (point.sensitivity.low, point.sensitivity.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [0.1, 0.2], "0 malignant of 2 images"),
        ([1, 1], [0.1, 0.2], "2 malignant of 2 images"),
        ([], [], "0 malignant of 0 images"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], [0.1], "one score and one label"),
    ],
)
def test_what_has_no_roc_curve_is_refused(labels, scores, message):
    for function in (metrics.auc, metrics.auc_interval, metrics.roc_points, metrics.youden_cutoff):
        with pytest.raises(SplitError, match=message):
            function(labels, scores)
