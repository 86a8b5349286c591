"""What ingest could not use, of images and patches together, in the words that are shown. No Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from mammoflow import lake
from mammoflow.data.quarantine import FILE
from mammoflow.lake import Artefact
from mammoflow.rendering.tables import Column, Table, names, table, texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One row of schema.QUARANTINE as it is shown."""

    path: str
    """Of the file, below the source or the lake; the image's id where there is no path."""
    stage: str
    reason: str
    fatal: bool
    """The image is left out."""


def read(artefacts: Sequence[Artefact], source: str | None) -> list[Refused]:
    """Return what these artefacts could not use, images that are left out first.

    Args:
        artefacts: of the stages images and patches.
        source: folder or URL of the release, left out of paths; None for phantoms.

    Raises:
        LakeError: an artefact has no table of quarantine.
    """
    roots = [
        source.rstrip("/") if source else "",
        *(item.url.rpartition("/")[0].rpartition("/")[0] for item in artefacts),
    ]
    rows = []
    for artefact in artefacts:
        for row in lake.read_table(artefact.file(FILE)).to_pylist():
            path = _below(row["path"] or row["image_id"] or "", roots)
            rows.append(Refused(path=path, stage=row["stage"], reason=row["reason"], fatal=row["fatal"]))
    return sorted(rows, key=lambda row: not row.fatal)


def files(artefacts: Sequence[Artefact]) -> list[str]:
    """Return where the whole tables lie, of the artefacts that have any row."""
    return [url for item in artefacts if lake.read_table(url := item.file(FILE), ["stage"]).num_rows]


def shown(refused: Sequence[Refused], number: int) -> Table | None:
    """Return the first rows as a table, or None without any."""
    if not refused:
        return None
    rows = [(row.path, row.stage, "left out" if row.fatal else "used", row.reason) for row in refused[:number]]
    columns = [
        Column(name="path", kind="path"),
        *texts("stage"),
        *names("image"),
        Column(name="reason", kind="reason"),
    ]
    return table("Quarantine: files not fully usable", columns, rows)


def text(refused: Sequence[Refused], number: int) -> str:
    """Return how many there are, and how many of them `shown` leaves out."""
    fatal = sum(row.fatal for row in refused)
    used = len(refused) - fatal
    all_the_same = f"; {used:,} used all the same, most without a lesion's outline" if used else ""
    more = f" The first {number} are shown, {len(refused) - number:,} more are not." if len(refused) > number else ""
    return f"{fatal:,} left out{all_the_same}.{more} The whole tables: {FILE} in the folders of images and patches."


def _below(path: str, roots: Sequence[str]) -> str:
    return next((path[len(root) + 1 :] for root in roots if root and path.startswith(f"{root}/")), path)
