"""How candidates are written and read, and how free ones are drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow import lake
from mammoflow.config import Config, ImageConfig, SearchConfig, SpaceConfig, StageConfig, TrunkConfig
from mammoflow.errors import ConfigError, SpecError
from mammoflow.lake import Lake
from mammoflow.models import classifiers
from mammoflow.models.top_kinds import parse
from mammoflow.models.top_layers import map_sizes
from mammoflow.search import candidates, spaces, tuning
from mammoflow.search.candidates import Candidate, Changes

BACKBONE = "resnet10_narrow"
GROUND = classifiers.ground(BACKBONE, ImageConfig(height=288, width=224), 72, 5)

factors = st.floats(0.01, 100).map(lambda factor: float(f"{factor:.2g}"))


@given(lr=factors, decay=factors, dropout=st.none() | st.sampled_from((0.0, 0.25, 0.5)))
def test_what_is_written_is_read_again(lr: float, decay: float, dropout: float | None) -> None:
    changes = Changes(lr=lr, decay=decay, dropout=dropout)
    assert candidates.read(f"[8-8-16]x1, 8x1 {changes.words()}") == (parse("[8-8-16]x1,8x1"), changes)
    candidate = Candidate.of(BACKBONE, f"16x1,8x1 {changes.words()}")
    assert Candidate.of(BACKBONE, candidate.written) == candidate
    assert not {*"*= []"} & {*candidate.name}


def test_changes_are_of_the_stage_and_of_the_name() -> None:
    stage = StageConfig(trained="last", lr=1e-3, epochs=2, weight_decay=0.01, dropout=0.1)
    candidate = Candidate.of(BACKBONE, "16x1,8x1 dropout=.5 lr*2 decay*0.1")
    assert candidate.name == "resnet10_narrow-16x1-8x1-lr2-decay0.1-dropout0.5"
    assert (str(candidate.top_layers), candidate.kind) == ("16x1,8x1", "Resnet-VGG")
    changed = candidate.changes.of(stage)
    assert (changed.lr, changed.weight_decay, changed.dropout) == pytest.approx((2e-3, 1e-3, 0.5))
    assert Candidate.of(BACKBONE, "16x1,8x1").changes.of(stage) == stage


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("16x1,8x1 lr*2 lr*3", "each once"),
        ("16x1,8x1 lr=2", "can't read its changes"),
        ("16x1,8x1 speed*2", "can't read its changes"),
        ("16x1,8x1 lr*0", "above 0"),
        ("16x1,8x1 dropout=1", "below 1"),
        ("16x1,8x lr*2", "can't read block '8x'"),
    ],
)
def test_what_cannot_be_read_is_named(written: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Candidate.of(BACKBONE, written)


def draw(config: SearchConfig, number: int, told=(), known=(), seed: int = 0) -> list[spaces.Drawn]:
    return spaces.draw(config, BACKBONE, GROUND, number, seed, told, known)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_follow_from_the_seed_are_new_and_fit(sampler) -> None:
    space = SpaceConfig(blocks=(1, 2, 3), channels=(8, 16), repeats=(1,), lr=(0.5, 2.0), dropout=(0.0, 0.5))
    config = SearchConfig(drawn=24, sampler=sampler, space=space)
    first = draw(config, 12)
    assert [drawn.candidate for drawn in draw(config, 12)] == [drawn.candidate for drawn in first]
    assert draw(config, 12, seed=1) != first
    told = [(drawn.choices, 0.5 if n else None) for n, drawn in enumerate(first)]
    second = draw(config, 12, told, [drawn.candidate.name for drawn in first])
    both = [drawn.candidate for drawn in [*first, *second]]
    assert len({candidate.name for candidate in both}) == 24
    assert {candidate.top_layers.family for candidate in both} == {"VGG", "Resnet", "Heatmap"}
    for candidate in both:
        map_sizes(candidate.top_layers, GROUND)
        assert 0.5 <= candidate.changes.lr <= 2
        assert 0.1 <= candidate.changes.decay <= 10
        assert candidate.changes.dropout in (0.0, 0.5)


def test_the_parzen_estimator_draws_more_of_what_was_good() -> None:
    config = SearchConfig(drawn=60, at_a_time=20, space=SpaceConfig(channels=(8, 16)))
    told = [(d.choices, 0.9 if d.choices["kind"] == "vgg" else 0.5) for d in draw(config, 20)]
    drawn = [d.candidate for d in draw(config, 20, told)]
    assert sum("[" not in str(candidate.top_layers) for candidate in drawn) > 14


def test_a_space_that_is_used_up_gives_what_it_has() -> None:
    space = SpaceConfig(
        kinds=("vgg",), blocks=(1, 9), channels=(8, 16), repeats=(1,), heatmap=(False,), dropout=(0.0,), lr=(1, 1)
    )
    found = draw(SearchConfig(sampler="random", space=SpaceConfig(**_fields(space) | {"decay": (1.0, 1.0)})), 5)
    assert sorted(drawn.candidate.written for drawn in found) == ["16x1 dropout=0", "8x1 dropout=0"], (
        "9 blocks don't fit"
    )


def _fields(space: SpaceConfig) -> dict:
    return {name: getattr(space, name) for name in SpaceConfig.__dataclass_fields__}


def test_searches_that_cannot_be_are_refused(tmp_path) -> None:
    for wrong in ({"drawn": -1}, {"at_a_time": 0}, {"max_trials": 0}, {"max_hours": 0.0}):
        (name,) = wrong
        with pytest.raises(ConfigError, match=f"search.{name} is"):
            SearchConfig(**wrong)
    for wrong in ({"blocks": ()}, {"channels": (0,)}, {"lr": (2.0, 1.0)}, {"dropout": (1.0,)}):
        (name,) = wrong
        with pytest.raises(ConfigError, match=f"space.{name} is"):
            SpaceConfig(**wrong)
    bare = (TrunkConfig(backbone=BACKBONE, weights=None, top_layers=()),)
    with pytest.raises(ConfigError, match=r"top_layers is \['resnet10_narrow'\]"):
        Config(name="x", trunks=bare)
    assert Config(name="x", trunks=bare, search=SearchConfig(drawn=3)).search.drawn == 3
    with pytest.raises(ConfigError, match="0 with --start"):
        Config(name="x", start=str(tmp_path), search=SearchConfig(drawn=3))


def test_only_so_many_candidates_are_planned() -> None:
    trunk = TrunkConfig(backbone=BACKBONE, weights=None, top_layers=("16x1,8x1", "8x1,8x1 lr*3", "8x1,8x1"))
    assert len(tuning.plan(Config(name="x", trunks=(trunk,)))) == 3
    few = tuning.plan(Config(name="x", trunks=(trunk,), search=SearchConfig(max_trials=2)))
    assert [candidate.written for candidate in few] == ["16x1,8x1", "8x1,8x1 lr*3"]


def test_a_budget_counts_over_all_starts(tmp_path, monkeypatch) -> None:
    from mammoflow.search import budget

    clock = [1000.0]
    monkeypatch.setattr(budget.time, "time", lambda: clock[0])
    out = Lake(str(tmp_path)).artefact("search", "x")
    first = budget.Budget(out, 1.0)
    assert first.deadline == 4600
    clock[0] += 3000
    first.note()
    clock[0] += 10_000
    second = budget.Budget(out, 1.0)
    assert second.deadline == clock[0] + 600
    assert not second.over()
    clock[0] += 600
    assert second.over()
    assert not budget.Budget(out, None).over()
    budget.Budget(out, None).note()
    assert lake.read_json(out.file("work", "seconds.json")) == {"seconds": 3000.0}
