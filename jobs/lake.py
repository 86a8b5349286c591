"""Say what a lake holds and who uses what, and remove what is no longer wanted. Never builds.

    python jobs/lake.py list
    python jobs/lake.py show images/cbis_ddsm-1152x896-0123456789ab
    python jobs/lake.py remove 0123456789ab --with-users     # says what goes, then asks; --yes for scripts

Reads    the artefacts of every stage
Writes   nothing; `remove` deletes artefacts. Runs, models and registered versions in MLflow stay
Next     any job makes again what it needs and does not find
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from mammoflow import cli, console, lake
from mammoflow.errors import LakeError
from mammoflow.pipeline import care
from mammoflow.pipeline.care import Entry


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Say what is there: how large, complete or not, when and by which version of the layout it was finished."""

    lake: str | None = None
    """The lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Say all of one artefact: where it lies, what it was made from and what uses it."""

    name: Positional[str]
    """`<stage>/<name>-<fingerprint>`, or the fingerprint alone."""
    lake: str | None = None
    """The lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove artefacts, once it is said what goes and that is agreed to."""

    names: Positional[tuple[str, ...]]
    """Each `<stage>/<name>-<fingerprint>`, or the fingerprint alone."""
    with_users: bool = False
    """Remove what was made from them too; else that others use them is an error."""
    yes: bool = False
    """Do not ask."""
    lake: str | None = None
    """The lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do."""

    do: OmitSubcommandPrefixes[
        OmitArgPrefixes[
            Annotated[Overview, subcommand("list")]
            | Annotated[Show, subcommand("show")]
            | Annotated[Remove, subcommand("remove")]
        ]
    ]


def main() -> None:
    """List, show or remove."""
    wanted = cli.options(__doc__, Options).do
    root = lake.Lake(lake.resolve_root(wanted.lake))
    entries = care.survey(root)
    if isinstance(wanted, Overview):
        _list(root, entries)
    elif isinstance(wanted, Show):
        _show(entries, care.find(entries, wanted.name))
    else:
        plan = care.plan_removal(entries, wanted.names, with_users=wanted.with_users)
        _remove(root, plan, agreed=wanted.yes)


def _list(root: lake.Lake, entries: Sequence[Entry]) -> None:
    rows = [[e.key, _state(e), _size(e.size), e.files, "" if e.version is None else e.version] for e in entries]
    console.show(f"Lake {root.root}", ["artefact", "finished (UTC)", "size", "files", "schema"], rows)
    print(f"{len(entries)} artefact(s), {_size(sum(entry.size for entry in entries))}")
    left = [entry.artefact for entry in entries if entry.state in ("incomplete", "half removed", "damaged")]
    if left:
        print(f"{len(left)} not complete: the job that makes them goes on from there, or remove them:")
        print(f"  {lake.removal(left)}")


def _show(entries: Sequence[Entry], entry: Entry) -> None:
    known = {other.key for other in entries}
    direct = [user.key for user in entries if entry.key in user.inputs]
    further = [user.key for user in reversed(care.users_of(entries, [entry.key])) if user.key not in direct]
    version = "" if entry.version is None else f", by version {entry.version} of the layout"
    finished = f", finished {_state(entry)} UTC" if entry.finished else ""
    print(f"artefact   {entry.key}")
    print(f"folder     {entry.artefact.url}")
    print(f"state      {entry.state}{finished}{version}")
    print(f"size       {_size(entry.size)} in {entry.files:,} file(s), {entry.shards:,} of them shards")
    for key in entry.inputs:
        print(f"made from  {key}{'' if key in known else '  (no longer in the lake)'}")
    for key in direct:
        print(f"used by    {key}")
    for key in further:
        print(f"used by    {key}  (through others)")


def _remove(root: lake.Lake, plan: Sequence[Entry], *, agreed: bool) -> None:
    """Say what goes, ask where that is not agreed to, and remove it.

    Raises:
        LakeError: nobody can be asked.
    """
    print(f"lake {root.root}")
    for entry in plan:
        print(f"  remove  {entry.key}  {_size(entry.size)} in {entry.files:,} file(s), {entry.state}", flush=True)
    if not agreed and not sys.stdin.isatty():
        raise LakeError("nothing was removed: there is no terminal to ask at; add --yes to remove what is listed")
    question = f"remove {len(plan)} artefact(s), {_size(sum(entry.size for entry in plan))}, for good? [y/N] "
    if not agreed and input(question).strip().lower() not in ("y", "yes"):
        print("nothing was removed")
        return
    for entry in plan:
        care.remove(entry, print)
        print(f"  removed {entry.key}", flush=True)


def _state(entry: Entry) -> str:
    """Return when it was finished, to the minute; else its state."""
    return entry.finished[:16].replace("T", " ") or entry.state


def _size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


if __name__ == "__main__":
    cli.run(main)
