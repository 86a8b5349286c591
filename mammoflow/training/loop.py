"""What training a patch classifier and training a bank of candidates have in common. Plain PyTorch: no Ray, no files.

Shape letters: N rows of a batch, K models trained on the same batches, C classes, H W rows and columns [px].
"""

import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from mammoflow.config import AugmentConfig, StageConfig
from mammoflow.data.batches import Batch
from mammoflow.errors import ModelError, TrainingError
from mammoflow.facts.training import EpochFigures, Validation
from mammoflow.models import augment, timm_trunks, top_layers
from mammoflow.models.backbones import Trunk
from mammoflow.models.classifiers import to_grey, to_input
from mammoflow.models.timm_trunks import is_timm

_CHECK_EVERY = 16  # steps between two looks at the losses; each look waits for the device

Figures = dict[str, EpochFigures]
"""The epoch of each model of a run, by the model's name."""
State = dict[str, Any]


class Batches(Protocol):
    """Where batches come from: data.batches.ShardBatches, or tensors in memory."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in its own order."""


class Run(Protocol):
    """A training run that goes epoch by epoch and can be stopped and continued between any two."""

    epoch: int
    """Epochs done."""

    @property
    def epochs(self) -> int:
        """Epochs in all."""

    def train_epoch(self, batches: Batches) -> Figures:
        """Train one epoch of every model."""

    def validate(self, batches: Batches) -> dict[str, Validation]:
        """Judge the epoch just trained, and keep the weights if they are the best so far."""

    def record(self, figures: Figures) -> None:
        """Add the figures of the epoch just judged to the run's history."""

    def state(self) -> dict[str, bytes]:
        """Return all that is needed to continue, history included, as files."""

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Continue from files of `state`."""


def _alone(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _unwrapped(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """This worker among those that train one model together; by default it is alone."""

    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = _unwrapped
    """Makes a module average its gradients over workers (DistributedDataParallel)."""
    gather: Callable[[NDArray[Any]], NDArray[Any]] = _alone
    """Concatenates all workers' arrays along the first axis, in the order of ranks, on every worker."""
    checkpointing: bool = False
    """Trunks recompute activations in the backward pass to save memory."""
    compiled: bool = False
    """Trunks run as torch.compile makes them."""
    sync_batch_norm: bool = False
    """BatchNorm sees the whole step, not this worker's share of it; on GPUs only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best epoch so far of one model."""

    value: float
    """Its validation accuracy or AUC."""
    epoch: int
    """From 1, over all stages."""
    weights: dict[str, Tensor]
    """On the CPU; those that were trained."""

    def to_state(self) -> State:
        """Return plain values and tensors."""
        return {"value": self.value, "epoch": self.epoch, "weights": self.weights}


def is_better(value: float, best: Best | None) -> bool:
    """Tell whether a validation figure beats the best so far; ties keep the earlier epoch."""
    return best is None or value > best.value


def snapshot(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU that later steps don't change."""
    return {name: value.detach().cpu().clone() for name, value in weights.items()}


def optimiser(stage: StageConfig, top: nn.Module, trunk: nn.Module) -> torch.optim.Adam:
    """Return Adam over all that is trained, with the stage's decay on the kernels that it names.

    Keras adds lambda * |w|^2 to the loss, whose gradient is 2 lambda w: coupled Adam's weight_decay is 2 lambda.
    """
    trained = [p for part in (top, trunk) for p in part.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1] if stage.decayed == "all" else list(top_layers.decayed(top))
    known = {id(parameter) for parameter in decayed}
    rest = [p for p in trained if id(p) not in known]
    kind, factor = (torch.optim.Adam, 2.0) if stage.decay == "l2" else (torch.optim.AdamW, 1.0)
    groups = [{"params": decayed, "weight_decay": factor * stage.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return kind(groups, lr=stage.lr, fused=True)


def learning_rate(stage: StageConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, from 0, of a stage; beyond the stage's end its last one."""
    if stage.schedule == "constant" or not stage.epochs:
        return stage.lr
    done = min(epoch, stage.epochs - 1) / stage.epochs
    return stage.lr * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def prepare(layers: nn.Module, trunk: Trunk, device: torch.device, workers: Workers) -> None:
    """Bring layers, in place, to the device and into the form in which this worker trains them.

    Args:
        layers: all that is trained or run.
        trunk: of them.
        device: of this worker.
        workers: this worker among all.
    """
    if workers.sync_batch_norm:
        convert = timm_trunks.sync_batch_norm if is_timm(trunk.backbone.name) else SyncBatchNorm.convert_sync_batchnorm
        convert(layers)
    layers.to(device).to(memory_format=torch.channels_last)
    trunk.checkpointing = workers.checkpointing
    if workers.compiled:
        trunk.layers.compile()


def at_least_float32(values: Tensor) -> Tensor:
    """Return values of a reduced precision as float32, others as they are: what losses are computed from."""
    return values if values.dtype == torch.float64 else values.float()


def micro_batches(batch: Batch, number: int) -> list[Batch]:
    """Cut a worker's share of a step into at most `number` micro-batches of nearly equal size."""
    pieces = [rows for rows in np.array_split(np.arange(len(batch.labels)), number) if len(rows)]
    return [
        replace(
            batch,
            pixels=batch.pixels[rows[0] : rows[-1] + 1],
            labels=batch.labels[rows[0] : rows[-1] + 1],
            weights=batch.weights[rows[0] : rows[-1] + 1],
            ids=batch.ids[rows[0] : rows[-1] + 1],
        )
        for rows in pieces
    ]


def accumulate(net: nn.Module, batch: Batch, number: int, add_gradient: Callable[[Batch], Tensor]) -> list[Tensor]:
    """Accumulate a step's gradient over micro-batches; workers' gradients are averaged after the last one.

    Args:
        net: what is trained, as `Workers.wrap` returned it.
        batch: the worker's share of the step.
        number: of micro-batches.
        add_gradient: runs forwards and backwards on a micro-batch, and returns its losses.

    Returns:
        The losses of each micro-batch.
    """
    losses = []
    pieces = micro_batches(batch, number)
    for place, piece in enumerate(pieces, start=1):
        more = place < len(pieces)
        with net.no_sync() if more and isinstance(net, DistributedDataParallel) else nullcontext():
            losses.append(add_gradient(piece))
    return losses


def balance_step(labels_N: Tensor, step_labels: Tensor) -> Tensor:
    """Return w = 1 / (fraction of the row's class in the step), float32 (N,), not renormalised.

    Source: paper, methods. The fraction is over the step of all workers.
    """
    same = (labels_N[:, None] == step_labels[None, :]).float().mean(dim=1)
    return 1 / same.clamp(min=1 / len(step_labels))  # a row that only fills up may be the only one of its class


def class_weights(counts_C: NDArray[np.int64]) -> Tensor:
    """Return inverse class frequencies, float32 (C,), whose mean over the split is 1.

    Raises:
        TrainingError: a class has no image.
    """
    if counts_C.min() < 1:
        raise TrainingError(
            f"the training split holds {counts_C.tolist()} images of the classes; each needs one: use more images"
        )
    return torch.from_numpy(counts_C.sum() / (len(counts_C) * counts_C)).float()


def augmented(batch: Batch, config: AugmentConfig, seed: int, epoch: int, stage: int, device: torch.device) -> Tensor:
    """Return the batch's pixels on the device, changed at random: float32 (N, 3, H, W), grey values 0-255."""
    changes = augment.draw(config, seed, epoch, stage, batch.ids)
    return augment.apply(to_grey(batch.pixels.to(device, non_blocking=True)), changes)


def unchanged(batch: Batch, device: torch.device) -> Tensor:
    """Return the batch's pixels on the device as they are: float32 (N, 3, H, W), grey values 0-255."""
    images = to_input(batch.pixels.to(device, non_blocking=True))
    return images.contiguous(memory_format=torch.channels_last)


class Feed:
    """Passes batches on, and knows how fast they went and how long the run waited for them."""

    def __init__(self, batches: Iterator[Batch], world_size: int) -> None:
        """Start the clock."""
        self._batches = batches
        self._world_size = world_size
        self._rows = 0.0
        self._waited = 0.0
        self._started = time.perf_counter()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        while True:
            asked = time.perf_counter()
            batch = next(self._batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            self._rows += len(batch.step_labels)
            yield batch

    def speed(self) -> tuple[float, float]:
        """Return images a second over all workers, and the share of time that this one waited for data [0-1]."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return self._rows / seconds, self._waited / seconds


class EpochLosses:
    """Mean loss of K models over an epoch's rows; stops the run where one is not finite."""

    def __init__(self, names: Sequence[str], epoch: int) -> None:
        """Name the models and the epoch, from 1, for errors."""
        self._names = names
        self._epoch = epoch
        self._step = 0
        self._waiting: list[tuple[Tensor, Tensor, list[str]]] = []
        self._sums = np.zeros((1, len(names) + 1))

    def add(self, losses_KN: Tensor, weights_N: Tensor, ids: list[str]) -> None:
        """Take the losses of one step; rows of weight 0 don't count."""
        self._waiting.append((losses_KN.detach(), weights_N, ids))
        if len(self._waiting) == _CHECK_EVERY:
            self._check()

    def means(self, workers: Workers) -> dict[str, float]:
        """Return each model's mean loss over all workers' rows."""
        self._check()
        *sums, count = workers.gather(self._sums).sum(axis=0)
        return {name: float(total / count) for name, total in zip(self._names, sums, strict=True)}

    def _check(self) -> None:
        """Look at the losses taken since the last look.

        Raises:
            ModelError: names model, epoch, step and ids of the rows.
        """
        for losses_KN, weights_N, ids in self._waiting:
            self._step += 1
            real = weights_N.cpu().numpy() > 0
            losses = losses_KN.double().cpu().numpy()[:, real]
            if not np.isfinite(losses).all():
                self._fail(losses, [name for name, counts in zip(ids, real, strict=True) if counts])
            self._sums += np.array([[*losses.sum(axis=1), real.sum()]])
        self._waiting.clear()

    def _fail(self, losses: NDArray[np.float64], ids: list[str]) -> None:
        model, row = np.argwhere(~np.isfinite(losses))[0]
        raise ModelError(
            f"loss of {self._names[model]} is {losses[model, row]} in epoch {self._epoch}, step {self._step}, "
            f"at {ids[row]} (rows of the step: {', '.join(ids)}); "
            "look at these images, lower the learning rate, or use fp32",
            self._names[model],
        )


def pack(state: State) -> bytes:
    """Return a run's state, tensors and plain values only, as a file."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def unpack(file: bytes) -> State:
    """Read a file of `pack`; nothing but tensors and plain values is ever built from it.

    Raises:
        TrainingError: missing or damaged.
    """
    try:
        state: State = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"a checkpoint is damaged ({error!r}); delete it to start afresh") from error
    return state
