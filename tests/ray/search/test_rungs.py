"""A search with rungs: killed in the middle it drops the same candidates; one that fails leaves the others alone."""

import sys
from dataclasses import dataclass, replace

import pytest
import torch
from made_lake import make
from ray import cloudpickle

from mammoflow.config import ComputeConfig, ImageTrainingConfig, SearchConfig, StageConfig
from mammoflow.lake import Lake
from mammoflow.search import tuning
from mammoflow.search.bank_job import BankJob
from mammoflow.tracking import PLACE_TAG, Tracker
from mammoflow.training import trials

STAGES = (StageConfig(trained="last", lr=1e-3, epochs=4), StageConfig(trained="all", lr=1e-4, epochs=3))
TRAINING = ImageTrainingConfig(stages=STAGES, batch=4, precision="fp32")
POISONED = "resnet10_narrow-16x1-8x1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned(BankJob):
    """A job with a candidate that has a NaN weight."""

    def open(self, workers, device):
        run, training, validation = BankJob.open(self, workers, device)
        if POISONED in run.history:
            with torch.no_grad():
                next(run._models[POISONED].top.parameters()).fill_(float("nan"))
        return run, training, validation


class Killed(BaseException):
    """The driver is gone."""


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_in_rounds_killed_and_packed_otherwise_ends_as_one_that_was_not(tmp_path, monkeypatch) -> None:
    made = make(tmp_path)
    store = Lake(str(tmp_path / "lake"))
    whole = replace(
        made.config,
        image_training=TRAINING,
        search=SearchConfig(survivors="all", rungs=(2, 6), keep=0.5),
        compute=ComputeConfig(concurrent_trials=2),
    )
    trunks = {trunk.backbone: made.trunk for trunk in whole.trunks}
    undisturbed = tuning.search(whole, store, made.images, trunks, store.artefact("search", "one"))
    assert sorted(row.epochs for row in undisturbed.ranking) == [2, 6, 7]

    out = store.artefact("search", "two")
    run, calls = trials.run, []

    def dies(jobs, *rest) -> None:
        calls.append([job.name for job in jobs])
        if len(calls) == 2:
            raise Killed
        run(jobs, *rest)

    monkeypatch.setattr(trials, "run", dies)
    with pytest.raises(Killed):
        tuning.search(whole, store, made.images, trunks, out)
    again = replace(whole, compute=ComputeConfig(concurrent_trials=2, pack=1))
    found = tuning.search(again, store, made.images, trunks, out)
    assert calls[2] == [], "the first round is not done again"
    figures = ("name", "val_auc", "best_epoch", "epochs", "survived")
    assert [[getattr(row, key) for key in figures] for row in found.ranking] == [
        [getattr(row, key) for key in figures] for row in undisturbed.ranking
    ]


@pytest.mark.usefixtures("ray_cluster")
def test_a_candidate_that_fails_is_set_aside_and_the_others_end_as_without_it(tmp_path, monkeypatch) -> None:
    made = make(tmp_path)
    store = Lake(str(tmp_path / "lake"))
    stages = (StageConfig(trained="last", lr=1e-3, epochs=2), StageConfig(trained="all", lr=1e-4, epochs=1))
    whole = replace(made.config, image_training=ImageTrainingConfig(stages=stages, batch=4, precision="fp32"))
    (trunk,) = whole.trunks
    trunks = {trunk.backbone: made.trunk}
    out = store.artefact("search", "bad")
    tracker = Tracker.open(store, "top-layers")
    left_open = tracker.start("left", params={}, tags={PLACE_TAG: out.url})
    elsewhere = tracker.start("elsewhere", params={}, tags={PLACE_TAG: f"{out.url}-other"})
    (name, *others) = [candidate.name for candidate in tuning.plan(whole)]
    assert name == POISONED
    good = replace(whole, trunks=(replace(trunk, top_layers=trunk.top_layers[1:]),))
    expected = tuning.search(good, store, made.images, trunks, store.artefact("search", "good"))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test's module
    monkeypatch.setattr(tuning, "BankJob", Poisoned)
    found = tuning.search(whole, store, made.images, trunks, out)
    assert list(found.failed) == [name]
    assert "loss of" in found.failed[name]
    figures = ("name", "val_auc", "epochs", "survived")
    assert [[getattr(row, key) for key in figures] for row in found.ranking] == [
        [getattr(row, key) for key in figures] for row in expected.ranking
    ]
    client = tracker.client
    assert client.get_run(left_open).info.status == "KILLED"
    assert client.get_run(elsewhere).info.status == "RUNNING"
    runs = client.search_runs([tracker.experiment_id], f"tags.artefact = '{out.fingerprint}'")
    states = {run.info.run_name: (run.info.status, run.data.tags.get("state", "")) for run in runs}
    assert states[name][0] == "FAILED"
    assert states[name][1].startswith("failed: loss of")
    for run in runs:
        assert run.data.tags["source"]
        assert run.data.params["splits"]
        assert run.data.tags.get("trunk_run", "none") == "none", "as the made lake has it"
    assert {states[other] for other in others} <= {("FINISHED", "finished"), ("FINISHED", "pruned at epoch 2")}
