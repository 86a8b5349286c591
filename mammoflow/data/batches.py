"""Read Parquet shards as shuffled batches of tensors for one training worker, prefetched. No Ray.

Pixels stay uint16 until they are on the device. A split that fits into `cache_bytes` is read once and shuffled as a
whole. A larger one is read by row group; row groups are shuffled, and then rows within windows of row groups.

Shape letters: N rows of a batch, H W rows and columns [px], S steps of an epoch, R rows of the split.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammoflow import lake
from mammoflow.config import require
from mammoflow.errors import LakeError, TrainingError
from mammoflow.lake import Artefact, stores

CACHE_BYTES = 4 * 2**30
_WINDOW = 1 / 4  # share of the cache used as the shuffle window of a split that does not fit
_AHEAD = 3  # batches to prefetch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One worker's share of one optimiser step."""

    pixels: Tensor
    """uint16 (N, H, W), over the full range."""
    labels: Tensor
    """int64 (N,)."""
    weights: Tensor
    """float32 (N,): 1, or 0 for padding."""
    ids: list[str]
    """N ids."""
    step_labels: Tensor
    """int64: labels of the whole step over all workers, without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """The rows that one worker reads in each step."""

    rows: NDArray[np.int64]
    """(S, N) row numbers."""
    real: NDArray[np.bool_]
    """(S, N) False for padding."""
    step_rows: list[NDArray[np.int64]]
    """S arrays: the rows of each step over all workers; every row of the split occurs once."""


def plan_epoch(slices: Sequence[Sequence[NDArray[np.int64]]], share: int, rank: int) -> EpochPlan:
    """Pad a worker's slices so that all workers have the same number of steps and rows per step.

    Padding repeats the first rows of the worker's epoch (or of another's, if it has none). It has no weight in the
    loss, but BatchNorm in training mode sees it.

    Args:
        slices: per worker and step, the rows to read; every row occurs once over all.
        share: N, rows per worker and step.
        rank: the worker.
    """
    steps = max(len(of_worker) for of_worker in slices)
    mine = [*slices[rank], *[np.empty(0, dtype=np.int64)] * (steps - len(slices[rank]))]
    padding = np.resize(np.concatenate([*mine, *(rows for of_worker in slices for rows in of_worker)]), share)
    real = np.array([np.arange(share) < len(rows) for rows in mine])
    return EpochPlan(
        rows=np.array([np.concatenate([rows, padding[: share - len(rows)]]) for rows in mine]),
        real=real,
        step_rows=[
            np.concatenate([of_worker[step] for of_worker in slices if step < len(of_worker)]) for step in range(steps)
        ],
    )


def slice_order(order: NDArray[np.int64], batch: int, world_size: int) -> list[list[NDArray[np.int64]]]:
    """Split each step of one order of all rows over the workers, so that N workers together see what one would."""
    share = -(-batch // world_size)
    steps = cut(order, batch)
    return [[step[rank * share : (rank + 1) * share] for step in steps] for rank in range(world_size)]


def cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut an order into pieces of `size`; the last may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]


class ShardBatches:
    """Batches of one split, in a new order each epoch; all workers together read every row once."""

    def __init__(
        self,
        shards: Sequence[str],
        id_column: str,
        batch: int,
        seed: int,
        *,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Read ids and labels of all shards; pixels are read with the batches.

        Args:
            shards: Parquet files of one split (paths or URLs), in a fixed order.
            id_column: `image_id` or `patch_id`.
            batch: rows per step over all workers.
            seed: seeds the order, together with the epoch.
            shuffle: False keeps the order of the shards, e.g. for validation.
            rank: this worker.
            world_size: workers that read the split together.
            cache_bytes: pixels that this worker keeps in memory [bytes].

        Raises:
            TrainingError: the shards hold no usable row.
            ConfigError: a step has fewer rows than there are workers.
            LakeError: a shard can't be read.
        """
        require(
            batch >= world_size, "batch", batch, f"at least {world_size}, the workers", "raise it or use fewer workers"
        )
        self._groups = [group for url in shards for group in _row_groups(url, id_column)]
        self._group_of = np.repeat(np.arange(len(self._groups)), [len(group.rows) for group in self._groups])
        if not len(self._group_of):
            raise TrainingError(f"the {len(shards)} shards hold no row to train on; was their stage run on this lake?")
        self._row_in_group = np.concatenate([group.rows for group in self._groups])
        self.labels: NDArray[np.int64] = np.concatenate([group.labels for group in self._groups])
        self.ids: list[str] = [name for group in self._groups for name in group.ids]
        self._batch, self._seed, self._shuffle = batch, seed, shuffle
        self._rank, self._world_size = rank, world_size
        self._cache_bytes = cache_bytes
        self._cached = sum(group.nbytes for group in self._groups) <= cache_bytes
        self._pixels: dict[int, NDArray[np.uint16]] = {}

    @classmethod
    def of_split(
        cls, artefact: Artefact, split: str, id_column: str, batch: int, seed: int, *, rank: int, world_size: int
    ) -> "ShardBatches":
        """Return the batches of an artefact's split, shuffled if it is the training split; see the constructor."""
        shards = list(lake.iter_shards(artefact, split))
        shuffle = split == "train"
        return cls(shards, id_column, batch, seed, shuffle=shuffle, rank=rank, world_size=world_size)

    @property
    def rows(self) -> int:
        """Return the number of rows of the split, over all workers."""
        return len(self.ids)

    @property
    def steps(self) -> int:
        """Return the number of steps per epoch."""
        return len(self._plan(0).rows)

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return the number of rows per class: (classes,).

        Raises:
            TrainingError: a label is out of range.
        """
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise TrainingError(
                f"labels reach from {self.labels.min()} to {self.labels.max()}, but there are {classes} classes; "
                "was the split made with a different class list?"
            )
        return np.bincount(self.labels, minlength=classes)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, prefetched by a thread that ends with the iterator."""
        plan = self._plan(epoch)
        uses = np.bincount(self._group_of[plan.rows].ravel(), minlength=len(self._groups))
        ahead: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            try:
                for step in range(len(plan.rows)):
                    ahead.append(pool.submit(self._load, plan, step, uses))
                    if len(ahead) > _AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _plan(self, epoch: int) -> EpochPlan:
        rng = np.random.default_rng([self._seed, epoch]) if self._shuffle else None
        share = -(-self._batch // self._world_size)
        if self._cached:
            order = np.arange(self.rows) if rng is None else rng.permutation(self.rows)
            return plan_epoch(slice_order(order, self._batch, self._world_size), share, self._rank)
        return plan_epoch([cut(stream, share) for stream in self._group_streams(rng)], share, self._rank)

    def _group_streams(self, rng: np.random.Generator | None) -> list[NDArray[np.int64]]:
        """Deal row groups out to workers and shuffle rows within windows of row groups; each group is read once."""
        order = np.arange(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        starts = np.cumsum([0, *(len(group.rows) for group in self._groups)])
        per_window = max(1, int(_WINDOW * self._cache_bytes / max(group.nbytes for group in self._groups)))
        streams = []
        for rank in range(self._world_size):
            mine = order[rank :: self._world_size]
            windows = [np.empty(0, dtype=np.int64)]
            for first in range(0, len(mine), per_window):
                rows = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in mine[first : first + per_window]])
                windows.append(rows if rng is None else rng.permutation(rows))
            streams.append(np.concatenate(windows))
        return streams

    def _load(self, plan: EpochPlan, step: int, uses: NDArray[np.int64]) -> Batch:
        """Assemble one batch; unless the split is cached, drop each row group after its last use."""
        rows = plan.rows[step]
        pixels = []
        for row in rows:
            group = int(self._group_of[row])
            if group not in self._pixels:
                self._pixels[group] = self._groups[group].read()
            pixels.append(self._pixels[group][self._row_in_group[row]])
            uses[group] -= 1
            if not self._cached and uses[group] == 0:
                del self._pixels[group]
        stacked = torch.from_numpy(np.stack(pixels))
        return Batch(
            pixels=stacked.pin_memory() if torch.cuda.is_available() else stacked,
            labels=torch.from_numpy(self.labels[rows]),
            weights=torch.from_numpy(plan.real[step].astype(np.float32)),
            ids=[self.ids[row] for row in rows],
            step_labels=torch.from_numpy(self.labels[plan.step_rows[step]]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowGroup:
    """The usable rows of one row group of a Parquet file."""

    url: str
    number: int
    rows: NDArray[np.int64]
    """Indices within the row group."""
    labels: NDArray[np.int64]
    ids: list[str]
    nbytes: int
    """Size of the row group's pixels in memory."""

    def read(self) -> NDArray[np.uint16]:
        """Read the pixels of the whole row group: (rows, H, W)."""
        table = _open(self.url).read_row_group(self.number, columns=["pixels"])
        pixels: NDArray[np.uint16] = table.column("pixels").combine_chunks().to_numpy_ndarray()
        return pixels


def _open(url: str) -> pq.ParquetFile:
    fs, path = stores.filesystem(url)
    try:
        return pq.ParquetFile(fs.open_input_file(path), pre_buffer=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise LakeError(f"can't read {url}: {error}; delete it and run its stage again") from error


def _row_groups(url: str, id_column: str) -> Iterator[_RowGroup]:
    """Yield the row groups of a shard with ids and labels, without rows marked `unverified`."""
    file = _open(url)
    schema = file.schema_arrow
    row_bytes = 2 * int(np.prod(schema.field("pixels").type.shape))
    flags = [name for name in ("unverified",) if name in schema.names]
    for number in range(file.num_row_groups):
        table = file.read_row_group(number, columns=[id_column, "label", *flags])
        keep = np.ones(table.num_rows, dtype=bool)
        for flag in flags:
            keep &= ~table.column(flag).to_numpy(zero_copy_only=False).astype(bool)
        yield _RowGroup(
            url=url,
            number=number,
            rows=np.flatnonzero(keep),
            labels=table.column("label").to_numpy()[keep].astype(np.int64),
            ids=table.column(id_column).filter(pa.array(keep)).to_pylist(),
            nbytes=row_bytes * table.num_rows,
        )
