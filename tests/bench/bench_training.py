"""What the training loop and its feed cost beside the network itself.

    python tests/bench/bench_training.py           # three minutes on 2 cores

A small trunk on patches of 96 px, 16 at a time, so that the loop has little to hide behind: one epoch of
`patch_run.PatchRun` with the feed from Parquet, with the same rows as tensors in memory, with a `DataLoader` over the
same Parquet, and a bare PyTorch script with the same augmentation. Medians of 5, warm, alternating; two threads each.
Prints one JSON line a figure.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from mammoflow.config import CLASSES, PatchTrainingConfig, StageConfig
from mammoflow.data.batches import Batch, ShardBatches
from mammoflow.data.ingest import shards
from mammoflow.lake import schema
from mammoflow.models import augment, classifiers
from mammoflow.models.classifiers import PatchSpec
from mammoflow.training import loop
from mammoflow.training.loop import Workers
from mammoflow.training.patch_run import PatchRun

ROUNDS, ROWS, SHARDS, SIDE, BATCH = 5, 480, 4, 96, 16
SEED = 0
TRAINING = PatchTrainingConfig(
    stages=(StageConfig(trained="all", lr=1e-3, epochs=1000),), batch=BATCH, precision="fp32"
)
SPEC = PatchSpec(precision="fp32", backbone="resnet10_narrow", classes=CLASSES, mean_grey=60.0, side=SIDE, weights=None)
DEVICE = torch.device("cpu")


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def write(folder: Path) -> list[str]:
    """Write shards of patches as the lake has them."""
    form, rng, urls = schema.patches(SIDE), np.random.default_rng(0), []
    plain = {"string": "x", "large_string": "x", "double": 0.0, "float": 0.0, "bool": False}
    for shard in range(SHARDS):
        rows = []
        for number in range(ROWS // SHARDS):
            row = {field.name: plain.get(str(field.type), 0) for field in form if field.name != "pixels"}
            rows.append(row | {"patch_id": f"{shard}/{number}", "label": int(rng.integers(len(CLASSES)))})
        pixels = rng.integers(0, 65536, (len(rows), SIDE, SIDE), dtype=np.uint16)
        urls.append(str(folder / f"train-{shard}.parquet"))
        shards.write(urls[-1], rows, pixels, form)
    return urls


class InMemory:
    """The same batches, their tensors made before."""

    def __init__(self, feed: ShardBatches) -> None:
        self._batches = list(feed.epoch(0))

    def epoch(self, _epoch: int) -> Iterator[Batch]:
        yield from self._batches


class Rows(Dataset[tuple[np.ndarray, int, str]]):
    """Rows of the Parquet files, read whole by whoever asks first, as a tuned data set of a few GiB does."""

    def __init__(self, urls: list[str]) -> None:
        tables = [pq.read_table(url, columns=["patch_id", "label", "pixels"]) for url in urls]
        self.pixels = np.concatenate([t["pixels"].combine_chunks().to_numpy_ndarray() for t in tables])
        self.labels = [label for t in tables for label in t["label"].to_pylist()]
        self.ids = [name for t in tables for name in t["patch_id"].to_pylist()]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int, str]:
        return self.pixels[row], self.labels[row], self.ids[row]


class ByDataLoader:
    """Batches from torch's DataLoader, one worker process ahead."""

    def __init__(self, urls: list[str]) -> None:
        self._loader = DataLoader(
            Rows(urls),
            batch_size=BATCH,
            shuffle=True,
            num_workers=1,
            persistent_workers=True,
            prefetch_factor=4,
            collate_fn=_collate,
        )

    def epoch(self, _epoch: int) -> Iterator[Batch]:
        yield from self._loader


def _collate(rows: list[tuple[np.ndarray, int, str]]) -> Batch:
    pixels, labels, ids = zip(*rows, strict=True)
    labels_N = torch.tensor(labels)
    return Batch(
        pixels=torch.from_numpy(np.stack(pixels)),
        labels=labels_N,
        weights=torch.ones(len(labels)),
        ids=list(ids),
        step_labels=labels_N,
    )


def bare(feed: InMemory) -> Callable[[], None]:
    """Return an epoch as a script has it: augment, forward, weighted loss, backward, Adam."""
    model = classifiers.patch_classifier(SPEC, SEED).to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def epoch() -> None:
        for batch in feed.epoch(0):
            images = augment.apply(
                classifiers.to_grey(batch.pixels), augment.draw(TRAINING.augment, SEED, 0, 0, batch.ids)
            )
            losses = torch.nn.functional.cross_entropy(model(images), batch.labels, reduction="none")
            loss = (losses * loop.balance_step(batch.labels, batch.labels)).mean()
            adam.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            adam.step()

    return epoch


def show(figure: str, value: float, unit: str, goal: str, against: str, **more: object) -> None:
    """Print one figure."""
    line = {"figure": figure, "value": round(value, 3), "unit": unit, "goal": goal, "against": against, **more}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Write the shards, then measure."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="mf-") as folder:
        urls = write(Path(folder))
        began = time.perf_counter()
        parquet = ShardBatches(urls, "patch_id", BATCH, SEED, shuffle=True)
        next(iter(parquet.epoch(0)))
        show("first_batch_s", time.perf_counter() - began, "s", "<= 10", "opening the shards", rows=ROWS)
        memory = InMemory(parquet)
        feeds = {"parquet": parquet, "memory": memory, "dataloader": ByDataLoader(urls)}
        runs = {
            name: PatchRun(TRAINING, classifiers.patch_classifier(SPEC, SEED), DEVICE, Workers(), SEED)
            for name in feeds
        }
        epochs: dict[str, Callable[[], object]] = {
            name: (lambda n=name: runs[n].train_epoch(feeds[n])) for name in feeds
        }
        epochs["bare"] = bare(memory)
        taken: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(ROUNDS + 1):
            for name, epoch in epochs.items():
                spent = seconds(epoch)
                if number:  # the first warms up
                    taken[name].append(spent)
    for figure, ours, theirs, goal, against in (
        ("feed_vs_memory", "parquet", "memory", ">= 0.95", "the same loop on tensors in memory"),
        ("feed_vs_dataloader", "parquet", "dataloader", ">= 0.97", "a DataLoader over the same Parquet, one worker"),
        ("loop_vs_bare", "memory", "bare", ">= 0.95", "a bare PyTorch script, same model and batches"),
    ):
        ratios = [other / own for own, other in zip(taken[ours], taken[theirs], strict=True)]
        rate = ROWS / statistics.median(taken[ours])
        rounds = [round(ratio, 3) for ratio in ratios]
        show(figure, statistics.median(ratios), "ratio", goal, against, images_per_s=round(rate), rounds=rounds)


if __name__ == "__main__":
    main()
