"""Searches on a real cluster: drawn candidates, asynchronous halving, packs too large for memory, a budget."""

import sys
from dataclasses import dataclass, replace

import pytest
import torch
from made_lake import make
from ray import cloudpickle

from mammoflow.config import ComputeConfig, ImageTrainingConfig, SearchConfig, SpaceConfig, StageConfig
from mammoflow.errors import TrainingError
from mammoflow.lake import Lake
from mammoflow.search import tuning
from mammoflow.search.bank_job import BankJob
from mammoflow.search.budget import Budget
from mammoflow.tracking import Tracker
from mammoflow.training import trials

pytestmark = pytest.mark.usefixtures("ray_cluster")

SPACE = SpaceConfig(blocks=(1, 2), channels=(8, 16), repeats=(1,))
FIGURES = ("name", "val_auc", "best_epoch", "epochs", "survived")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test's module
    return make(tmp_path_factory.mktemp("search"))


def config(made, *, epochs=(2, 1), search=None, **compute):
    first, second = epochs
    stages = (
        StageConfig(trained="last", lr=1e-3, epochs=first),
        StageConfig(trained="all", lr=1e-4, epochs=second),
    )
    return replace(
        made.config,
        image_training=ImageTrainingConfig(stages=stages, batch=4, precision="fp32"),
        search=search or SearchConfig(survivors="all"),
        compute=ComputeConfig(**compute),
    )


def search(whole, made, name, tmp_path):
    store = Lake(str(tmp_path / "lake"))
    out = store.artefact("search", name)
    trunks = {trunk.backbone: made.trunk for trunk in whole.trunks}
    return tuning.search(whole, store, made.images, trunks, out), out, Tracker.open(store, "top-layers")


def states(found, tracker):
    runs = tracker.client.search_runs([tracker.experiment_id], f"tags.mlflow.parentRunId = '{found.run_id}'")
    return {run.info.run_name: (run.info.status, run.data.tags.get("state", "")) for run in runs}


class Killed(BaseException):
    """The driver is gone."""


def test_drawn_candidates_are_dropped_pack_by_pack_and_a_killed_search_goes_on(made, tmp_path, monkeypatch) -> None:
    (trunk,) = made.config.trunks
    space = SearchConfig(
        survivors="all",
        drawn=4,
        at_a_time=2,
        space=SPACE,
        halving="asynchronous",
        rungs=(1, 3),
        keep=0.5,
        max_trials=6,
    )
    whole = replace(
        config(made, epochs=(2, 2), search=space, pack=2, concurrent_trials=1),
        trunks=(replace(trunk, top_layers=trunk.top_layers[:2]),),
    )
    run, calls = trials.run, []

    def dies(jobs, *rest) -> None:
        calls.append([candidate.name for job in jobs for candidate in job.candidates])
        if len(calls) == 2:
            raise Killed
        run(jobs, *rest)

    monkeypatch.setattr(trials, "run", dies)
    with pytest.raises(Killed):
        search(whole, made, "async", tmp_path)
    found, _, tracker = search(whole, made, "async", tmp_path)
    ranking = {row.name: row for row in found.ranking}
    assert len(ranking) == 6
    assert [len(names) for names in calls[:2]] == [4, 2], "two named and two drawn, then two more"
    assert calls[2] == calls[1], "those that had been through stage 1 or dropped are not trained again"
    assert {row.epochs for row in found.ranking} <= {1, 3, 4}
    told = states(found, tracker)
    for name, row in ranking.items():
        state = "finished" if row.epochs == 4 else f"pruned at epoch {row.epochs}"
        assert told[name] == ("FINISHED", state)
        assert row.survived == (row.epochs == 4)
    drawn = [row for row in found.ranking if row.changes]
    assert len(drawn) == 4
    assert len({row.lr for row in drawn}) > 1
    for name in ranking:
        history = tracker.client.get_metric_history(found_run(found, name), "val_auc")
        assert [metric.step for metric in history] == list(range(1, ranking[name].epochs + 1)), "no epoch twice"


def found_run(found, name):
    return next(row.run_id for row in found.ranking if row.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Large(BankJob):
    """A job of which two candidates fit into memory, and one candidate never does."""

    def open(self, workers, device):
        if len(self.candidates) > 2 or str(self.candidates[0].top_layers) == "8x1,8x1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return BankJob.open(self, workers, device)


def test_a_pack_too_large_for_memory_is_halved_and_what_never_fits_is_set_aside(made, tmp_path, monkeypatch) -> None:
    whole = config(made, epochs=(1, 0))
    expected, _, _ = search(whole, made, "roomy", tmp_path)
    monkeypatch.setattr(tuning, "BankJob", Large)
    found, _, tracker = search(whole, made, "tight", tmp_path)
    (lost,) = found.failed
    assert lost.endswith("-8x1-8x1")
    assert "does not fit in the device's memory (CUDA out of memory); give --compute.checkpointing" in str(
        found.failed[lost]
    )
    assert states(found, tracker)[lost][0] == "FAILED"
    good = [row for row in expected.ranking if row.name != lost]
    assert [[getattr(row, key) for key in FIGURES] for row in found.ranking] == [
        [getattr(row, key) for key in FIGURES] for row in good
    ]


class OneEpoch(Budget):
    """A clock by which the time is up with the first epoch."""

    def __init__(self, out, hours):
        super().__init__(out, hours)
        self.deadline, self.noted = 0.0, False

    def note(self):
        self.noted = True

    def over(self):
        return self.noted


def test_when_the_time_is_up_the_search_ends_with_what_it_has(made, tmp_path, monkeypatch) -> None:
    whole = config(made, search=SearchConfig(max_hours=1.0), pack=2, concurrent_trials=1)
    monkeypatch.setattr(tuning, "Budget", OneEpoch)
    found, out, tracker = search(whole, made, "short", tmp_path)
    assert [(row.epochs, row.survived) for row in found.ranking] == [(1, True)] * 2
    assert len(found.out_of_time) == 3
    told = states(found, tracker)
    assert sorted(told.values()) == [("FINISHED", f"out of time at epoch {epoch}") for epoch in (0, 1, 1)]
    assert all((out.file("candidates", row.name, "best")) for row in found.ranking)


def test_no_time_for_an_epoch_is_an_error(made, tmp_path) -> None:
    whole = config(made, search=SearchConfig(max_hours=1e-9))
    with pytest.raises(TrainingError, match="no candidate came through an epoch in 1e-09 hours; give --max-hours more"):
        search(whole, made, "none", tmp_path)
