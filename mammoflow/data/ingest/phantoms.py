"""Draw the phantom release into the lake with Ray Data: the stage `phantoms`."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import cv2

from mammoflow import lake
from mammoflow.config import Config, PhantomConfig
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.shards import LEDGER, Done, Row, Say
from mammoflow.data.phantom import release
from mammoflow.facts.stages import PhantomsFacts
from mammoflow.lake import Artefact, schema


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawJob:
    """Some consecutive patients of the plan."""

    shard: str
    first: int
    """Index into the plan."""
    units: int
    """Patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnEntry:
    """The ledger entry of some patients."""

    patients: int
    files: int
    bytes: int
    """Size of all files together."""
    rows: dict[str, list[Row]]
    """Rows of the release's tables, by the table's path."""


def draw_phantoms(config: Config, out: Artefact, say: Say = print) -> PhantomsFacts:
    """Draw the phantom release into `<out>/release`, in the layout of `config.phantoms`.

    Args:
        config: phantoms, seed and shard size; a shard has a quarter as many patients as images.
        out: the artefact; shards it already holds are kept.
        say: takes progress lines.

    Raises:
        LakeError: the lake can't be written.
    """
    plan = release.plan(config.phantoms, config.seed)
    count = max(1, config.compute.images_per_shard // 4)  # a patient has up to 4 films
    jobs = [
        DrawJob(
            shard=f"patients-{lake.fingerprint(schema.TABLES, first, count)}",
            first=first,
            units=len(plan[first : first + count]),
        )
        for first in range(0, len(plan), count)
    ]
    work = partial(_draw_shard, plan=plan, phantoms=config.phantoms, seed=config.seed, out=out.url)
    # The ledger entry, written last, marks a shard as done: drawing twice overwrites files with the same bytes.
    ledger = shards.complete(work, jobs, out, DrawnEntry, shards.Progress("patients drawn", say), marks=LEDGER)
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for entry in ledger:
        for name, some in entry.rows.items():
            rows[name] += some
    for name, data in release.metadata(rows, config.phantoms).items():
        lake.write_bytes(out.file("release", name), data)
    return PhantomsFacts(
        patients=sum(entry.patients for entry in ledger),
        files=sum(entry.files for entry in ledger),
        bytes=sum(entry.bytes for entry in ledger),
    )


def _draw_shard(job: DrawJob, plan: tuple[release.Patient, ...], phantoms: PhantomConfig, seed: int, out: str) -> Done:
    """Draw some patients; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    files = size = 0
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for patient in plan[job.first : job.first + job.units]:
        for film in release.draw(patient, phantoms, seed):
            for path, data in film.files:
                lake.write_bytes(lake.join(out, "release", path), data)
                files += 1
                size += len(data)
            for name, some in film.rows.items():
                rows[name] += some
    shards.write_entry(out, job.shard, DrawnEntry(patients=job.units, files=files, bytes=size, rows=rows))
    return Done(units=job.units)
