"""What a lake holds, who uses what, and removing it safely. No Ray.

Removing an artefact holds its lock, takes its `done.json` first, then leaves `removing.json` until all else is gone:
what a kill leaves in the middle neither looks complete nor is gone on with, for the next build of it empties the folder
first.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow.fs as pafs

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import DONE, Artefact, Lake, locks, stores
from mammoflow.pipeline.stages import NEEDS, OF_SEVERAL, STAGES

_REMOVING = "removing.json"
_FOLDER = re.compile(r"(.+)-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One artefact as it lies in the lake."""

    artefact: Artefact
    state: str
    """complete | being built | incomplete | half removed | damaged."""
    files: int
    shards: int
    """Parquet files among them that hold its rows."""
    size: int
    """All files together [bytes]."""
    version: int | None = None
    """Of the schemas it was made by; None unless complete."""
    finished: str = ""
    """When, UTC, ISO 8601; empty where that was not recorded."""
    inputs: tuple[str, ...] = ()
    """The artefacts it was made from; empty where that was not recorded."""

    @property
    def key(self) -> str:
        """Return `<stage>/<name>-<fingerprint>`."""
        return self.artefact.key


def survey(root: Lake) -> list[Entry]:
    """Return every artefact of the lake, by stage and name; files of other programs are passed over.

    Raises:
        LakeError: the lake can't be listed.
    """
    return [_entry(artefact, files) for stage in (*STAGES, *OF_SEVERAL) for artefact, files in _artefacts(root, stage)]


def _artefacts(root: Lake, stage: str) -> list[tuple[Artefact, dict[str, int]]]:
    """Return the artefacts of one stage, each with its files' sizes [bytes] by their paths below it."""
    fs, path = stores.filesystem(lake.join(root.root, stage))
    try:
        infos = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise LakeError(f"can't list {root.root}/{stage}: {error}; check its permissions, or --lake") from error
    found: dict[str, dict[str, int]] = {}
    for info in infos:
        folder, _, below = info.path.removeprefix(f"{path.rstrip('/')}/").partition("/")
        if below or not info.is_file:
            found.setdefault(folder, {})
        if below and info.is_file:
            found[folder][below] = int(info.size or 0)
    named = ((_FOLDER.fullmatch(folder), files) for folder, files in sorted(found.items()))
    return [
        (Artefact(stage, match[1], match[2], lake.join(root.root, stage, match[0])), files)
        for match, files in named
        if match
    ]


def _entry(artefact: Artefact, files: dict[str, int]) -> Entry:
    shards = sum(path.startswith("shards/") and path.endswith(".parquet") for path in files)
    held = locks.FILE in files and _held(artefact)
    state = "being built" if held else "half removed" if _REMOVING in files else "incomplete"
    entry = Entry(artefact=artefact, state=state, files=len(files), shards=shards, size=sum(files.values()))
    if DONE not in files or held:
        return entry
    try:
        record = artefact.record()
    except LakeError:
        return replace(entry, state="damaged")
    return replace(
        entry,
        state="complete",
        version=record.schema,
        finished=record.finished,
        inputs=record.inputs,
    )


def _held(artefact: Artefact) -> bool:
    """Tell whether a job that may be alive holds its lock; a lock that can't be read may be one of a newer version."""
    try:
        holder = locks.holder(artefact.url)
    except LakeError:
        return True
    return holder is not None and not locks.gone(holder)


def find(entries: Sequence[Entry], name: str) -> Entry:
    """Return the artefact of a name: `<stage>/<name>-<fingerprint>`, either part of that alone, or the URL.

    Raises:
        LakeError: none or several are meant.
    """
    wanted = name.rstrip("/")
    found = [
        entry
        for entry in entries
        if wanted in (entry.key, entry.artefact.url, entry.key.partition("/")[2], entry.artefact.fingerprint)
    ]
    if len(found) != 1:
        several = f"{len(found)} artefacts are called" if found else "no artefact is called"
        known = ", ".join(entry.key for entry in found or entries) or "nothing"
        raise LakeError(f"{several} {name!r} in the lake; name one of: {known}")
    return found[0]


def users_of(entries: Sequence[Entry], keys: Iterable[str]) -> list[Entry]:
    """Return what was made from these artefacts, directly or through others; the last made of a chain first."""
    reached = set(keys)
    users = []
    for entry in entries:  # by stage: each comes after all that it could be made from
        if reached.intersection(entry.inputs) and entry.key not in reached:
            reached.add(entry.key)
            users.append(entry)
    return users[::-1]


def plan_removal(entries: Sequence[Entry], names: Sequence[str], *, with_users: bool) -> list[Entry]:
    """Return what goes, in the order in which it must go: users before what they were made from.

    Raises:
        LakeError: none is named, a name is unknown, others use what is named and `with_users` is not set, one of them
            is being built, or one is being built that may read them (what it reads is recorded once it is complete).
    """
    if not names:
        raise LakeError("no artefact is named; `python jobs/lake.py list` shows them")
    named = {find(entries, name).key for name in names}
    users = users_of(entries, named)
    if users and not with_users:
        listed = ", ".join(user.key for user in users)
        raise LakeError(f"{', '.join(sorted(named))}: used by {listed}; remove these too with --with-users")
    going = named.union(user.key for user in users)
    plan = [entry for entry in reversed(entries) if entry.key in going]
    stages = _stages_after({entry.artefact.stage for entry in plan if entry.state == "complete"})
    for entry in entries:
        if entry.state == "being built" and (entry.key in going or entry.artefact.stage in stages):
            what = "" if entry.key in going else " and may read what is to be removed"
            raise LakeError(
                f"{entry.key} is being built{what}; stop its job, or wait for it; if its machine died, "
                f"delete {entry.artefact.file(locks.FILE)}"
            )
    return plan


def _stages_after(stages: set[str]) -> set[str]:
    """Return the other stages that need any of these, directly or through others."""
    after = set(stages)
    for stage in STAGES:
        if after.intersection(NEEDS[stage]):
            after.add(stage)
    return after - stages


def remove(entry: Entry, say: Callable[[str], None]) -> None:
    """Remove one artefact, so that it looks complete at no time when it is not.

    Args:
        entry: as by `plan_removal`.
        say: told where a lock is taken over from a process that died.

    Raises:
        LakeError: it is being built, or a file can't be removed.
    """
    artefact = entry.artefact
    if _held(artefact):
        raise LakeError(f"{artefact.key} is being built by now; stop its job, or wait for it")
    try:
        with locks.hold(artefact.url, say):
            lake.remove(artefact.file(DONE))
            _empty(artefact)
        lake.remove(artefact.url)
    except OSError as error:
        raise LakeError(f"can't remove {artefact.url}: {error}; check permissions, then remove it again") from error


def finish_removal(artefact: Artefact) -> None:
    """Empty what an interrupted removal left, before it is built anew by who holds its lock."""
    if lake.exists(artefact.file(_REMOVING)):
        _empty(artefact)


def _empty(artefact: Artefact) -> None:
    """Remove all that it holds but its lock, under a mark that goes last."""
    lake.write_json(artefact.file(_REMOVING), {})
    fs, path = stores.filesystem(artefact.url)
    names = {info.base_name for info in fs.get_file_info(pafs.FileSelector(path))}
    for name in sorted(names - {_REMOVING, locks.FILE}, reverse=True):  # shards, which siblings copy, before ledger
        lake.remove(artefact.file(name))
    lake.remove(artefact.file(_REMOVING))
