"""The champion's alias: moved by a paired comparison, rolled back, every move written down."""

import pytest
from made_lake import make
from mlflow import MlflowClient
from registering import drawn, members, register

from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import TrackingError
from mammoflow.facts.results import Interval
from mammoflow.registry import promotion
from mammoflow.registry.registry import Registry

NAME = "mammo-promoted"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("promoted"))


@pytest.fixture(scope="module")
def frozen(made):
    figures = {
        "val_auc": 0.8,
        "val_by_patient": Interval(low=0.7, high=0.9),
        "val_sensitivity": 0.8,
        "val_specificity": 0.7,
    }
    return Ensemble(members=members(made)[:1], cutoff=0.5, val_images=200, **figures)


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def champion(uri):
    return Registry(uri).champion(NAME)


@pytest.mark.slow
def test_a_version_must_not_be_worse_on_the_same_women(made, frozen, uri):
    first = drawn(frozen, lift=1.5)
    register(made, uri, frozen, NAME, first)
    assert promotion.promote(Registry(uri), NAME).replaced == ""
    register(made, uri, frozen, NAME, drawn(frozen, lift=0.9))  # the same noise, less of the signal
    with pytest.raises(TrackingError, match=r"must be above -0\.02.*--force") as refused:
        promotion.promote(Registry(uri), NAME)
    assert champion(uri) == "1"
    found = promotion.compare(Registry(uri), NAME, "1", "2")
    assert found.interval.low < found.value < found.interval.high < 0
    assert f"{found.value:+.4f}" in str(refused.value)
    # Better on paper, but on these few women nobody can say that it is not worse.
    register(made, uri, frozen, NAME, drawn(frozen, lift=1.35, seed=7))
    assert promotion.compare(Registry(uri), NAME, "1", "3").interval.low < promotion.LEAST_DIFFERENCE
    with pytest.raises(TrackingError, match="validate on more images"):
        promotion.promote(Registry(uri), NAME)
    register(made, uri, frozen, NAME, drawn(frozen, lift=1.6))
    move = promotion.promote(Registry(uri), NAME)
    assert (move.version, move.replaced, move.forced) == ("4", "1", False)
    assert move.difference.interval.low > promotion.LEAST_DIFFERENCE
    assert champion(uri) == "4"


def test_other_images_can_not_be_compared(made, frozen, uri):
    register(made, uri, frozen, NAME, drawn(frozen))
    promotion.promote(Registry(uri), NAME)
    register(made, uri, frozen, NAME, drawn(frozen, images=100))
    with pytest.raises(TrackingError, match=r"1 \(200 images\) and 2 \(100\).*different images.*--force"):
        promotion.promote(Registry(uri), NAME)
    move = promotion.promote(Registry(uri), NAME, force=True)
    assert (move.version, move.forced, move.difference) == ("2", True, None)


@pytest.mark.slow
def test_every_move_is_kept_and_can_be_undone(made, frozen, uri):
    for lift in (1.0, 1.2, 0.5):
        register(made, uri, frozen, NAME, drawn(frozen, lift=lift))
    moves = [promotion.promote(Registry(uri), NAME, version, force=version == "3") for version in "123"]
    assert promotion.promote(Registry(uri), NAME, "3") == moves[2]  # run again: nothing moves, nothing is written twice
    assert promotion.history(Registry(uri), NAME) == moves[::-1]
    assert moves[2].forced
    assert moves[2].difference.interval.high < 0  # forced, and what was known is kept
    back = promotion.rollback(Registry(uri), NAME)
    assert (back.kind, back.version, back.replaced) == ("rollback", "2", "3")
    assert promotion.rollback(Registry(uri), NAME).version == "1"
    assert champion(uri) == "1"
    with pytest.raises(TrackingError, match=r"version 1 of .* replaced no other"):
        promotion.rollback(Registry(uri), NAME)
    assert [move.version for move in promotion.history(Registry(uri), NAME)] == ["1", "2", "3", "2", "1"]


def test_a_move_that_a_kill_cut_in_two_is_settled(made, frozen, uri, monkeypatch):
    for lift in (1.0, 1.2):
        register(made, uri, frozen, NAME, drawn(frozen, lift=lift))
    promotion.promote(Registry(uri), NAME, "1")

    class Killed(BaseException):
        pass

    def no_end(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:  # a killed process closes nothing
        patch.setattr(promotion.Tracker, "_end_open", no_end)
        with pytest.raises(Killed):
            promotion.promote(Registry(uri), NAME, "2")
    assert champion(uri) == "2"
    assert promotion.history(Registry(uri), NAME)[0].version == "2"  # it was made
    client = MlflowClient(uri, uri)
    with monkeypatch.context() as patch:
        patch.setattr(promotion.Tracker, "_end_open", no_end)
        patch.setattr(type(client), "set_registered_model_alias", no_end)
        with pytest.raises(Killed):
            promotion.rollback(Registry(uri), NAME)
    assert champion(uri) == "2"
    assert [move.version for move in promotion.history(Registry(uri), NAME)] == ["2", "1"]  # it was not


def test_what_is_not_there_is_named(made, frozen, uri):
    register(made, uri, frozen, NAME)
    with pytest.raises(TrackingError, match="is not registered"):
        promotion.promote(Registry(uri), NAME, "9")
    with pytest.raises(TrackingError, match="is not registered"):
        promotion.rollback(Registry(uri), NAME)  # no champion yet
