"""What training will cost, from the shapes of its layers alone: weights, operations, memory. No Ray, no files.

Layers run forwards and backwards on the meta device, which computes shapes and nothing else; counted is what is alive
at a time. tests/bench/bench_cost.py holds the estimates against real runs: libraries take workspaces of their own.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mammoflow.models import backbones
from mammoflow.models.backbones import Trunk
from mammoflow.models.devices import Precision
from mammoflow.models.top_layers import Ground, TopLayers
from mammoflow.models.top_spec import TopSpec

_WEIGHT, _TRAINED = 4, 12
"""Bytes of a float32 weight, and of its gradient and Adam's two moments."""
_PIXEL = 4 * 2 + 3 * 4
"""Bytes of a pixel: as read, of the step's batch and of three ahead, and its three channels as augmented."""
_BEST = 4
"""Bytes in the host's memory of a trained weight, as it was in the best epoch."""
_CHECKPOINT = _WEIGHT + 8 + _BEST
"""Bytes of a trained weight in a checkpoint: itself, its two moments, and as it was in the best epoch."""
_WORKSPACE, _LIBRARIES = 1.2, 3 * 2**24
"""Factor on maps, and bytes, that kernels take beside what they are given and that lie between blocks of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of a trunk or of top layers, for one image; its input and its weights' gradients are not counted."""

    parameters: int
    """Weights."""
    flops: int
    """Operations of a forward pass [FLOP]: two for a multiplication with its addition."""
    passing: int
    """Most at a time in a forward pass that keeps nothing, as of a frozen trunk or in validation [bytes]."""
    kept: int
    """What a forward pass keeps for the backward pass [bytes]."""
    peak: int
    """Most at a time in both passes [bytes]."""
    peak_checkpointed: int
    """The same with checkpointing, which trunks alone know [bytes]."""


@cache
def of_trunk(backbone: str, height: int, width: int, dtype: torch.dtype) -> Cost:
    """Return the cost of a trunk on images of this size.

    Raises:
        ConfigError: unknown backbone.
    """
    with torch.device("meta"):
        trunk = Trunk(backbones.find(backbone), 0.0, 1.0).to(dtype)
        images = torch.empty(1, 3, height, width)
    trunk.checkpointing = True
    less = most_alive(trunk, images)
    trunk.checkpointing = False
    return _count(trunk, images, less)


@cache
def of_top(top_layers: TopSpec, ground: Ground, dtype: torch.dtype) -> Cost:
    """Return the cost of top layers.

    Raises:
        SpecError: they shrink the map below 1x1.
    """
    with torch.device("meta"):
        top = TopLayers(top_layers, ground).to(dtype)
        features = torch.empty(1, ground.channels, *ground.features, dtype=dtype)
    return _count(top, features, None)


def _count(net: nn.Module, inputs: Tensor, peak_checkpointed: int | None) -> Cost:
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Alive(net, inputs) as alive:
        net(inputs)
    kept, peak = _both_passes(net, inputs)
    return Cost(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        flops=counter.get_total_flops(),
        passing=alive.most,
        kept=kept,
        peak=peak,
        peak_checkpointed=peak if peak_checkpointed is None else peak_checkpointed,
    )


def most_alive(net: nn.Module, inputs: Tensor) -> int:
    """Return the most that a forward and a backward pass hold at a time [bytes]; on any device."""
    return _both_passes(net, inputs)[1]


def _both_passes(net: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Return what is alive between a forward and a backward pass, and the most at a time in both [bytes]."""
    with _Alive(net, inputs) as alive:
        output = net(inputs)
        kept = alive.now
        torch.autograd.backward(output, torch.ones_like(output))
    net.zero_grad(set_to_none=True)
    return kept, alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all memory that operations take and have not given back.

    Gradients of weights are left out: there are as many whatever the number of images.
    """

    def __init__(self, net: nn.Module, inputs: Tensor) -> None:
        """Count neither a net's weights nor its input."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._known = [inputs, *net.parameters(), *net.buffers()]  # held, or others might take their places
        self._counted: dict[int, weakref.ref[torch.UntypedStorage] | None] = {
            tensor.untyped_storage()._cdata: None for tensor in self._known
        }
        kernels = [tuple(parameter.shape) for parameter in net.parameters() if parameter.ndim > 1]
        self._gradients = {*kernels, *(shape[::-1] for shape in kernels)}  # a FC's may come transposed

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it returns."""
        del types
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tuple(tensor.shape) not in self._gradients:
                self._take(tensor.untyped_storage())
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self._counted:
            self._counted[place] = weakref.ref(storage, partial(self._give_back, place, size))
            self.now += size
            self.most = max(self.most, self.now)

    def _give_back(self, place: int, size: int, _storage: object) -> None:
        del self._counted[place]
        self.now -= size


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A step of training, as one worker takes it."""

    height: int
    """Rows of an image [px]."""
    width: int
    """Columns of an image [px]."""
    rows: int
    """Images of a step that are in memory at a time."""
    precision: Precision
    checkpointing: bool = False
    """Of the trunk, in stage 2."""
    judged: int = 0
    """Images that are validated at a time, where these are more: validation doesn't cut a batch into micro-batches."""
    host: bool = False
    """The device is the host: best weights and checkpoints lie in the same memory."""
    averaged: bool = False
    """Over several workers, which keep gradients a second time to send them."""

    @property
    def dtype(self) -> torch.dtype:
        """Return what maps are held in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def image(self) -> int:
        """Return the bytes of an image's pixels."""
        return self.height * self.width * _PIXEL


def pack_memory(shape: Shape, trunk: Cost, tops: Sequence[Cost], features: int) -> int:
    """Return the memory that a pack takes in stage 1 [bytes].

    Args:
        shape: of its steps.
        trunk: frozen.
        tops: of its candidates; their maps are all kept until the backward pass, which goes through one at a time.
        features: numbers in the trunk's feature map of one image.
    """
    new = [top.parameters for top in tops]
    heads = features * shape.dtype.itemsize + sum(top.kept for top in tops) + max(top.peak - top.kept for top in tops)
    steps = shape.rows * (shape.image + max(trunk.passing, heads))
    return _WEIGHT * trunk.parameters + _in_all(shape, sum(new), max(steps, _judging(shape, trunk, tops)))


def stage2_memory(shape: Shape, trunk: Cost, top: Cost) -> int:
    """Return the memory that a candidate takes in stage 2, all layers trained [bytes]."""
    weights = trunk.parameters + top.parameters
    through_trunk = trunk.peak_checkpointed if shape.checkpointing else trunk.peak
    steps = shape.rows * (shape.image + through_trunk + top.peak)
    return _in_all(shape, weights, max(steps, _judging(shape, trunk, [top])))


def _judging(shape: Shape, trunk: Cost, tops: Sequence[Cost]) -> int:
    """Return the bytes of maps and pixels in validation."""
    return shape.judged * (shape.image + trunk.passing + max(top.passing for top in tops))


def _in_all(shape: Shape, trained: int, maps: int) -> int:
    """Return the bytes of trained weights with their gradients and moments, and of maps and pixels."""
    copies = shape.dtype.itemsize if shape.precision == "bf16" else 0  # autocast's
    sent = _WEIGHT if shape.averaged else 0
    on_host = _BEST + _CHECKPOINT if shape.host else 0
    return (_WEIGHT + _TRAINED + copies + sent + on_host) * trained + round(_WORKSPACE * maps) + _LIBRARIES


def epoch_flops(trunk: Cost, tops: Sequence[Cost], *, trunk_passes: int, train: int, val: int) -> float:
    """Return the operations of an epoch [FLOP]: a backward pass takes twice its forward pass.

    Args:
        trunk: of the pack.
        tops: of its candidates.
        trunk_passes: forward passes that a step through the trunk is worth: 1 where it is frozen, 3 where it is
            trained, 4 with checkpointing.
        train: training images.
        val: validation images.
    """
    heads = sum(top.flops for top in tops)
    return train * (trunk_passes * trunk.flops + 3 * heads) + val * (trunk.flops + heads)
