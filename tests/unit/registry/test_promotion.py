"""The champion's alias: moved by a paired comparison, rolled back, every move written down."""

import pytest
from made_lake import make
from registering import drawn, members, register

from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import TrackingError
from mammoflow.registry import promotion, registered_model

NAME = "mammo-promoted"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("promoted"))


@pytest.fixture(scope="module")
def frozen(made):
    figures = {"val_auc": 0.8, "val_ci95": (0.7, 0.9), "val_sensitivity": 0.8, "val_specificity": 0.7}
    return Ensemble(members=members(made)[:1], cutoff=0.5, val_images=200, **figures)


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def champion(uri):
    return registered_model.describe(uri, f"models:/{NAME}@champion").version


@pytest.mark.slow
def test_a_version_must_not_be_worse_on_the_same_women(made, frozen, uri):
    first = drawn(frozen, lift=1.5)
    register(made, uri, frozen, NAME, first)
    assert promotion.promote(uri, NAME).replaced == ""
    register(made, uri, frozen, NAME, drawn(frozen, lift=0.9))  # the same noise, less of the signal
    with pytest.raises(TrackingError, match=r"must be above -0\.02.*--force") as refused:
        promotion.promote(uri, NAME)
    assert champion(uri) == "1"
    found = promotion.compare(uri, NAME, "1", "2")
    assert found.low < found.value < found.high < 0
    assert f"{found.value:+.4f}" in str(refused.value)
    # Better on paper, but on these few women nobody can say that it is not worse.
    register(made, uri, frozen, NAME, drawn(frozen, lift=1.35, seed=7))
    assert promotion.compare(uri, NAME, "1", "3").low < promotion.LEAST_DIFFERENCE
    with pytest.raises(TrackingError, match="validate on more images"):
        promotion.promote(uri, NAME)
    register(made, uri, frozen, NAME, drawn(frozen, lift=1.6))
    move = promotion.promote(uri, NAME)
    assert (move.version, move.replaced, move.forced) == ("4", "1", False)
    assert move.difference.low > promotion.LEAST_DIFFERENCE
    assert champion(uri) == "4"


def test_other_images_can_not_be_compared(made, frozen, uri):
    register(made, uri, frozen, NAME, drawn(frozen))
    promotion.promote(uri, NAME)
    register(made, uri, frozen, NAME, drawn(frozen, images=100))
    with pytest.raises(TrackingError, match=r"1 \(200 images\) and 2 \(100\).*different images.*--force"):
        promotion.promote(uri, NAME)
    move = promotion.promote(uri, NAME, force=True)
    assert (move.version, move.forced, move.difference) == ("2", True, None)


@pytest.mark.slow
def test_every_move_is_kept_and_can_be_undone(made, frozen, uri):
    for lift in (1.0, 1.2, 0.5):
        register(made, uri, frozen, NAME, drawn(frozen, lift=lift))
    moves = [promotion.promote(uri, NAME, version, force=version == "3") for version in "123"]
    assert promotion.promote(uri, NAME, "3") == moves[2]  # run again: nothing moves, nothing is written twice
    assert promotion.history(uri, NAME) == moves[::-1]
    assert moves[2].forced
    assert moves[2].difference.high < 0  # forced, and what was known is kept
    back = promotion.rollback(uri, NAME)
    assert (back.kind, back.version, back.replaced) == ("rollback", "2", "3")
    assert promotion.rollback(uri, NAME).version == "1"
    assert champion(uri) == "1"
    with pytest.raises(TrackingError, match=r"version 1 of .* replaced no other"):
        promotion.rollback(uri, NAME)
    assert [move.version for move in promotion.history(uri, NAME)] == ["1", "2", "3", "2", "1"]


def test_a_move_that_a_kill_cut_in_two_is_settled(made, frozen, uri, monkeypatch):
    for lift in (1.0, 1.2):
        register(made, uri, frozen, NAME, drawn(frozen, lift=lift))
    promotion.promote(uri, NAME, "1")

    class Killed(BaseException):
        pass

    def no_end(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:  # a killed process closes nothing
        patch.setattr(promotion.Tracker, "_end_open", no_end)
        with pytest.raises(Killed):
            promotion.promote(uri, NAME, "2")
    assert champion(uri) == "2"
    assert promotion.history(uri, NAME)[0].version == "2"  # it was made
    client = registered_model.MlflowClient(uri, uri)
    with monkeypatch.context() as patch:
        patch.setattr(promotion.Tracker, "_end_open", no_end)
        patch.setattr(type(client), "set_registered_model_alias", no_end)
        with pytest.raises(Killed):
            promotion.rollback(uri, NAME)
    assert champion(uri) == "2"
    assert [move.version for move in promotion.history(uri, NAME)] == ["2", "1"]  # it was not


def test_what_is_not_there_is_named(made, frozen, uri):
    register(made, uri, frozen, NAME)
    with pytest.raises(TrackingError, match="is not registered"):
        promotion.promote(uri, NAME, "9")
    with pytest.raises(TrackingError, match="is not registered"):
        promotion.rollback(uri, NAME)  # no champion yet
