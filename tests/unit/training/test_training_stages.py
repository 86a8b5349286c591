"""What a stage says is what is done: decay, dropout, learning rate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mammoflow.config import StageConfig
from mammoflow.errors import ConfigError
from mammoflow.models.dropout import Dropout
from mammoflow.models.top_kinds import parse
from mammoflow.models.top_layers import Ground, TopLayers
from mammoflow.training import loop

STAGE = StageConfig(trained="all", lr=1e-2, epochs=4, weight_decay=0.1)
GROUND = Ground(channels=3, features=(8, 8), kernel=(2, 2), classes=5)


def groups(stage: StageConfig) -> dict[str, list[float]]:
    """Return name -> [weight decay] of each parameter that the optimiser of a stage trains."""
    top, trunk = (
        TopLayers(parse("heatmap,8x1"), GROUND),
        torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)),
    )
    names = {
        id(p): f"{part}.{name}" for part, m in (("top", top), ("trunk", trunk)) for name, p in m.named_parameters()
    }
    made = loop.optimiser(stage, top, trunk)
    return {names[id(p)]: [group["weight_decay"]] for group in made.param_groups for p in group["params"]}


def test_decay_is_of_the_kind_and_on_the_kernels_that_a_stage_names() -> None:
    new = {"top.head.blocks.0.0.weight", "top.head.fc.weight"}
    kernels = new | {"top.heatmap.fc.weight", "trunk.0.weight"}
    for stage, decayed, factor in (
        (STAGE, new, 0.2),
        (replace(STAGE, decayed="all"), kernels, 0.2),
        (replace(STAGE, decay="decoupled"), new, 0.1),
    ):
        found = groups(stage)
        assert {name for name, (value,) in found.items() if value} == decayed
        assert {value for name, (value,) in found.items() if name in decayed} == {factor}
        assert len(found) == 11, "every parameter once"
    top = TopLayers(parse("8x1"), GROUND)
    assert type(loop.optimiser(STAGE, top, torch.nn.Identity())) is torch.optim.Adam
    assert type(loop.optimiser(replace(STAGE, decay="decoupled"), top, torch.nn.Identity())) is torch.optim.AdamW


def test_learning_rates() -> None:
    assert [loop.learning_rate(STAGE, epoch) for epoch in range(6)] == [1e-2] * 6
    cosine = replace(STAGE, schedule="cosine")
    by_hand = [1e-2 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in (0, 1, 2, 3, 3, 3)]
    assert [loop.learning_rate(cosine, epoch) for epoch in range(6)] == pytest.approx(by_hand)


def test_dropout_follows_from_its_keys_alone() -> None:
    drop, features = Dropout().train(), torch.ones(3, 4000)
    drop.prepare(0.25, ["a", "b", "c"])
    made = drop(features)
    assert ((made == 0) | (made == 1 / 0.75)).all()
    assert (made == 0).float().mean(dim=1).tolist() == pytest.approx([0.25] * 3, abs=0.03)
    drop.prepare(0.25, ["c", "a"])
    assert torch.equal(drop(features[:2]), made[[2, 0]])
    assert torch.equal(drop.eval()(features), features)
    drop.train().prepare(0.0, [])
    assert torch.equal(drop(features), features)
    assert not drop.state_dict()


def test_bad_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dropout is 1\.0, but must be 0 to below 1"):
        replace(STAGE, dropout=1.0)
