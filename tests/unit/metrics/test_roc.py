"""AUC, its interval, paired differences, operating points: against slow formulas and published values."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from mammoflow.errors import SplitError
from mammoflow.metrics import operating_points, roc


@st.composite
def scored_images(draw):
    """Labels of both classes, at least two images each, and scores coarse enough to tie."""
    malignant, benign = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    labels = draw(st.permutations([1] * malignant + [0] * benign))
    scores = draw(arrays(float, malignant + benign, elements=st.integers(0, 8).map(lambda n: n / 8)))
    return np.array(labels), scores


def wins(labels, scores):
    """Every malignant image against every benign one: 1 ranked right, .5 equal, 0 wrong."""
    malignant, benign = scores[labels == 1], scores[labels == 0]
    return (malignant[:, None] > benign) + 0.5 * (malignant[:, None] == benign)


def slow_delong(won):
    """Mean and variance straight from DeLong's definition, of wins or of two models' difference of them."""
    of_malignant, of_benign = won.mean(axis=1), won.mean(axis=0)
    return won.mean(), of_malignant.var(ddof=1) / len(of_malignant) + of_benign.var(ddof=1) / len(of_benign)


@given(scored_images())
def test_delong_equals_the_slow_formula(case):
    labels, scores = case
    area, variance = slow_delong(wins(labels, scores))
    assert roc.auc(labels, scores) == pytest.approx(area)
    assert roc.auc_variance(labels, scores) == pytest.approx(variance, abs=1e-12)
    interval = roc.auc_interval(labels, scores)
    low, high = interval.low, interval.high
    assert 0 <= low <= area + 1e-12
    assert area - 1e-12 <= high <= 1
    assert low < high
    if variance > 1e-9:
        assert low == pytest.approx(max(0, area - 1.959964 * variance**0.5), abs=1e-6)


def test_delong_of_a_case_worked_by_hand():
    # Malignant .9 .4 .8, benign .1 .4: shares won (1, .75, 1) and (1, 5/6).
    labels, scores = [1, 1, 1, 0, 0], [0.9, 0.4, 0.8, 0.1, 0.4]
    assert roc.auc(labels, scores) == pytest.approx(11 / 12)
    assert roc.auc_variance(labels, scores) == pytest.approx((1 / 48) / 3 + (1 / 72) / 2)


@given(scored_images(), st.randoms(use_true_random=False))
def test_paired_difference_equals_the_slow_formula(case, random):
    labels, first = case
    second = np.array(random.sample(list(first), len(first)))
    value, variance = slow_delong(wins(labels, first) - wins(labels, second))
    found = roc.auc_difference(labels, first, second)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.interval.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.interval.high
    if variance > 1e-9:
        assert found.interval.low == pytest.approx(max(-1, value - 1.959964 * variance**0.5), abs=1e-6)
        assert found.p == pytest.approx(2 * NormalDist().cdf(-abs(value) / variance**0.5), abs=1e-9)
    back = roc.auc_difference(labels, second, first)
    assert (back.value, back.interval.low, back.interval.high) == pytest.approx(
        (-found.value, -found.interval.high, -found.interval.low)
    )


OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""The patients of DeLong's own paper without missing values: albumin, total protein, K-G score, survival (0: no)."""


def ends(interval):
    return interval.low, interval.high


def test_delong_equals_published_values():
    """As SAS/STAT's manual gives them for these patients (PROC LOGISTIC, comparing ROC curves), to four digits."""
    albumin, protein, score, survived = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    labels = survived == 0
    published = {  # name: area, standard error, lower and upper end
        "albumin": (-albumin, (0.7366, 0.0927, 0.5549, 0.9182)),
        "K-G": (score, (0.7258, 0.1028, 0.5243, 0.9273)),
        "protein": (-protein, (0.6478, 0.1000, 0.4518, 0.8439)),
    }
    for values, expected in published.values():
        found = (roc.auc(labels, values), roc.auc_variance(labels, values) ** 0.5)
        assert (*found, *ends(roc.auc_interval(labels, values))) == pytest.approx(expected, abs=6e-5)
    for values, expected in (
        (-albumin, (0.0108, -0.1761, 0.1976, 0.9102)),
        (-protein, (-0.0780, -0.2830, 0.1271, 0.4561)),
    ):
        found = roc.auc_difference(labels, values, score)
        assert (found.value, found.interval.low, found.interval.high, found.p) == pytest.approx(expected, abs=6e-5)


def test_a_difference_without_variance_claims_no_certainty():
    labels = [0] * 30 + [1] * 10
    same = roc.auc_difference(labels, np.arange(40), np.arange(40) * 2.0)
    assert (same.value, same.interval.low, same.interval.high, same.p) == (0, 0, 0, 1)
    apart = roc.auc_difference(labels, np.arange(40), np.zeros(40))  # perfect against blind
    assert apart.value == pytest.approx(0.5)
    assert apart.interval.low < 0.5 < apart.interval.high < 1
    assert apart.p is None


def test_partial_auc_is_of_high_specificity():
    labels, scores = [0] * 10 + [1] * 2, [*range(10), 9.5, 3.5]
    # One of two cancers before the first false positive, the other after six: a flat half up to 1 - specificity .1.
    lowest, highest = 0.1**2 / 2, 0.1
    assert roc.partial_auc(labels, scores) == pytest.approx((1 + (0.05 - lowest) / (highest - lowest)) / 2)
    assert roc.partial_auc([0, 1], [0, 1]) == 1


def test_interval_covers_the_true_area():
    rng = np.random.default_rng(3)
    true = 0.7602  # P(X > Y) of normals one standard deviation apart
    covered = 0
    for _ in range(400):
        labels = np.repeat([0, 1], [60, 40])
        interval = roc.auc_interval(labels, rng.normal(labels.astype(float), 1))
        covered += interval.low <= true <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_perfect_separation_is_not_certainty():
    interval = roc.auc_interval([0] * 30 + [1] * 10, np.arange(40))
    assert interval.high == pytest.approx(1)
    assert interval.low == pytest.approx(10 / (10 + roc.Z95**2))
    assert roc.auc_interval([0, 0, 1], [0.1, 0.2, 0.3]).low < 0.3


@given(scored_images())
def test_youden_is_the_best_cutoff_and_survives_rounding(case):
    labels, scores = case
    cutoff = operating_points.youden_cutoff(labels, scores)

    def index(at, shift=0.0):
        point = operating_points.at_cutoff(labels, scores + shift, at)
        return point.sensitivity.value + point.specificity.value - 1

    best = max(index(at) for at in np.unique(scores))
    assert index(cutoff) == pytest.approx(best)
    if cutoff > scores.min():
        assert index(cutoff, 1e-6) == index(cutoff, -1e-6) == index(cutoff)


def test_youden_prefers_sensitivity_among_equals():
    assert operating_points.youden_cutoff([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.15)


@given(scored_images(), st.integers(1, 19).map(lambda n: n / 20))
def test_cutoffs_hold_a_side_and_are_best_on_the_other(case, least):
    labels, scores = case
    points = [operating_points.at_cutoff(labels, scores, at) for at in (*np.unique(scores), scores.max() + 1)]
    for rule, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        cutoff = operating_points.choose_cutoff(labels, scores, rule, least)
        found = operating_points.at_cutoff(labels, scores, cutoff)
        held = [point for point in points if getattr(point, rule).value >= least - 1e-9]
        assert getattr(found, rule).value >= least - 1e-9
        assert getattr(found, other).value == pytest.approx(max(getattr(point, other).value for point in held))


def test_at_cutoff_counts_and_wilson_agrees_with_scipy():
    point = operating_points.at_cutoff([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.4, 0.1, 0.0], 0.5)
    assert (point.sensitivity.hits, point.sensitivity.of) == (2, 3)
    assert (point.specificity.hits, point.specificity.of) == (3, 4)
    expected = binomtest(2, 3).proportion_ci(method="wilson")
    assert (point.sensitivity.interval.low, point.sensitivity.interval.high) == pytest.approx(
        (expected.low, expected.high)
    )


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
    for function in (roc.auc, roc.auc_interval, roc.roc_points, operating_points.youden_cutoff):
        with pytest.raises(SplitError, match=message):
            function(labels, scores)
