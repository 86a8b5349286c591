"""What training will cost: counted on the meta device, held against what a real pass keeps; packs that fit."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from mammoflow import recipes
from mammoflow.config import ImageConfig
from mammoflow.errors import PreflightError
from mammoflow.models import classifiers
from mammoflow.models.backbones import Trunk, find
from mammoflow.models.top_kinds import parse
from mammoflow.models.top_layers import TopLayers
from mammoflow.search import capacity, tuning
from mammoflow.training import cost
from mammoflow.training.cost import Shape

GROUND = classifiers.ground("resnet10_narrow", ImageConfig(height=160, width=128), 64, 5)
TOPS = ("16x2,8x1", "[8-8-16]x2,[8-8-16]x1", "heatmap,8x1", "fc-pool2-8-4", "attention-4")


def really_kept(net: torch.nn.Module, inputs: torch.Tensor) -> int:
    """Count the bytes that a pass on the CPU keeps for its backward pass, the net's own weights and its input aside."""
    weights = {tensor.data_ptr() for tensor in [inputs, *net.parameters(), *net.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("top", TOPS)
def test_what_top_layers_keep_is_what_a_real_pass_keeps(top: str) -> None:
    counted = cost.of_top(parse(top), GROUND, torch.float32)
    net = TopLayers(parse(top), GROUND)
    assert counted.parameters == sum(parameter.numel() for parameter in net.parameters())
    real = really_kept(net, torch.rand(1, GROUND.channels, *GROUND.features))
    assert counted.kept == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow"])
def test_what_a_trunk_keeps_is_what_a_real_pass_keeps(backbone: str) -> None:
    counted = cost.of_trunk(backbone, 160, 128, torch.float32)
    trunk = Trunk(find(backbone), 0.0, 1.0)
    real = really_kept(trunk, torch.rand(1, 3, 160, 128))
    assert counted.kept == pytest.approx(real, rel=0.02)
    assert counted.passing < counted.kept < counted.peak
    assert counted.peak_checkpointed < 0.9 * counted.peak
    assert cost.of_trunk(backbone, 320, 256, torch.float32).peak == pytest.approx(4 * counted.peak, rel=0.03)
    halved = cost.of_trunk(backbone, 160, 128, torch.bfloat16).kept
    assert counted.kept / 2 <= halved < 0.7 * counted.kept, "where a pooling found its maxima is kept as it is"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_most_that_is_alive_is_that_of_a_real_step(checkpointing: bool) -> None:
    counted = cost.of_trunk("resnet10_narrow", 160, 128, torch.float32)
    trunk = Trunk(find("resnet10_narrow"), 0.0, 1.0)
    trunk.checkpointing = checkpointing
    real = cost.most_alive(trunk, torch.rand(1, 3, 160, 128))
    assert real == pytest.approx(counted.peak_checkpointed if checkpointing else counted.peak, rel=0.02)
    assert all(parameter.grad is None for parameter in trunk.parameters())


def test_weights_are_those_that_are_published() -> None:
    assert cost.of_trunk("resnet50", 224, 224, torch.float32).parameters == 25_557_032 - 2_049_000
    assert cost.of_trunk("vgg16", 224, 224, torch.float32).parameters == 138_357_544 - 123_642_856
    ground = classifiers.ground("resnet50", ImageConfig(), 224, 5)
    first, second = 9 * 2048 * 256 + 2 * 256, 9 * 256 * 128 + 2 * 128  # table 2's 256x1, 128x1
    assert cost.of_top(parse("256x1,128x1"), ground, torch.float32).parameters == first + second + 2 * 128 + 2


def test_operations_are_those_that_are_published() -> None:
    assert cost.of_trunk("resnet50", 224, 224, torch.float32).flops / 2 == pytest.approx(4.09e9, rel=0.01)
    assert cost.of_trunk("vgg16", 224, 224, torch.float32).flops / 2 == pytest.approx(15.35e9, rel=0.01)


def test_a_pack_costs_its_trunk_and_the_sum_of_its_top_layers() -> None:
    shape = Shape(height=160, width=128, rows=4, precision="fp32")
    trunk = replace(cost.of_trunk("resnet10_narrow", 160, 128, torch.float32), passing=0)  # the heads' maps are more
    tops = [cost.of_top(parse(top), GROUND, torch.float32) for top in TOPS]
    sizes = [cost.pack_memory(shape, trunk, tops[:k], 1000) for k in range(1, len(tops) + 1)]
    assert sizes == sorted(sizes)
    more = 16 * tops[2].parameters + 1.2 * shape.rows * tops[2].kept
    assert sizes[2] - sizes[1] == pytest.approx(more, rel=0.01)
    alone = cost.epoch_flops(trunk, tops[:1], trunk_passes=1, train=10, val=5)
    assert alone == 15 * trunk.flops + 35 * tops[0].flops
    both = cost.epoch_flops(trunk, tops[:2], trunk_passes=1, train=10, val=5)
    assert both - alone == 35 * tops[1].flops
    assert cost.epoch_flops(trunk, tops[:1], trunk_passes=3, train=10, val=5) - alone == 20 * trunk.flops


def test_what_takes_more_memory_and_what_less() -> None:
    shape = Shape(height=1152, width=896, rows=2, precision="bf16")
    ground = classifiers.ground("resnet50", ImageConfig(), 224, 5)
    trunk = cost.of_trunk("resnet50", 1152, 896, torch.bfloat16)
    top = cost.of_top(parse("256x1,128x1"), ground, torch.bfloat16)
    plain = cost.stage2_memory(shape, trunk, top)
    weights = trunk.parameters + top.parameters
    assert cost.stage2_memory(replace(shape, checkpointing=True), trunk, top) < 0.7 * plain
    assert cost.stage2_memory(replace(shape, rows=4), trunk, top) > 1.6 * plain
    assert cost.stage2_memory(replace(shape, host=True), trunk, top) - plain == 20 * weights
    assert cost.stage2_memory(replace(shape, averaged=True), trunk, top) - plain == 4 * weights
    assert cost.stage2_memory(replace(shape, judged=2), trunk, top) == plain, "validation takes less than training"
    assert cost.stage2_memory(replace(shape, judged=64), trunk, top) > 3 * plain, "it is not cut into parts"


def test_as_many_fit_as_memory_has_room_for() -> None:
    config = recipes.cbis_s10()
    own = [candidate for candidate in tuning.plan(config) if candidate.backbone == "resnet50"]
    most = [capacity.most_together(config, own, int(gib * 2**30)) for gib in (0, 1.5, 2, 80)]
    assert most == sorted(most)
    assert (most[0], most[-1]) == (1, 6)
    assert 1 < most[1] < 6
    largest = sorted(own, key=lambda candidate: -capacity.pack_memory(config, [candidate]))
    assert capacity.pack_memory(config, largest[: most[1]]) <= 0.85 * 1.5 * 2**30
    assert capacity.pack_memory(config, largest[: most[1] + 1]) > 0.85 * 1.5 * 2**30
    assert capacity.most_together(config, own[:1], 0) == 1


def test_runs_begin_where_others_end() -> None:
    assert capacity.makespan([], 2) == 0
    assert capacity.makespan([4.0], 2) == 4, "a run is not shared out"
    assert capacity.makespan([4.0, 1.0, 2.0, 2.0], 2) == 5


def test_what_no_worker_holds_is_refused_with_what_would_help() -> None:
    config = recipes.cbis_s10()
    (candidate, *_) = tuning.plan(config)
    capacity.check_fits(config, candidate, 4 * 2**30)
    with pytest.raises(PreflightError, match=r"resnet50-512.*GiB in stage 2, a worker here has 2.0; give --compute.ch"):
        capacity.check_fits(config, candidate, 2 * 2**30)
