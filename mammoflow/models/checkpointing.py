"""Activation checkpointing: memory of one part of a network at a time, for the price of a second forward pass.

Plain PyTorch. torch's own `checkpoint_sequential` would take BatchNorm's running statistics twice a step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(layers: nn.Module, stages: Sequence[str], images: Tensor) -> Tensor:
    """Map images through the layers, keeping for the backward pass only what enters each part of them.

    The result and the gradients are those of `layers(images)`.

    Args:
        layers: of a trunk.
        stages: names of the layers in order; they are the parts of nets that are no plain sequence.
        images: the trunk's scaled input (N, 3, H, W).
    """
    if not isinstance(layers, nn.Sequential):
        with _forgetting([layers.get_submodule(stage) for stage in stages]):
            features: Tensor = layers(images)
        return features
    for part in parts(layers):
        images = _forget(part, part, images)
    return images


@contextmanager
def _forgetting(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Make each of these layers keep its inputs alone, whoever calls it."""
    for layer in layers:
        layer.__dict__["forward"] = partial(_forget, layer, layer.forward)  # hides the class's own
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forget(layer: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer forwards, keeping its inputs alone."""
    contexts = partial(_contexts, layer)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a part's first and second forward pass."""
    return nullcontext(), _statistics_kept(part)


def parts(layers: nn.Sequential) -> list[nn.Sequential]:
    """Cut layers where maps shrink: after each pooling of a VGG, after each stage of a ResNet."""
    runs: list[list[nn.Module]] = [[]]
    for layer in layers:
        runs[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d | nn.Sequential):
            runs.append([])
    return [nn.Sequential(*own) for own in runs if own]


@contextmanager
def _statistics_kept(layers: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics as they are, while outputs are computed once more."""
    norms = [layer for layer in layers.modules() if isinstance(layer, _BatchNorm) and layer.training]
    kept = [(norm.momentum, None if (n := norm.num_batches_tracked) is None else n.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
