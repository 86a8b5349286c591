"""What ingest could not use, fully or at all: one record per fault, one table per artefact. No Ray, no pixels."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

from mammoflow import lake
from mammoflow.lake import Artefact, schema

FILE = "quarantine.parquet"

Stage = Literal["decode", "mask", "patches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row of schema.QUARANTINE."""

    image_id: str
    path: str
    """Of the file at fault, or of what names it."""
    stage: Stage
    reason: str
    """Without the path."""
    fatal: bool
    """The image is left out; otherwise it is used, with a flaw."""


def left_out(image_id: str, path: str, reason: str, stage: Stage = "decode") -> Quarantined:
    """Return the row of an image that can't be used."""
    return Quarantined(image_id=image_id, path=path, stage=stage, reason=reason, fatal=True)


def flawed(image_id: str, path: str, reason: str, stage: Stage = "decode") -> Quarantined:
    """Return the row of an image that is used although something is wrong with it."""
    return Quarantined(image_id=image_id, path=path, stage=stage, reason=reason, fatal=False)


def write(out: Artefact, rows: Iterable[Quarantined]) -> None:
    """Write the quarantine table of an artefact, replacing an earlier one."""
    lake.write_table(out.file(FILE), pa.Table.from_pylist([asdict(row) for row in rows], schema=schema.QUARANTINE))
