"""How a search goes: legs, packs, who is dropped; and a search killed in the middle drops the same."""

import sys
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_lake import make
from ray import cloudpickle

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config, ImageTrainingConfig, SearchConfig, StageConfig
from mammoflow.errors import ConfigError
from mammoflow.facts.training import EpochFigures
from mammoflow.lake import Artefact, Lake
from mammoflow.models.top_kinds import parse
from mammoflow.search import rungs, tuning
from mammoflow.search.bank_job import BankJob
from mammoflow.search.candidates import Candidate
from mammoflow.search.rungs import Leg
from mammoflow.tracking import PLACE_TAG, Tracker
from mammoflow.training import history, trials

STAGES = (StageConfig(trained="last", lr=1e-3, epochs=4), StageConfig(trained="all", lr=1e-4, epochs=3))


def config(**search: object) -> Config:
    smoke = recipes.smoke()
    return replace(
        smoke,
        image_training=ImageTrainingConfig(stages=STAGES, batch=4, precision="fp32"),
        search=SearchConfig(**search),
    )


def candidates(number: int, kinds: int = 2) -> list[Candidate]:
    return [
        Candidate(name=f"c{n}", backbone="resnet10_narrow", top_layers=parse(f"{'heatmap,' * (n % kinds)}{n + 1}x1"))
        for n in range(number)
    ]


def trunk_job(out: Artefact, own: list[Candidate]) -> BankJob:
    return BankJob(
        name="trunk-stage1",
        backbone="resnet10_narrow",
        stage=0,
        candidates=tuple(own),
        training=config().image_training,
        images_config=config().images,
        images=out,
        start="",
        out=out,
        seed=0,
    )


def test_legs_end_at_rungs_and_stages() -> None:
    assert rungs.legs(config()) == [Leg(stage=0, until=None, rung=None), Leg(stage=1, until=None, rung=None)]
    assert rungs.legs(config(rungs=(1, 3, 4, 6, 7))) == [
        Leg(stage=0, until=1, rung=1),
        Leg(stage=0, until=3, rung=3),
        Leg(stage=0, until=None, rung=4),
        Leg(stage=1, until=2, rung=6),
        Leg(stage=1, until=None, rung=None),
    ]


@given(number=st.integers(1, 20), most=st.none() | st.integers(1, 25))
def test_packs_hold_everyone_once_and_none_too_many(number: int, most: int | None) -> None:
    out = Lake("/nowhere").artefact("search", "x")
    own = candidates(number)
    jobs = rungs.packs(
        [trunk_job(out, own)], own, Leg(stage=0, until=2, rung=2), {"trunk-stage1": most} if most else {}
    )
    assert [candidate for job in jobs for candidate in job.candidates] == own
    sizes = [len(job.candidates) for job in jobs]
    assert max(sizes) <= (most or number)
    assert max(sizes) - min(sizes) <= max(1, len(sizes) - 1)
    assert len({job.name for job in jobs}) == len(jobs)
    assert {(job.stage, job.until) for job in jobs} == {(0, 2)}
    alone = rungs.packs([trunk_job(out, own)], own[:3], Leg(stage=1, until=None, rung=None), {})
    assert [job.candidates for job in alone] == [(candidate,) for candidate in own[:3]]


def test_candidates_whom_a_kill_left_apart_are_not_packed_together(tmp_path) -> None:
    out, own = Lake(str(tmp_path)).artefact("search", "x"), candidates(4)
    for candidate, epochs in zip(own, ((2, 3), (3, 4), (1, 2), (1, 2)), strict=True):
        for epoch in epochs:
            lake.write_bytes(out.file("work", "states", f"{candidate.name}-stage1", f"{epoch}.pt"), b"")
    leg = Leg(stage=0, until=None, rung=None)
    names = [[c.name for c in job.candidates] for job in rungs.packs([trunk_job(out, own)], own, leg, {})]
    assert sorted(names) == [["c0"], ["c1"], ["c2", "c3"]]
    together = rungs.packs([trunk_job(out, own)], [own[0], own[1]], leg, {})
    assert [len(job.candidates) for job in together] == [2], "both have their third epoch"


def test_the_lower_part_is_dropped_but_not_the_best_of_a_kind(tmp_path) -> None:
    out, own = Lake(str(tmp_path)).artefact("search", "x"), candidates(6, kinds=2)
    for n, candidate in enumerate(own):
        curve = [0.9 - 0.1 * (n % 2) - 0.01 * n, 0.99 if n == 5 else 0.5]
        rows = [
            EpochFigures(
                epoch=e + 1, epochs=2, stage=1, lr=1e-3, loss=0.5, images_per_s=9.0, data_wait=0.0, val_auc=auc
            )
            for e, auc in enumerate(curve)
        ]
        history.write(candidate.folder(out, "history.json"), rows)
    everyone = config(survivors="all", rungs=(1,))
    assert [c.name for c in rungs.go_on(own, out, 1, everyone)] == ["c0", "c2", "c4"]
    assert [c.name for c in rungs.go_on(own, out, 2, everyone)] == ["c0", "c2", "c5"]
    kinds = config(survivors="best_of_each_kind", rungs=(1,))
    assert [c.name for c in rungs.go_on(own, out, 1, kinds)] == ["c0", "c1", "c2", "c4"]
    assert {c.name for c in rungs.survivors(own, out, kinds)} == {"c0", "c5"}
    assert rungs.survivors(own, out, everyone) == own


def test_rungs_and_shares_that_are_none_are_refused() -> None:
    for epochs in ((0,), (3, 2), (2, 2)):
        with pytest.raises(ConfigError, match="epochs from 1, ascending"):
            SearchConfig(rungs=epochs)
    with pytest.raises(ConfigError, match=r"search.keep is 0, but must be above 0"):
        SearchConfig(keep=0)
    with pytest.raises(ConfigError, match=r"compute.pack is 0"):
        ComputeConfig(pack=0)


POISONED = "resnet10_narrow-16x1-8x1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned(BankJob):
    """A job of which one candidate has a weight that is no number."""

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
        image_training=config().image_training,
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
