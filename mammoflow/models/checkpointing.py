"""Activation checkpointing: memory of one part of a network at a time, for the price of a second forward pass.

Plain PyTorch. torch's own `checkpoint_sequential` would take BatchNorm's running statistics twice a step.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run(layers: nn.Sequential, images: Tensor) -> Tensor:
    """Map images through the layers, keeping for the backward pass only what enters each part of them.

    The result and the gradients are those of `layers(images)`.
    """
    for part in parts(layers):
        contexts = partial(_contexts, part)
        images = checkpoint(part, images, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return images


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
    norms = [layer for layer in layers.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    kept = [(norm.momentum, None if (n := norm.num_batches_tracked) is None else n.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
