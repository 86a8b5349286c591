"""What training will cost, from the shapes of its layers alone: weights, operations, memory. No Ray, no files.

Layers run on the meta device, which computes shapes and nothing else. Memory is an estimate: allocators round up, and
libraries take workspaces of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mammoflow.models import backbones, checkpointing
from mammoflow.models.backbones import Trunk
from mammoflow.models.top_layers import Ground, TopLayers

_WEIGHT, _TRAINED = 4, 12
"""Bytes of a float32 weight, and of its gradient and Adam's two moments."""
_PIXELS = 3 * 3 * 4
"""Bytes of a pixel's three channels: as drawn, as augmented, as scaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of a trunk or of top layers, for one image."""

    parameters: int
    """Weights."""
    flops: int
    """Operations of a forward pass [FLOP]: two for a multiplication with its addition."""
    kept: int
    """What a forward pass keeps for the backward pass [bytes]."""
    kept_checkpointed: int
    """The same with checkpointing, at the worst moment of the backward pass [bytes]."""
    passing: int
    """What goes in and out of the layer with the largest maps [bytes]: all that a frozen net holds at a time."""


@cache
def of_trunk(backbone: str, height: int, width: int, dtype: torch.dtype) -> Cost:
    """Return the cost of a trunk on images of this size.

    Raises:
        ConfigError: unknown backbone.
    """
    with torch.device("meta"):
        trunk = Trunk(backbones.find(backbone), 0.0, 1.0).to(dtype)
        images = torch.empty(1, 3, height, width, dtype=dtype)
    if isinstance(trunk.layers, nn.Sequential):
        ends = [part[-1] for part in checkpointing.parts(trunk.layers)]
    else:
        ends = [trunk.layers.get_submodule(name) for name in trunk.backbone.stages]
    return _count(trunk, images, ends)


@cache
def of_top(top_layers: str, ground: Ground, dtype: torch.dtype) -> Cost:
    """Return the cost of top layers.

    Raises:
        SpecError: they can't be read, or shrink the map below 1x1.
    """
    with torch.device("meta"):
        top = TopLayers(top_layers, ground).to(dtype)
        features = torch.empty(1, ground.channels, *ground.features, dtype=dtype)
    return _count(top, features, [top])


def _count(net: nn.Module, inputs: Tensor, ends: Sequence[nn.Module]) -> Cost:
    """Run a net on the meta device and count; `ends` are the layers whose outputs checkpointing keeps."""
    weights = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
    seen: dict[int, Tensor] = {}  # holds what it has counted, or another tensor might take its place
    marks, outputs, passing = [0], [], [0]

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in weights:
            seen.setdefault(place, tensor)
        return tensor

    def mark(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        marks.append(sum(map(_bytes, seen.values())))
        outputs.append(_bytes(output))

    def measure(_layer: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        tensors = [one for one in (*given, output) if isinstance(one, Tensor)]
        passing.append(sum(map(_bytes, tensors)))

    hooks = [layer.register_forward_hook(mark) for layer in ends]
    hooks += [layer.register_forward_hook(measure) for layer in net.modules() if not [*layer.children()]]
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, _unchanged):
        net(inputs)
    for hook in hooks:
        hook.remove()
    parts = [after - before for before, after in pairwise(marks)]
    return Cost(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        flops=counter.get_total_flops(),
        kept=marks[-1],
        kept_checkpointed=sum(outputs) + max(parts),
        passing=max(passing),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A step of training, as one worker takes it."""

    height: int
    """Rows of an image [px]."""
    width: int
    """Columns of an image [px]."""
    rows: int
    """Images of a step that are in memory at a time."""
    precision: str
    """`fp32` or `bf16`."""
    checkpointing: bool = False
    """Of the trunk, in stage 2."""

    @property
    def dtype(self) -> torch.dtype:
        """Return what maps are held in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def pack_memory(shape: Shape, trunk: Cost, tops: Sequence[Cost], features: int) -> int:
    """Return the memory that a pack takes in stage 1 [bytes].

    Args:
        shape: of its steps.
        trunk: frozen.
        tops: of its candidates; their maps are all kept until the backward pass.
        features: numbers in the trunk's feature map of one image.
    """
    new = sum(top.parameters for top in tops)
    own = trunk.passing + features * shape.dtype.itemsize + sum(top.kept for top in tops)
    own += max(top.passing for top in tops)
    return _weights(shape, trunk.parameters + new) + new * _TRAINED + shape.rows * (_images(shape) + own)


def stage2_memory(shape: Shape, trunk: Cost, top: Cost) -> int:
    """Return the memory that a candidate takes in stage 2, all layers trained [bytes]."""
    weights = trunk.parameters + top.parameters
    kept = trunk.kept_checkpointed if shape.checkpointing else trunk.kept
    own = kept + top.kept + trunk.passing
    return _weights(shape, weights) + weights * _TRAINED + shape.rows * (_images(shape) + own)


def _weights(shape: Shape, number: int) -> int:
    """Return the bytes of weights, and of the copies that autocast makes of them."""
    copies = shape.dtype.itemsize if shape.precision == "bf16" else 0
    return number * (_WEIGHT + copies)


def _images(shape: Shape) -> int:
    return shape.height * shape.width * _PIXELS


def epoch_flops(trunk: Cost, tops: Sequence[Cost], *, trunk_trained: bool, train: int, val: int) -> float:
    """Return the operations of an epoch [FLOP]: a backward pass takes twice its forward pass.

    Args:
        trunk: of the pack.
        tops: of its candidates.
        trunk_trained: stage 2; in stage 1 it only runs forwards.
        train: training images.
        val: validation images.
    """
    heads = sum(top.flops for top in tops)
    return train * (trunk.flops * (3 if trunk_trained else 1) + 3 * heads) + val * (trunk.flops + heads)
