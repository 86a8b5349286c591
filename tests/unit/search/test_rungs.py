"""How a search goes: legs, packs, and who is dropped at a rung."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config, ImageTrainingConfig, SearchConfig, StageConfig
from mammoflow.errors import ConfigError
from mammoflow.facts.training import EpochFigures
from mammoflow.lake import Artefact, Lake
from mammoflow.models.top_kinds import parse
from mammoflow.search import rungs
from mammoflow.search.bank_job import BankJob
from mammoflow.search.candidates import Candidate
from mammoflow.search.rungs import Leg
from mammoflow.training import history

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
