"""Process a stage's shards with Ray Data, each exactly once. Knows no stage.

A shard is a unit of work and a Parquet file named by its content. A task writes the shard's ledger entry (JSON: counts,
and what went to quarantine) before the file that marks the shard as done, and every file appears whole or not at all.
So a run that was killed at any point continues when it is started again.

Shape letters: N rows of a shard; H, W image rows, columns [px].
"""

import functools
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from mammoflow import lake
from mammoflow.cluster import interrupts, telemetry
from mammoflow.data.quarantine import Quarantined
from mammoflow.errors import MammoflowError
from mammoflow.facts import codec
from mammoflow.lake import Artefact, stores

Say = Callable[[str], None]
Row = dict[str, Any]
"""A row of an Arrow table."""

SHARDS, LEDGER = "shards", "ledger"
"""Folders of an artefact: Parquet files, and a JSON entry for each."""

_ROW_GROUP_BYTES = 16 * 2**20  # what a streaming reader holds at a time
_SAY_EVERY = 5.0  # seconds between two progress lines


class Job(Protocol):
    """The work of one shard: a small frozen dataclass."""

    @property
    def shard(self) -> str:
        """Return the shard's name."""

    @property
    def units(self) -> int:
        """Return the number of images or patients to process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a task did."""

    units: int
    """Images or patients processed."""
    bad: int = 0
    """Those among them that can't be used."""
    counts: dict[str, int] = field(default_factory=dict)
    """Further counts, by the names of `telemetry`."""


J = TypeVar("J", bound=Job)
E = TypeVar("E")


class Progress:
    """Prints every few seconds how much of a stage is done, and how fast."""

    def __init__(self, what: str, say: Say, whose: str = "") -> None:
        """Start a count.

        Args:
            what: the units and what is done to them, e.g. `images decoded`; also names the counter in `telemetry`.
            say: takes the lines.
            whose: appended in the lines, e.g. `for resnet50`.
        """
        self._what, self._say = f"{what} {whose}".strip(), say
        self._counter = what.replace(" ", "_")
        self._done = self._new = self._bad = self._total = 0
        self._started = self._last_line = time.monotonic()

    def start(self, total: int, done: int) -> None:
        """Begin with `done` of `total` units present from an earlier run."""
        self._total, self._done = total, done
        if done:
            self._say(f"  {done} of {total} {self._what} before")

    def add(self, units: int, bad: int) -> None:
        """Count what one task did, for the user and for `telemetry`."""
        telemetry.count(self._counter, units)
        telemetry.count("quarantined", bad, stage=self._counter)
        self._done, self._new, self._bad = self._done + units, self._new + units, self._bad + bad
        if time.monotonic() - self._last_line >= _SAY_EVERY or self._done == self._total:
            self._last_line = time.monotonic()
            rate = self._new / max(self._last_line - self._started, 1e-3)
            aside = f", {self._bad} set aside" if self._bad else ""
            self._say(f"  {self._done} of {self._total} {self._what}, {rate:.1f}/s{aside}")


def ledger_url(out: str, shard: str) -> str:
    """Return the URL of a shard's ledger entry in the artefact at `out`."""
    return lake.join(out, LEDGER, f"{shard}.json")


def shard_url(out: str, shard: str) -> str:
    """Return the URL of a shard's Parquet file in the artefact at `out`."""
    return lake.join(out, SHARDS, f"{shard}.parquet")


def write_entry(out: str, shard: str, entry: object) -> None:
    """Write a shard's ledger entry, a record of facts."""
    lake.write_bytes(ledger_url(out, shard), codec.to_json(entry))


def read_entry(out: str, shard: str, kind: type[E]) -> E:
    """Read a shard's ledger entry.

    Raises:
        LakeError: it is absent or damaged.
    """
    url = ledger_url(out, shard)
    return codec.from_json(lake.read_bytes(url), kind, url)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faults:
    """The part of a ledger entry that says what could not be used."""

    quarantine: tuple[Quarantined, ...]


def _is_flawless(out: str, shard: str) -> bool:
    return not read_entry(out, shard, _Faults).quarantine


def missing(jobs: Sequence[J], out: Artefact, marks: str) -> list[J]:
    """Return the jobs whose mark is not in `<out>/<marks>` yet."""
    present = {_stem(url) for url in lake.list_files(out.file(marks))}
    return [job for job in jobs if job.shard not in present]


def adopt(jobs: Sequence[Job], out: Artefact) -> int:
    """Copy shards that another artefact of the stage already holds, unless something in them went to quarantine.

    A shard's name covers everything that decides its content, so the copy equals a new computation. After one file of a
    source was fixed, only its shard is computed again.

    Returns:
        The number of shards copied.
    """
    needed = {job.shard for job in missing(jobs, out, SHARDS)}
    copied = 0
    for other in lake.list_folders(out.url.rpartition("/")[0]):
        if not needed or other == out.url:
            continue
        for url in lake.list_files(lake.join(other, SHARDS)):
            stem = _stem(url)
            if stem not in needed or not _is_flawless(other, stem):
                continue
            lake.write_bytes(ledger_url(out.url, stem), lake.read_bytes(ledger_url(other, stem)))
            lake.write_bytes(shard_url(out.url, stem), lake.read_bytes(url))
            needed.remove(stem)
            copied += 1
    return copied


def reopen(out: Artefact) -> int:
    """Remove the shards of an artefact in which something went to quarantine, so that the next run computes them again.

    Returns:
        The number of shards removed; if there are none, the artefact stays complete.
    """
    flawed = [
        stem
        for stem in (_stem(url) for url in lake.list_files(out.file(LEDGER)))
        if lake.exists(shard_url(out.url, stem)) and not _is_flawless(out.url, stem)
    ]
    if flawed:
        lake.remove(out.file(lake.DONE))  # first, so that a kill from here on leaves an incomplete artefact
    for stem in flawed:
        lake.remove(shard_url(out.url, stem))
    return len(flawed)


def _stem(url: str) -> str:
    return url.rpartition("/")[2].rpartition(".")[0]


def complete(
    work: Callable[[J], Done],
    jobs: Sequence[J],
    out: Artefact,
    kind: type[E],
    progress: Progress,
    *,
    marks: str = SHARDS,
    gpus: int = 0,
) -> list[E]:
    """Do the jobs whose file is not in `<out>/<marks>` yet, one Ray Data task each.

    Files that belong to no job of this run come from an interrupted run with other shard sizes. They would duplicate
    rows, so they and their entries are removed.

    Args:
        work: runs in a task; writes the ledger entry (`write_entry`) and then the mark.
        jobs: one per shard.
        out: the artefact to complete.
        kind: the record of a ledger entry.
        progress: counts what each task did.
        marks: the folder whose files mark shards as done.
        gpus: GPUs to reserve per task.

    Returns:
        The ledger entries, in the order of the jobs.

    Raises:
        MammoflowError: as `work` raised it; other errors arrive as Ray wraps them.
    """
    names = {job.shard for job in jobs}
    for folder in {marks, LEDGER}:
        for url in lake.list_files(out.file(folder)):
            if _stem(url) not in names:
                lake.remove(url)
    todo = missing(jobs, out, marks)
    total = sum(job.units for job in jobs)
    progress.start(total, total - sum(job.units for job in todo))
    for done in _run(work, todo, out.url, marks, gpus) if todo else ():
        progress.add(done.units, done.bad)
        for name, count in done.counts.items():
            telemetry.count(name, count)
        interrupts.check_terminated()
    return [read_entry(out.url, job.shard, kind) for job in jobs]


def _run(work: Callable[[J], Done], jobs: Sequence[J], out: str, marks: str, gpus: int) -> Iterator[Done]:
    """Run the jobs as Ray Data tasks; jobs and results cross as pickled bytes, since Ray Data's rows are Arrow's."""
    rows = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    results = rows.map(functools.partial(_once, work=work, out=out, marks=marks), num_gpus=gpus or None)
    # By default Ray Data holds a task back until it has seen another end, and workers idle 0.1-0.2 s in between.
    # Results are a few bytes, so there is no reason to wait.
    results.context.op_resource_reservation_enabled = False
    for row in results.iter_rows():
        result: Done | MammoflowError = pickle.loads(row["result"])  # noqa: S301 - written by our own task
        if isinstance(result, MammoflowError):
            raise result
        yield result


def _once(row: Row, work: Callable[[J], Done], out: str, marks: str) -> dict[str, bytes]:
    """Call `work`, and return our own errors as results: Ray Data would pass on only the text of an exception.

    Ray repeats a task whose worker was killed, even after it wrote the mark; nothing is left to do then.
    """
    job: J = pickle.loads(row["job"])  # noqa: S301 - written by `_run`
    result: Done | MammoflowError
    try:
        if lake.exists(shard_url(out, job.shard) if marks == SHARDS else ledger_url(out, job.shard)):
            result = Done(units=job.units)
        else:
            result = work(job)
    except MammoflowError as error:
        result = error
    return {"result": pickle.dumps(result)}


def write(url: str, rows: list[Row], pixels: NDArray[np.uint16], form: pa.Schema) -> None:
    """Write rows and their pixels (N, ., .) as one Parquet file, in row groups that readers can stream."""
    tensor = form.field("pixels").type
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), pixels.shape[1] * pixels.shape[2])
    plain = pa.Table.from_pylist(rows, schema=form.remove(form.get_field_index("pixels")))
    table = plain.append_column("pixels", pa.ExtensionArray.from_storage(tensor, flat))
    per_group = max(1, _ROW_GROUP_BYTES // (2 * pixels.shape[1] * pixels.shape[2]))
    lake.write_table(url, table, row_group_size=per_group, grey="pixels.list.element")


def read_images(url: str) -> Iterator[tuple[Row, NDArray[np.uint16]]]:
    """Yield the rows of a shard of images with their pixels (H, W), holding a few in memory at a time."""
    fs, path = stores.filesystem(url)
    with fs.open_input_file(path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=8, use_threads=False):
            pixels_NHW = batch.column("pixels").to_numpy_ndarray()
            rows = batch.drop_columns(["pixels"]).to_pylist()
            yield from zip(rows, pixels_NHW, strict=True)


def count_rows(url: str) -> int:
    """Return the number of rows of a Parquet file, from its footer."""
    fs, path = stores.filesystem(url)
    with fs.open_input_file(path) as stream:
        return int(pq.read_metadata(stream).num_rows)
