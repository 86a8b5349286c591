"""Small training runs on blobs in memory, for tests of what trains: data, configs, models, and how two runs compare."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from mammoflow.config import AugmentConfig, ImageConfig, ImageTrainingConfig, PatchTrainingConfig, StageConfig
from mammoflow.data.batches import Batch, plan_epoch, slice_order
from mammoflow.facts.training import EpochFigures
from mammoflow.models import classifiers
from mammoflow.models.classifiers import PatchClassifier, PatchSpec, WholeImageClassifier
from mammoflow.search.bank_run import BankRun
from mammoflow.training import loop
from mammoflow.training.loop import Workers
from mammoflow.training.patch_run import PatchRun

CPU = torch.device("cpu")
GENTLE = AugmentConfig(rotation=10, shear=0.05, zoom=0.05, channel_shift=5)
IMAGES = ImageConfig(height=128, width=128)
TOPS = ["16x1,8x1", "[8-8-16]x2,[8-8-16]x1"]


class TensorBatches:
    """A split in memory."""

    def __init__(
        self, pixels: NDArray[np.uint16], labels: Sequence[int], batch: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._pixels, self._labels = pixels, np.array(labels)
        self._batch, self._rank, self._world_size = batch, rank, world_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng(epoch).permutation(len(self._labels))
        slices = slice_order(order, self._batch, self._world_size)
        plan = plan_epoch(slices, -(-self._batch // self._world_size), self._rank)
        for rows, real, together in zip(plan.rows, plan.real, plan.step_rows, strict=True):
            yield Batch(
                pixels=torch.from_numpy(self._pixels[rows]),
                labels=torch.from_numpy(self._labels[rows]),
                weights=torch.from_numpy(real.astype(np.float32)),
                ids=[f"row {row}" for row in rows],
                step_labels=torch.from_numpy(self._labels[together]),
            )


def blobs(n: int, height: int, width: int, classes: int, seed: int) -> tuple[NDArray[np.uint16], list[int]]:
    """Noise with a dot for class 1, a ring for class 2, nothing for class 0."""
    rng = np.random.default_rng(seed)
    labels = [k % classes for k in range(n)]
    rows, columns = np.mgrid[:height, :width]
    images = 90 + 12 * rng.standard_normal((n, height, width))
    for image, label in zip(images, labels, strict=True):
        away = np.hypot(rows - rng.uniform(12, height - 12), columns - rng.uniform(12, width - 12))
        image += (0.0, 110.0 * (away < 6), 110.0 * (abs(away - 9) < 2))[label]
    return (np.clip(images, 0, 255) * 257).astype(np.uint16), labels


def patch_config(*stages: tuple[str, float, int], batch: int = 16) -> PatchTrainingConfig:
    made = tuple(StageConfig(trained=trained, lr=lr, epochs=epochs) for trained, lr, epochs in stages)  # type: ignore[arg-type]
    return PatchTrainingConfig(stages=made, batch=batch, augment=GENTLE, precision="fp32")


def image_config(first: int = 2, second: int = 2, batch: int = 8, lr: float = 1e-3) -> ImageTrainingConfig:
    stages = (
        StageConfig(trained="last", lr=lr, epochs=first, weight_decay=0.001, dropout=0.2, schedule="cosine"),
        StageConfig(trained="all", lr=lr / 10, epochs=second, weight_decay=0.01),
    )
    return ImageTrainingConfig(stages=stages, batch=batch, augment=GENTLE, precision="fp32")


def patch_model(backbone: str = "resnet10_narrow", side: int = 32, classes: int = 3) -> PatchClassifier:
    names = ("background", "dot", "ring")[:classes]
    spec = PatchSpec(precision="fp32", backbone=backbone, classes=names, mean_grey=90.0, side=side, weights=None)
    return classifiers.patch_classifier(spec, seed=1)


def patch_run(config: PatchTrainingConfig, backbone: str = "resnet10_narrow") -> PatchRun:
    return PatchRun(config, patch_model(backbone), CPU, Workers(), seed=2)


def bank_run(
    config: ImageTrainingConfig, models: dict[str, WholeImageClassifier], labels: list[int], stage: int = 0
) -> BankRun:
    return BankRun(config, stage, models, np.bincount(labels), CPU, Workers(), seed=2)


def go(run: PatchRun | BankRun, data: TensorBatches, validation: TensorBatches, epochs: int) -> list[loop.Figures]:
    """Train some epochs, as distributed.py does."""
    rows = []
    for _ in range(epochs):
        trained, judged = run.train_epoch(data), run.validate(validation)
        rows.append({name: row.judged(judged[name], seconds=1.0, memory_gib=1.0) for name, row in trained.items()})
        run.record(rows[-1])
    return rows


SMALL = TensorBatches(*blobs(36, 32, 32, 3, seed=0), 16)
SMALL_VAL = TensorBatches(*blobs(21, 32, 32, 3, seed=1), 16)
WHOLE, WHOLE_LABELS = blobs(20, 128, 128, 2, seed=2)
WHOLES = TensorBatches(WHOLE, WHOLE_LABELS, 8)
WHOLES_VAL = TensorBatches(*blobs(13, 128, 128, 2, seed=3), 8)


def same(one: object, other: object) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def timeless_state(run: PatchRun | BankRun) -> dict[str, loop.State]:
    """Return what a run's files hold, but for the times in its history."""
    states = {name: loop.unpack(file) for name, file in run.state().items()}
    return {
        name: state | {"history": [row | {"images_per_s": 0, "data_wait": 0} for row in state["history"]]}
        for name, state in states.items()
    }


def timeless(figures: list[loop.Figures]) -> list[loop.Figures]:
    return [{name: replace(row, images_per_s=0, data_wait=0) for name, row in epoch.items()} for epoch in figures]


def train_as_one_of_two(rank: int, folder: str) -> None:
    """Run in a process of its own: one of two workers on halves of the batches."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

    def gather(values: NDArray[np.float64]) -> NDArray[np.float64]:
        pieces = [np.empty(0)] * 2
        torch.distributed.all_gather_object(pieces, values)
        return np.concatenate(pieces)

    workers = Workers(rank=rank, world_size=2, wrap=DistributedDataParallel, gather=gather)
    run, figures = short_run(workers)
    epochs = [{name: asdict(row) for name, row in epoch.items()} for epoch in figures]
    torch.save((epochs, run.best_files()["model.safetensors"]), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def short_run(workers: Workers) -> tuple[PatchRun, list[loop.Figures]]:
    """Train a trunk without BatchNorm (workers would not share its statistics) for 50 steps in float64.

    The last step of an epoch is short.
    """
    pixels, labels = blobs(96, 32, 32, 3, seed=0)
    data = TensorBatches(pixels, labels, 10, workers.rank, workers.world_size)
    validation = TensorBatches(*blobs(21, 32, 32, 3, seed=1), 8, workers.rank, workers.world_size)
    config = patch_config(("last", 1e-2, 1), ("top", 1e-4, 2), ("all", 1e-4, 2), batch=10)
    run = PatchRun(config, patch_model("vgg11").double(), CPU, workers, 2)
    return run, go(run, data, validation, run.epochs)


def read_worker(path: Path) -> tuple[list[loop.Figures], bytes]:
    """Return what `train_as_one_of_two` saved."""
    figures, weights = torch.load(path, weights_only=True)
    return [{name: EpochFigures(**row) for name, row in epoch.items()} for epoch in figures], weights
