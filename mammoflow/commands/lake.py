"""List a lake's artefacts and their users, and remove artefacts. Never builds.

    mammoflow lake list
    mammoflow lake show images/cbis_ddsm-1152x896-0123456789ab
    mammoflow lake remove 0123456789ab --with-users     # lists what goes, then asks; --yes for scripts

Reads    the artefacts of every stage
Writes   nothing; `remove` deletes artefacts. Runs, models and registered versions in MLflow stay
Next     any command rebuilds missing inputs
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
    """List artefacts: size, state, time of completion, layout version."""

    lake: str | None = None
    """Folder or URL; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Show one artefact: path, inputs and users."""

    name: Positional[str]
    """`<stage>/<name>-<fingerprint>`, or the fingerprint alone."""
    lake: str | None = None
    """Folder or URL; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove artefacts after listing them and asking."""

    names: Positional[tuple[str, ...]]
    """Each `<stage>/<name>-<fingerprint>`, or the fingerprint alone."""
    with_users: bool = False
    """Also remove artefacts made from them; without this flag, users are an error."""
    yes: bool = False
    """Remove without asking."""
    lake: str | None = None
    """Folder or URL; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The action."""

    do: OmitSubcommandPrefixes[
        OmitArgPrefixes[
            Annotated[Overview, subcommand("list")]
            | Annotated[Show, subcommand("show")]
            | Annotated[Remove, subcommand("remove")]
        ]
    ]


def main() -> None:
    """List, show or remove."""
    action = cli.options(__doc__, Options).do
    root = lake.Lake(lake.resolve_root(action.lake))
    entries = care.survey(root)
    if isinstance(action, Overview):
        _list(root, entries)
    elif isinstance(action, Show):
        _show(entries, care.find(entries, action.name))
    else:
        plan = care.plan_removal(entries, action.names, with_users=action.with_users)
        _remove(root, plan, agreed=action.yes)


def _list(root: lake.Lake, entries: Sequence[Entry]) -> None:
    rows = [[e.key, _state(e), _size(e.size), e.files, "" if e.version is None else e.version] for e in entries]
    console.show(f"Lake {root.root}", ["artefact", "finished (UTC)", "size", "files", "schema"], rows)
    print(f"{len(entries)} artefact(s), {_size(sum(entry.size for entry in entries))}")
    incomplete = [entry.artefact for entry in entries if entry.state in ("incomplete", "half removed", "damaged")]
    if incomplete:
        print(f"{len(incomplete)} not complete; run the job that makes them again to continue, or remove them:")
        print(f"  {lake.removal(incomplete)}")


def _show(entries: Sequence[Entry], entry: Entry) -> None:
    keys = {other.key for other in entries}
    direct = [user.key for user in entries if entry.key in user.inputs]
    further = [user.key for user in reversed(care.users_of(entries, [entry.key])) if user.key not in direct]
    version = "" if entry.version is None else f", layout version {entry.version}"
    finished = f", finished {_state(entry)} UTC" if entry.finished else ""
    print(f"artefact   {entry.key}")
    print(f"folder     {entry.artefact.url}")
    print(f"state      {entry.state}{finished}{version}")
    print(f"size       {_size(entry.size)} in {entry.files:,} file(s), {entry.shards:,} of them shards")
    for key in entry.inputs:
        print(f"made from  {key}{'' if key in keys else '  (no longer in the lake)'}")
    for key in direct:
        print(f"used by    {key}")
    for key in further:
        print(f"used by    {key}  (through others)")


def _remove(root: lake.Lake, plan: Sequence[Entry], *, agreed: bool) -> None:
    """List what goes, ask unless already agreed, and remove it.

    Raises:
        LakeError: there is no terminal to ask on.
    """
    print(f"lake {root.root}")
    for entry in plan:
        print(f"  remove  {entry.key}  {_size(entry.size)} in {entry.files:,} file(s), {entry.state}", flush=True)
    if not agreed and not sys.stdin.isatty():
        raise LakeError("nothing was removed: there is no terminal to ask on; add --yes to remove the artefacts listed")
    question = f"remove {len(plan)} artefact(s), {_size(sum(entry.size for entry in plan))}, for good? [y/N] "
    if not agreed and input(question).strip().lower() not in ("y", "yes"):
        print("nothing was removed")
        return
    for entry in plan:
        care.remove(entry, print)
        print(f"  removed {entry.key}", flush=True)


def _state(entry: Entry) -> str:
    """Return the time of completion to the minute, else the state."""
    return entry.finished[:16].replace("T", " ") or entry.state


def _size(count: float) -> str:
    """Return a human-readable number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
