"""Survey a lake, find what uses an artefact, and remove artefacts safely. No Ray.

A removal holds the artefact's lock, deletes `done.json` first, and leaves `removing.json` until everything else is
gone. So an artefact whose removal was killed neither looks complete nor is resumed: its next build empties the folder.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow.fs as pafs

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import DONE, Artefact, Lake, locks, stores
from mammoflow.pipeline.stages import OF_SEVERAL, STAGES, dependent_on

_REMOVING = "removing.json"
_FOLDER = re.compile(r"(.+)-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One artefact of the lake."""

    artefact: Artefact
    state: str
    """complete | being built | incomplete | half removed | damaged."""
    files: int
    shards: int
    """Files of `shards/`, which hold its rows."""
    size: int
    """Total size [bytes]."""
    version: int | None = None
    """Version of the layout that it was made by; None unless complete."""
    finished: str = ""
    """When (UTC, ISO 8601); empty where not recorded."""
    inputs: tuple[str, ...] = ()
    """Keys of the artefacts it was made from; empty where not recorded."""

    @property
    def key(self) -> str:
        """Return `<stage>/<name>-<fingerprint>`."""
        return self.artefact.key


def survey(root: Lake) -> list[Entry]:
    """Return every artefact of the lake, by stage and name. Ignores files of other programs.

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
    folders: dict[str, dict[str, int]] = {}
    for info in infos:
        folder, _, below = info.path.removeprefix(f"{path.rstrip('/')}/").partition("/")
        if below or not info.is_file:
            folders.setdefault(folder, {})
        if below and info.is_file:
            folders[folder][below] = int(info.size or 0)
    named = ((_FOLDER.fullmatch(folder), files) for folder, files in sorted(folders.items()))
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
    """Tell whether a job that may be alive holds its lock. A lock that can't be read may be a newer version's."""
    try:
        holder = locks.holder(artefact.url)
    except LakeError:
        return True
    return holder is not None and not locks.gone(holder)


def find(entries: Sequence[Entry], name: str) -> Entry:
    """Return the artefact of a name: `<stage>/<name>-<fingerprint>`, its folder's name, its fingerprint, or its URL.

    Raises:
        LakeError: none or several match.
    """
    plain = name.rstrip("/")
    matches = [
        entry
        for entry in entries
        if plain in (entry.key, entry.artefact.url, entry.key.partition("/")[2], entry.artefact.fingerprint)
    ]
    if len(matches) != 1:
        several = f"{len(matches)} artefacts are called" if matches else "no artefact is called"
        choices = ", ".join(entry.key for entry in matches or entries) or "nothing"
        raise LakeError(f"{several} {name!r} in the lake; name one of: {choices}")
    return matches[0]


def users_of(entries: Sequence[Entry], keys: Iterable[str]) -> list[Entry]:
    """Return the artefacts made from these, directly or through others; the last of a chain first."""
    reached = set(keys)
    users = []
    for entry in entries:  # by stage: each comes after all that it could be made from
        if reached.intersection(entry.inputs) and entry.key not in reached:
            reached.add(entry.key)
            users.append(entry)
    return users[::-1]


def plan_removal(entries: Sequence[Entry], names: Sequence[str], *, with_users: bool) -> list[Entry]:
    """Return the artefacts to remove, in order: users before what they were made from.

    Raises:
        LakeError: no name is given or one is unknown; others use the artefacts and `with_users` is not set; one of them
            is being built, or an artefact is that may read them (its inputs are recorded once it is complete).
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
    stages = dependent_on({entry.artefact.stage for entry in plan if entry.state == "complete"})
    for entry in entries:
        if entry.state == "being built" and (entry.key in going or entry.artefact.stage in stages):
            what = "" if entry.key in going else " and may read the artefacts to be removed"
            raise LakeError(
                f"{entry.key} is being built{what}; stop its job, or wait for it; if its machine died, "
                f"delete {entry.artefact.file(locks.FILE)}"
            )
    return plan


def remove(entry: Entry, say: Callable[[str], None]) -> None:
    """Remove one artefact, which never looks complete when it is not.

    Args:
        entry: an entry of `plan_removal`.
        say: called with a line when a dead process's lock is taken over.

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
    """Complete an interrupted removal, before a build. The caller holds the lock."""
    if lake.exists(artefact.file(_REMOVING)):
        _empty(artefact)


def _empty(artefact: Artefact) -> None:
    """Remove all its files but the lock; a mark goes last."""
    lake.write_json(artefact.file(_REMOVING), {})
    fs, path = stores.filesystem(artefact.url)
    names = {info.base_name for info in fs.get_file_info(pafs.FileSelector(path))}
    for name in sorted(names - {_REMOVING, locks.FILE}, reverse=True):  # shards, which siblings copy, before the ledger
        lake.remove(artefact.file(name))
    lake.remove(artefact.file(_REMOVING))
