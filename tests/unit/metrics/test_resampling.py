"""Bootstrap intervals by patient: each draw against scikit-learn, coverage where a patient's films are alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mammoflow.errors import SplitError
from mammoflow.facts.results import Interval
from mammoflow.metrics import resampling, roc
from mammoflow.metrics.resampling import Resampling


def films(rng, patients, films_each=4, likeness=1.0):
    """Labels, scores and patients of a set in which a patient's films have a part of their score in common."""
    malignant = np.repeat(np.arange(patients) % 3 == 0, films_each)
    common = np.repeat(rng.normal(0, likeness, patients), films_each)
    scores = malignant * 1.0 + common + rng.normal(0, 1, patients * films_each)
    return malignant.astype(int), scores, [f"P_{n // films_each}" for n in range(patients * films_each)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_each_draw_is_the_weighted_auc(seed, steps):
    rng = np.random.default_rng(seed)
    labels, scores, patients = films(rng, 12, films_each=2)
    scores = np.round(scores * steps) / steps  # ties
    draws = Resampling(labels, patients, draws=20, seed=seed)
    found = draws.aucs(scores)
    expected = draws.values(lambda weights: roc_auc_score(labels, scores, sample_weight=weights))
    assert found == pytest.approx(expected, abs=1e-12)
    called = scores >= 0.5
    sensitivity = draws.values(lambda weights: np.average(called[labels == 1], weights=weights[labels == 1]))
    assert draws.shares(called, labels == 1) == pytest.approx(sensitivity, abs=1e-12)


def test_a_woman_is_drawn_whole_and_each_stratum_keeps_its_size():
    labels, _, patients = films(np.random.default_rng(0), 30)
    draws = Resampling(labels, patients, draws=50)
    by_woman = np.array([name in {"P_0", "P_1"} for name in patients])

    def check(weights):
        per_woman = weights.reshape(30, 4)
        assert (per_woman == per_woman[:, :1]).all()
        assert weights[labels == 1].sum() == (labels == 1).sum()
        assert weights[labels == 0].sum() == (labels == 0).sum()
        return weights[by_woman].sum()

    assert len({*draws.values(check)}) > 3


def test_interval_covers_where_delong_does_not():
    rng = np.random.default_rng(5)
    truth = float(np.mean(rng.normal(1, 5**0.5, 10**6) > rng.normal(0, 5**0.5, 10**6)))
    covered, by_image = 0, 0
    for seed in range(200):
        labels, scores, patients = films(rng, 60, likeness=2.0)
        interval = resampling.interval(Resampling(labels, patients, draws=300, seed=seed).aucs(scores))
        covered += interval.low <= truth <= interval.high
        delong = roc.auc_interval(labels, scores)
        by_image += delong.low <= truth <= delong.high
    assert 0.9 <= covered / 200 <= 0.99
    assert by_image / 200 < 0.85


def test_differences_are_paired():
    labels, scores, patients = films(np.random.default_rng(1), 60, likeness=2.0)
    draws = Resampling(labels, patients)
    better = scores + 0.3 * labels
    apart, alone = (
        resampling.interval(values) for values in (draws.aucs(better) - draws.aucs(scores), draws.aucs(better))
    )
    assert 0 < apart.low < roc.auc(labels, better) - roc.auc(labels, scores) < apart.high
    assert apart.high - apart.low < (alone.high - alone.low) / 3
    again = Resampling(labels, patients)
    assert (again.aucs(scores) == draws.aucs(scores)).all()


def test_what_can_not_be_drawn_is_refused():
    with pytest.raises(SplitError, match="2 patients of 3 images"):
        Resampling([0, 1, 1], ["a", "b"])
    with pytest.raises(SplitError, match="0 malignant of 2 images"):
        Resampling([0, 0], ["a", "b"])
    # One patient has the only benign film beside a malignant one: two in three draws of three patients hold them.
    draws = Resampling([0, 1, 1, 1], ["a", "a", "b", "c"], draws=400)
    values = draws.aucs([0.1, 0.2, 0.3, 0.4])
    assert 0.2 < np.isnan(values).mean() < 0.4
    assert resampling.interval(values) == Interval(low=1, high=1)
    with pytest.raises(SplitError, match="300 of 400 draws of patients lack a class"):
        resampling.interval(np.where(np.arange(400) < 300, np.nan, 0.5))
