"""BatchNorm's running statistics: recalibrated, frozen, and the same on every worker. Plain PyTorch.

Shape letters: N rows of a batch.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mammoflow.data.batches import Batch
from mammoflow.training.loop import Workers


def recalibrate(layers: nn.Module, forward: Callable[[Batch], object], batches: Iterator[Batch]) -> None:
    """Recompute the BatchNorm statistics of the layers that learn: their plain mean over these batches.

    Weights don't change. Running averages mix the statistics of a hundred older versions of the weights; where those
    still move fast, a model that fits well fails as soon as it is evaluated.

    Args:
        layers: in training mode; what is frozen evaluates and keeps its statistics.
        forward: runs the layers on a batch.
        batches: some of the training split.

    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", 3 (PreciseBN).
    """
    norms = [layer for layer in layers.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain mean
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # a plain mean would be compiled again
        for batch in batches:
            forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def freeze(layers: nn.Module) -> None:
    """Have BatchNorm layers in training mode normalise by their running statistics, and leave these unchanged.

    Their weights still learn.
    """
    for layer in layers.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def sync_buffers(model: nn.Module, workers: Workers) -> None:
    """Give every worker the first one's BatchNorm statistics, so that all validate the model that is kept."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if workers.world_size == 1 or not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    first = torch.from_numpy(workers.gather(flat.cpu().numpy()[None])[0]).to(flat)
    for buffer, values in zip(buffers, torch.split(first, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))
