"""Artefacts: what one stage writes into the lake, named by fingerprint and complete once `done.json` is there. No Ray.

An artefact is a folder `<lake>/<stage>/<name>-<fingerprint>`. The fingerprint covers the stage's science settings and
the fingerprints of its inputs. Settings passed by keyword are recorded too, so that a plan can tell what changed.
"""

import dataclasses
import hashlib
import json
import os
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mammoflow.errors import LakeError
from mammoflow.facts import codec
from mammoflow.lake import files, schema
from mammoflow.lake.stores import check_url, is_url

T = TypeVar("T")

DONE = "done.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The content of `done.json`, written last, when an artefact is complete."""

    schema: int = 1
    """Version of the lake's layout (`lake.schema.VERSION`). The key is as old as the layout's first versions, so that
    an older mammoflow refuses an artefact of a newer one."""
    inputs: tuple[str, ...] = ()
    """Keys of the artefacts that it was made from; empty before version 2."""
    finished: str = ""
    """When (UTC, ISO 8601); empty before version 2."""
    seconds: float | None = None
    """Time the stage took [s]; None where that was not measured."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Name -> the science settings in its fingerprint; empty before version 3."""
    facts: Any = None
    """The stage's facts (`facts.stages`), as plain values."""


_FLAT = tuple(item.name for item in dataclasses.fields(Record) if item.name not in ("settings", "facts"))
"""Keys that stood beside the facts before version 3."""


def science(value: Any) -> Any:
    """Reduce a config to plain JSON values, without the fields marked with `config.how`."""
    return _plain(value, lambda item, _: item.name)


def fingerprint(*parts: Any) -> str:
    """Return 12 hex digits that identify these values: configs by their science fields, others by their JSON.

    Fields that were added or renamed since artefacts got names are declared with `config.added` and `config.renamed`:
    the first count only where they change something, the second under their first name. So neither renames artefacts.
    """
    plain = _plain(parts, lambda item, entry: _if_set(item, entry) and item.metadata.get("was", item.name))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _if_set(item: dataclasses.Field[Any], value: Any) -> str | None:
    """Return a field's name, or None where its value is the one that stands for its absence."""
    return None if "absent" in item.metadata and item.metadata["absent"] == value else item.name


def _plain(value: Any, name: Callable[[dataclasses.Field[Any], Any], str | None]) -> Any:
    """Return plain JSON values; `name` gives the key of a science field with some value, or None to leave it out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (item for item in dataclasses.fields(value) if item.metadata.get("science", True))
        named = ((name(item, getattr(value, item.name)), getattr(value, item.name)) for item in fields)
        return {key: _plain(entry, name) for key, entry in named if key}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, name) for key, item in value.items()}
    return value


def resolve_root(lake: str | None) -> str:
    """Return the lake's absolute folder or URL: the flag, else $MAMMOFLOW_LAKE, else ~/mammoflow/lake.

    Raises:
        LakeError: the folder lies inside Ray's runtime directory, which Ray deletes, or the URL holds credentials.
    """
    root = lake or os.environ.get("MAMMOFLOW_LAKE") or str(Path.home() / "mammoflow" / "lake")
    if is_url(root):
        check_url(root)
        return root.rstrip("/")
    path = Path(root).expanduser().resolve()
    if "runtime_resources" in path.parts:
        raise LakeError(f"the lake {path} lies in Ray's runtime directory, which Ray deletes; give an absolute --lake")
    return str(path)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A folder of the lake that one stage writes: `<lake>/<stage>/<name>-<fingerprint>`."""

    stage: str
    name: str
    fingerprint: str
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Name -> the science settings in its fingerprint, to be recorded; empty where only its key is known."""

    @property
    def key(self) -> str:
        """Return its place in any lake: `<stage>/<name>-<fingerprint>`."""
        return f"{self.stage}/{self.name}-{self.fingerprint}"

    @property
    def lake(self) -> "Lake":
        """Return the lake that it lies in."""
        return Lake(self.url.removesuffix(f"/{self.key}"))

    @property
    def done(self) -> bool:
        """Tell whether it is complete."""
        return files.exists(self.file(DONE))

    def file(self, *parts: str) -> str:
        """Return the URL of a file or folder in it."""
        return files.join(self.url, *parts)

    def finish(self, facts: Any, inputs: "Sequence[Artefact]" = (), *, seconds: float | None = None) -> None:
        """Mark it complete.

        Args:
            facts: the stage's facts, a record of `facts.stages`.
            inputs: the artefacts that it was made from.
            seconds: time the stage took [s].
        """
        record = Record(
            schema=schema.VERSION,
            inputs=tuple(sorted(item.key for item in inputs)),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=seconds,
            settings=dict(self.settings),
            facts=facts,
        )
        files.write_bytes(self.file(DONE), codec.to_json(record))

    def record(self) -> Record:
        """Return the content of `done.json`, in this version's form or an earlier one's.

        Raises:
            LakeError: the artefact is not complete, or the file is damaged.
        """
        url = self.file(DONE)
        try:
            plain = dict(files.read_json(url))
        except (ValueError, TypeError) as error:
            raise LakeError(
                f"{url} is damaged ({error}); remove {self.key} with jobs/lake.py and run its job again"
            ) from error
        if "facts" not in plain:  # before version 3 the facts stood beside these keys
            plain = {key: plain.pop(key) for key in _FLAT if key in plain} | {"facts": plain}
        return codec.from_plain(plain, Record, url)

    def input_of(self, stage: str) -> str:
        """Return the key of the artefact of a stage that this one was made from; empty where none is recorded.

        Raises:
            LakeError: it is not complete, or `done.json` is damaged.
        """
        return next((key for key in self.record().inputs if key.startswith(f"{stage}/")), "")

    def facts(self, kind: type[T]) -> T:
        """Return the stage's facts as a record of `facts.stages`.

        Raises:
            LakeError: the artefact is not complete, `done.json` is damaged or holds other facts, or another version of
                the layout made it.
        """
        record = self.record()
        _check_versions([(self, record.schema)])
        return codec.from_plain(record.facts, kind, self.file(DONE))


@dataclass(frozen=True, slots=True)
class Lake:
    """The root of a lake."""

    root: str

    @property
    def is_local(self) -> bool:
        """Tell whether it is a folder of this machine, which other nodes may mount."""
        return not is_url(self.root)

    def artefact(self, stage: str, name: str, *inputs: Any, **settings: Any) -> Artefact:
        """Return the artefact of a stage, named by its inputs' fingerprints and its science settings.

        Args:
            stage: folder of the lake.
            name: first part of its name, for people.
            inputs: artefacts, and values that are not recorded.
            settings: configs and values that are recorded. Their values and order enter the fingerprint, not their
                names.
        """
        parts = [item.fingerprint if isinstance(item, Artefact) else item for item in (*inputs, *settings.values())]
        mark = fingerprint(stage, *parts)
        url = files.join(self.root, stage, f"{name}-{mark}")
        recorded = {key: value for key, value in settings.items() if not isinstance(value, Artefact)}
        return Artefact(stage, name, mark, url, _plain(recorded, _if_set))

    def at(self, key: str) -> Artefact:
        """Return the artefact of a key `<stage>/<name>-<fingerprint>`, whether or not it exists."""
        stage, _, folder = key.partition("/")
        name, _, mark = folder.rpartition("-")
        return Artefact(stage, name, mark, files.join(self.root, key))

    def salt(self) -> str:
        """Return the secret for the hashes of this lake's patient ids: $MAMMOFLOW_SALT, else the lake's own.

        Raises:
            LakeError: the lake can't be read or written.
        """
        given = os.environ.get("MAMMOFLOW_SALT")
        if given:
            return given
        url = files.join(self.root, "salt")
        if not files.exists(url):
            files.write_bytes(url, uuid.uuid4().hex.encode(), private=True)
        return files.read_bytes(url).decode()

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            LakeError: the lake can't be written.
        """
        files.check_writable(files.join(self.root, "probe"))


def list_complete(root: Lake, stage: str) -> list[Artefact]:
    """Return the complete artefacts of a stage, sorted by name."""
    folders = files.list_folders(files.join(root.root, stage))
    artefacts = (root.at(f"{stage}/{url.rpartition('/')[2]}") for url in folders)
    return [item for item in artefacts if item.done]


def list_siblings(artefact: Artefact) -> list[Artefact]:
    """Return the other complete artefacts of the same stage and lake, sorted by name."""
    return [item for item in list_complete(artefact.lake, artefact.stage) if item.url != artefact.url]


def iter_shards(artefact: Artefact, split: str = "") -> Iterator[str]:
    """Yield the URLs of an artefact's Parquet shards, of one split or of all, sorted by name."""
    for url in files.list_files(artefact.file("shards"), ".parquet"):
        if not split or url.rsplit("/", 1)[-1].startswith(f"{split}-"):
            yield url


def check_versions(artefacts: Iterable[Artefact]) -> None:
    """Check that this mammoflow reads the layout of these artefacts, those that are complete.

    Raises:
        LakeError: it does not; names the artefacts, their versions, its own, and the command that removes them.
    """
    _check_versions([(item, item.record().schema) for item in artefacts if item.done])


def _check_versions(versions: Sequence[tuple[Artefact, int]]) -> None:
    other = [
        (item, version) for item, version in versions if not schema.oldest(item.stage) <= version <= schema.VERSION
    ]
    if other:
        listed = ", ".join(f"{item.key} (version {version})" for item, version in other)
        newer = "use a newer mammoflow, or " if any(version > schema.VERSION for _, version in other) else ""
        reads = ", ".join(
            f"{' or '.join(map(str, range(schema.oldest(stage), schema.VERSION + 1)))} of {stage}"
            for stage in dict.fromkeys(item.stage for item, _ in other)
        )
        raise LakeError(
            f"{listed}: made by another version of the lake's layout, this mammoflow reads version {reads}; "
            f"{newer}remove them ({removal([item for item, _ in other])}), or use another --lake"
        )


def removal(artefacts: Sequence[Artefact]) -> str:
    """Return the command that removes artefacts of one lake and everything made from them."""
    keys = [item.key for item in artefacts]
    return shlex.join(["python", "jobs/lake.py", "remove", *keys, "--with-users", "--lake", artefacts[0].lake.root])
