"""Calibration: known maps are found again, order is kept, the choice is made on held-back women."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.facts import codec
from mammoflow.metrics import calibration, roc
from mammoflow.metrics.calibration import KINDS, Calibration


def drawn(to_probability, images=4000, seed=0):
    """Scores, and outcomes of which a share `to_probability(score)` is malignant; two films a woman."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.02, 0.98, images)
    labels = (rng.random(images) < to_probability(scores)).astype(int)
    return labels, scores, [f"P_{n // 2}" for n in range(images)]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def logit(scores):
    return np.log(scores / (1 - scores))


MAPS = {
    "none": lambda scores: scores,
    "temperature": lambda scores: sigmoid(logit(scores) / 2.5),
    "logistic": lambda scores: sigmoid(logit(scores) - 2),  # as of scores trained on balanced classes, in screening
    "isotonic": lambda scores: np.where(scores > 0.7, 0.9, np.where(scores > 0.3, 0.2, 0.15)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_map_is_found_again(kind):
    labels, scores, women = drawn(MAPS[kind])
    found = calibration.fit(labels, scores, women)
    at = np.array([0.1, 0.25, 0.5, 0.65, 0.8, 0.95])
    assert found.apply(at) == pytest.approx(MAPS[kind](at), abs=0.06)
    assert found.kind == kind or kind == "none"  # where nothing is to be mended, anything close to it will do
    fresh, values, _ = drawn(MAPS[kind], seed=1)
    assert calibration.expected_error(fresh, found.apply(values)) < 0.03
    if kind != "none":
        assert calibration.brier(fresh, found.apply(values)) < calibration.brier(fresh, values)
        assert calibration.expected_error(fresh, values) > 0.08


@given(st.integers(0, 1000), st.sampled_from(KINDS), st.integers(4, 40))
def test_order_is_kept_and_probabilities_are_never_certain(seed, kind, images):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 2)
    scores = np.round(rng.random(images), 2)
    found = calibration.fit_kind(kind, labels, scores)
    values = found.apply(np.linspace(0, 1, 101))
    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()
    if found.kind == "isotonic":
        assert values.min() > 0
        assert values.max() < 1
    assert codec.from_json(codec.to_json(found), Calibration, "a file") == found


def test_separable_classes_give_a_finite_map():
    labels, scores = [0] * 20 + [1] * 20, np.linspace(0.3, 0.7, 40)
    for kind in KINDS:
        found = calibration.fit_kind(kind, labels, scores)
        assert np.isfinite(found.slope)
        assert abs(found.apply([0.5])[0] - 0.5) < 0.1


def test_scores_worse_than_chance_are_not_turned_round():
    labels, scores, women = drawn(lambda scores: 1 - scores, images=400)
    found = calibration.fit(labels, scores, women)
    assert (np.diff(found.apply(np.linspace(0, 1, 11))) >= 0).all()
    assert roc.auc(labels, found.apply(scores)) <= 0.5


def test_too_few_women_leave_scores_as_they_are():
    assert calibration.fit([0, 0, 1], [0.1, 0.2, 0.3], ["a", "b", "c"]) == Calibration()


def test_bins_are_even_and_hold_ties_together():
    labels, scores = [0, 1] * 50, np.repeat(np.arange(20) / 20, 5)
    found = calibration.bins(labels, scores, count=10)
    assert [each.images for each in found] == [10] * 10
    assert sum(each.observed * each.images for each in found) == 50
    (only,) = calibration.bins([0, 1, 1], [0.4, 0.4, 0.4])
    assert (only.images, only.predicted, only.observed) == (3, pytest.approx(0.4), pytest.approx(2 / 3))
    assert calibration.expected_error([0, 1, 1], [0.4, 0.4, 0.4]) == pytest.approx(2 / 3 - 0.4)
