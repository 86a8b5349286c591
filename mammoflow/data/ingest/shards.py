"""Doing a stage's shards by Ray Data, each once: what is there is kept, what is missing is done. Knows no stage.

A shard is a unit of work and a Parquet file named by its content. Its ledger entry (JSON: what it holds, what could
not be used) is written before the file that marks it as done, and every file appears whole or not at all; so a run
that was killed at any point is continued by running it again.

Shape letters: N rows of a shard; H, W image rows, columns [px].
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from mammoflow import errors, lake
from mammoflow.cluster import interrupts, telemetry
from mammoflow.errors import MammoflowError
from mammoflow.lake import Artefact, schema, stores

Say = Callable[[str], None]
Row = dict[str, Any]

SHARDS, LEDGER = "shards", "ledger"
"""Folders of an artefact: Parquet files, and an entry (JSON) for each."""

_ROW_GROUP_BYTES = 16 * 2**20  # what a reader that streams a shard holds at a time
_SAY_EVERY = 5.0  # seconds between two progress lines


class Progress:
    """Says every few seconds how much of a stage is done, and how fast."""

    def __init__(self, what: str, say: Say, whose: str = "") -> None:
        """Name the units and what is done to them (`images decoded`), who takes the lines, and for whom it is."""
        self._what, self._say = f"{what} {whose}".strip(), say
        self._counter = what.replace(" ", "_")
        self._done = self._new = self._bad = self._total = 0
        self._started = self._said = time.monotonic()

    def start(self, total: int, done: int) -> None:
        """Begin with `done` of `total` there already."""
        self._total, self._done = total, done
        if done:
            self._say(f"  {done} of {total} {self._what} before")

    def add(self, units: int, bad: int) -> None:
        """Count what one task did, for a person and for `telemetry`."""
        telemetry.count(self._counter, units)
        telemetry.count("quarantined", bad, stage=self._counter)
        self._done, self._new, self._bad = self._done + units, self._new + units, self._bad + bad
        if time.monotonic() - self._said >= _SAY_EVERY or self._done == self._total:
            self._said = time.monotonic()
            rate = self._new / max(self._said - self._started, 1e-3)
            aside = f", {self._bad} set aside" if self._bad else ""
            self._say(f"  {self._done} of {self._total} {self._what}, {rate:.1f}/s{aside}")


def ledger_url(out: str, shard: str) -> str:
    """Return where the ledger entry of a shard stands in the artefact at `out`."""
    return lake.join(out, LEDGER, f"{shard}.json")


def shard_url(out: str, shard: str) -> str:
    """Return where the Parquet file of a shard stands in the artefact at `out`."""
    return lake.join(out, SHARDS, f"{shard}.parquet")


def absent(jobs: list[Row], out: Artefact, marks: str) -> list[Row]:
    """Return the jobs whose mark is not in `<out>/<marks>` yet."""
    present = {_stem(url) for url in lake.list_files(out.file(marks))}
    return [job for job in jobs if job["shard"] not in present]


def adopt(jobs: list[Row], out: Artefact) -> int:
    """Copy shards that another artefact of the same stage holds already, where nothing in them went to quarantine.

    A shard is named by all that decides its content, so the copy is what would be made again; a source of which one
    file was mended is done anew in one shard only.

    Returns:
        How many were copied.
    """
    wanted = {job["shard"] for job in absent(jobs, out, SHARDS)}
    copied = 0
    for other in lake.list_folders(out.url.rpartition("/")[0]):
        if not wanted or other == out.url:
            continue
        for url in lake.list_files(lake.join(other, SHARDS)):
            stem = _stem(url)
            if stem not in wanted or lake.read_json(ledger_url(other, stem))["quarantine"]:
                continue
            lake.write_bytes(ledger_url(out.url, stem), lake.read_bytes(ledger_url(other, stem)))
            lake.write_bytes(shard_url(out.url, stem), lake.read_bytes(url))
            wanted.remove(stem)
            copied += 1
    return copied


def reopen(out: Artefact) -> int:
    """Make an artefact incomplete again: its shards of which something went to quarantine are to be done anew.

    Returns:
        How many there are; with none, nothing is changed.
    """
    bad = [
        _stem(url)
        for url in lake.list_files(out.file(LEDGER))
        if lake.exists(shard_url(out.url, _stem(url))) and lake.read_json(url)["quarantine"]
    ]
    if bad:
        lake.remove(out.file(lake.DONE))  # first: a kill from here on leaves an artefact that is to be completed
    for stem in bad:
        lake.remove(shard_url(out.url, stem))
    return len(bad)


def _stem(url: str) -> str:
    return url.rpartition("/")[2].rpartition(".")[0]


def complete(
    work: Callable[..., Row],
    jobs: list[Row],
    common: Row,
    out: Artefact,
    marks: str,
    progress: Progress,
    *,
    gpus: int = 0,
) -> list[Row]:
    """Do the jobs whose file is not in `<out>/<marks>` yet, one Ray Data task each.

    Files there that no job of this run names come from a run with other shard sizes that was broken off: they would
    double rows, so they and their entries are removed.

    Args:
        work: called as `work(job, **common)` in a task; writes the ledger entry (`ledger_url`) and the mark, and
            returns {"units": done, "bad": set aside}, and what else it counts by the names of `telemetry`.
        jobs: {"shard": name, "units": how much work it is, ...}; small values only.
        common: what all jobs share; sent once.
        out: the artefact that is being written.
        marks: the folder of it whose files mark shards as done.
        progress: told of each job.
        gpus: that each task asks for.

    Returns:
        The ledger entries of all jobs, in the order of the jobs.

    Raises:
        MammoflowError: what `work` raised; any other error comes as Ray wraps it.
    """
    wanted = {job["shard"] for job in jobs}
    for folder in {marks, LEDGER}:
        for url in lake.list_files(out.file(folder)):
            if _stem(url) not in wanted:
                lake.remove(url)
    missing = absent(jobs, out, marks)
    total = sum(job["units"] for job in jobs)
    progress.start(total, total - sum(job["units"] for job in missing))
    if missing:
        dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
        task = functools.partial(_once, work=work, common=common, out=out.url, marks=marks)
        tasks = dataset.map(task, num_gpus=gpus or None)
        # Else Ray Data sends a task only when it has seen another end, and a worker idles .1-.2 s after each; results
        # are a few bytes, so there is nothing that it would have to hold back.
        tasks.context.op_resource_reservation_enabled = False
        for row in tasks.iter_rows():
            if row["error"]:
                raise getattr(errors, row["error"])(row["reason"])
            progress.add(row["units"], row["bad"])
            for name in telemetry.METRICS.keys() & row.keys():
                telemetry.count(name, row[name] or 0)
            interrupts.check_terminated()
    return [lake.read_json(ledger_url(out.url, job["shard"])) for job in jobs]


def _once(job: Row, work: Callable[..., Row], common: Row, out: str, marks: str) -> Row:
    """Call `work`; an error of ours comes back as a row, since Ray Data passes on only the text of exceptions.

    A task whose worker was killed after the mark was written is run again by Ray: then nothing is left to do.
    """
    try:
        if lake.exists(shard_url(out, job["shard"]) if marks == SHARDS else ledger_url(out, job["shard"])):
            return {"units": job["units"], "bad": 0, "error": None, "reason": None}
        return {**work(job, **common), "error": None, "reason": None}
    except MammoflowError as error:
        return {"units": 0, "bad": 0, "error": type(error).__name__, "reason": str(error)}


def write(url: str, rows: list[Row], pixels: NDArray[np.uint16], form: pa.Schema) -> None:
    """Write rows and their pixels (N, ., .) as one Parquet file, in row groups that a reader can stream."""
    tensor = form.field("pixels").type
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), pixels.shape[1] * pixels.shape[2])
    plain = pa.Table.from_pylist(rows, schema=form.remove(form.get_field_index("pixels")))
    table = plain.append_column("pixels", pa.ExtensionArray.from_storage(tensor, flat))
    per_group = max(1, _ROW_GROUP_BYTES // (2 * pixels.shape[1] * pixels.shape[2]))
    lake.write_table(url, table, row_group_size=per_group, grey="pixels.list.element")


def read_images(url: str) -> Iterator[tuple[Row, NDArray[np.uint16]]]:
    """Yield the rows of a shard of images and their pixels (H, W), a few in memory at a time."""
    fs, path = stores.filesystem(url)
    with fs.open_input_file(path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=8, use_threads=False):
            pixels_NHW = batch.column("pixels").to_numpy_ndarray()
            rows = batch.drop_columns(["pixels"]).to_pylist()
            yield from zip(rows, pixels_NHW, strict=True)


def count_rows(url: str) -> int:
    """Return how many rows a Parquet file holds, from its footer."""
    fs, path = stores.filesystem(url)
    with fs.open_input_file(path) as stream:
        return int(pq.read_metadata(stream).num_rows)


def write_quarantine(out: Artefact, rows: list[Row]) -> None:
    """Write what could not be used, rows of schema.QUARANTINE, as the artefact's table."""
    lake.write_table(out.file("quarantine.parquet"), pa.Table.from_pylist(rows, schema=schema.QUARANTINE))
