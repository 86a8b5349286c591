"""Drawing the phantom release into the lake, by Ray Data: the stage `phantoms`."""

import cv2

from mammoflow import lake
from mammoflow.config import Config, PhantomConfig
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.shards import Row, Say
from mammoflow.data.phantom import release
from mammoflow.lake import Artefact, schema


def draw_phantoms(config: Config, out: Artefact, say: Say = print) -> Row:
    """Draw the phantom release into `<out>/release`, in the layout of `config.phantoms`.

    Args:
        config: phantoms, seed and shard size; a shard is a quarter as many patients as images.
        out: the artefact; what it holds already is kept.
        say: takes progress lines.

    Returns:
        The stage's summary: {"patients", "files", "bytes"}.

    Raises:
        LakeError: the lake can't be written.
    """
    plan = release.plan(config.phantoms, config.seed)
    count = max(1, config.compute.images_per_shard // 4)  # a patient has up to 4 films
    jobs = [
        {
            "shard": f"patients-{lake.fingerprint(schema.TABLES, first, count)}",
            "first": first,
            "units": len(plan[first : first + count]),
        }
        for first in range(0, len(plan), count)
    ]
    common = {"plan": plan, "phantoms": config.phantoms, "seed": config.seed, "out": out.url}
    # Drawn files are overwritten by the same bytes, so the ledger entry, written last, marks a shard as done.
    ledger = shards.complete(_draw_shard, jobs, common, out, "ledger", shards.Progress("patients drawn", say))
    rows: dict[str, list[Row]] = {}
    for entry in ledger:
        for name, some in entry["rows"].items():
            rows.setdefault(name, []).extend(some)
    for name, data in release.metadata(rows, config.phantoms).items():
        lake.write_bytes(out.file("release", name), data)
    return {key: sum(entry[key] for entry in ledger) for key in ("patients", "files", "bytes")}


def _draw_shard(job: Row, plan: tuple[release.Patient, ...], phantoms: PhantomConfig, seed: int, out: str) -> Row:
    """Draw some patients; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    entry: Row = {"patients": job["units"], "files": 0, "bytes": 0, "rows": {}}
    for patient in plan[job["first"] : job["first"] + job["units"]]:
        for film in release.draw(patient, phantoms, seed):
            for path, data in film.files:
                lake.write_bytes(lake.join(out, "release", path), data)
                entry["files"] += 1
                entry["bytes"] += len(data)
            for name, some in film.rows.items():
                entry["rows"].setdefault(name, []).extend(some)
    lake.write_json(shards.ledger_url(out, job["shard"]), entry)
    return {"units": job["units"], "bad": 0}
