"""Where everything is kept: paths, fingerprints, atomic writes. Local folders or any pyarrow/fsspec URL. No Ray.

An artefact is a folder `<lake>/<stage>/<name>-<fingerprint>`; it is complete once it holds `done.json`, written
last. Files appear whole or not at all: a temporary name and a rename on disk, one put on object stores.
"""

import dataclasses
import functools
import hashlib
import json
import mimetypes
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mammoflow.errors import LakeError
from mammoflow.facts import codec
from mammoflow.lake import schema
from mammoflow.lake.stores import check_url, filesystem, is_url

T = TypeVar("T")

DONE = "done.json"
_HALF = ".half"
_RECORD = ("schema", "inputs", "finished")  # what `finish` adds to the stage's own figures


def science(value: Any) -> Any:
    """Reduce a config to JSON-ready plain values, leaving out every field marked with `config.how`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("science", True)]
        return {f.name: science(getattr(value, f.name)) for f in fields}
    if isinstance(value, list | tuple):
        return [science(item) for item in value]
    if isinstance(value, dict):
        return {str(key): science(item) for key, item in value.items()}
    return value


def fingerprint(*parts: Any) -> str:
    """Return 12 hex digits that name these values: configs by their science fields, other values by their JSON."""
    text = json.dumps([science(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


def join(url: str, *parts: str) -> str:
    """Join path segments to a folder or URL with forward slashes."""
    return "/".join([url.rstrip("/"), *parts])


def exists(url: str) -> bool:
    """Tell whether a file or folder is there.

    Raises:
        LakeError: that can't be told.
    """
    fs, path = filesystem(url)
    try:
        return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)
    except OSError as error:
        raise LakeError(f"can't look for {url}: {error}; check credentials and network") from error


def write_bytes(url: str, data: bytes | pa.Buffer, *, private: bool = False) -> None:
    """Write a file so that it appears whole or not at all, creating its folder.

    Args:
        url: of the file.
        data: all of it.
        private: whether its owner alone may read it; stores have rules of their own.

    Raises:
        LakeError: no permission, or the disk is full.
    """
    fs, path = filesystem(url)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            _write_local(Path(path), data, 0o600 if private else 0o666)
        else:
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"  # by which browsers show a page
            with fs.open_output_stream(path, metadata={"Content-Type": kind}) as stream:  # one put: whole or not at all
                stream.write(data)
    except OSError as error:
        remedy = "check permissions and free space, or give another --lake"
        raise LakeError(f"can't write {url}: {error}; {remedy}") from error


def _write_local(path: Path, data: bytes | pa.Buffer, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_HALF}")
    try:
        with open(temporary, "wb", opener=functools.partial(os.open, mode=mode)) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(url: str) -> None:
    """Write and remove a small file beside the one that is to be written.

    Raises:
        LakeError: it can't be written.
    """
    probe = f"{url}-{uuid.uuid4().hex}"
    write_bytes(probe, b"mammoflow")
    remove(probe)


def read_bytes(url: str) -> bytes:
    """Read a whole file.

    Raises:
        LakeError: it is not there or can't be read.
    """
    fs, path = filesystem(url)
    try:
        with fs.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise LakeError(f"can't read {url}: {error}; was its stage run on this lake?") from error


def read_folder(url: str) -> dict[str, bytes]:
    """Read every file of a folder, by name.

    Raises:
        LakeError: it holds none.
    """
    files = list_files(url)
    if not files:
        raise LakeError(f"{url} holds no file; was its stage run on this lake?")
    return {file.rsplit("/", 1)[-1]: read_bytes(file) for file in files}


def write_folder(url: str, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each atomically, in their order."""
    for name, data in files.items():
        write_bytes(join(url, name), data)


def format_json(value: Any) -> bytes:
    """Return a value as indented JSON text."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text."""
    return json.loads(data)


def write_json(url: str, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(url, format_json(value))


def read_json(url: str) -> Any:
    """Read a JSON file."""
    return parse_json(read_bytes(url))


def write_table(url: str, table: pa.Table, *, row_group_size: int | None = None, grey: str | None = None) -> None:
    """Write a table as one Parquet file, atomically; it is held in memory twice for a moment.

    Args:
        url: of the file.
        table: its rows.
        row_group_size: most rows of a row group.
        grey: path of a column of noisy whole numbers: its high and low bytes are compressed apart, which takes less
            time and room than a dictionary of its values.
    """
    sink = pa.BufferOutputStream()
    options = {"compression": "zstd", "compression_level": -1, "row_group_size": row_group_size}
    if grey:
        options["column_encoding"] = {grey: "BYTE_STREAM_SPLIT"}
        options["use_dictionary"] = [name for name in table.column_names if name != grey.partition(".")[0]]
    pq.write_table(table, sink, **options)
    write_bytes(url, sink.getvalue())


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file, or every Parquet file of a folder in the order of their names, as one table.

    Raises:
        LakeError: nothing there.
    """
    fs, _ = filesystem(url)
    files = [url] if url.endswith(".parquet") else list_files(url, ".parquet")
    if not files:
        raise LakeError(f"{url} holds no Parquet file; was its stage run on this lake?")
    tables = [pq.read_table(filesystem(file)[1], filesystem=fs, columns=columns) for file in files]
    return pa.concat_tables(tables)


def list_folders(url: str) -> list[str]:
    """Return the folders of a folder (not below), sorted; an absent folder has none."""
    return [join(url, info.base_name) for info in _list(url) if not info.is_file]


def list_files(url: str, suffix: str = "") -> list[str]:
    """Return the files of a folder (not below) that end in `suffix`, sorted; an absent folder has none."""
    names = (info.base_name for info in _list(url) if info.is_file)
    return [join(url, name) for name in names if name.endswith(suffix) and not name.startswith(".")]


def _list(url: str) -> list[pafs.FileInfo]:
    """Return what a folder holds, by name; an absent one holds nothing."""
    fs, path = filesystem(url)
    try:
        infos = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    except OSError as error:
        raise LakeError(f"can't list {url}: {error}; check its permissions") from error
    return sorted(infos, key=lambda info: str(info.base_name))


def sweep(url: str) -> None:
    """Delete what writers that were killed left in a local folder and below; stores keep no half files.

    Nobody may be writing there.
    """
    fs, path = filesystem(url)
    if isinstance(fs, pafs.LocalFileSystem):
        for half in Path(path).rglob(f".*{_HALF}"):
            half.unlink(missing_ok=True)


def remove(url: str) -> None:
    """Delete a file, or a folder and all it holds; an absent one is no error."""
    fs, path = filesystem(url)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        fs.delete_dir(path)
    elif kind == pafs.FileType.File:
        fs.delete_file(path)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A folder of the lake that one stage writes: `<lake>/<stage>/<name>-<fingerprint>`."""

    stage: str
    name: str
    fingerprint: str
    url: str

    @property
    def key(self) -> str:
        """Return its place in any lake: `<stage>/<name>-<fingerprint>`."""
        return f"{self.stage}/{self.name}-{self.fingerprint}"

    @property
    def done(self) -> bool:
        """Tell whether the stage finished it."""
        return exists(self.file(DONE))

    def file(self, *parts: str) -> str:
        """Return the URL of a file or folder in it."""
        return join(self.url, *parts)

    def finish(self, summary: Any, inputs: "Sequence[Artefact]" = ()) -> None:
        """Mark it complete; `summary` holds what the stage found, a record of `facts.stages` or a dict.

        Beside them stand the version of the schemas, the artefacts it was made from, and the time (UTC).
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"schema": schema.VERSION, "inputs": sorted(item.key for item in inputs), "finished": now}
        found = parse_json(codec.to_json(summary))
        write_json(self.file(DONE), {**found, **record})

    def record(self) -> dict[str, Any]:
        """Return all that `done.json` holds: what `finish` was given, and what it added.

        Raises:
            LakeError: it is not complete, or the file is damaged.
        """
        try:
            return dict(read_json(self.file(DONE)))
        except (ValueError, TypeError) as error:
            raise LakeError(
                f"{self.file(DONE)} is damaged ({error}); remove {self.key} with jobs/lake.py and run its job again"
            ) from error

    def input_of(self, stage: str) -> str:
        """Return the key of the artefact of a stage that this one was made from; empty where none is recorded.

        Raises:
            LakeError: it is not complete, or `done.json` is damaged.
        """
        return next((str(key) for key in self.record().get("inputs", ()) if key.startswith(f"{stage}/")), "")

    def facts(self, kind: type[T]) -> T:
        """Return what the stage found, as the record of its kind (`facts.stages`).

        Raises:
            LakeError: it is not complete, or `done.json` is damaged or holds another record.
        """
        return codec.from_json(read_bytes(self.file(DONE)), kind, self.file(DONE))

    def summary(self) -> dict[str, Any]:
        """Return what the stage said of it when it finished.

        Raises:
            LakeError: it is not complete, or `done.json` is damaged.
        """
        return {name: value for name, value in self.record().items() if name not in _RECORD}


@dataclass(frozen=True, slots=True)
class Lake:
    """The root of everything that mammoflow keeps."""

    root: str

    @property
    def is_local(self) -> bool:
        """Tell whether it is a folder of this machine (or one that all nodes mount)."""
        return not is_url(self.root)

    def artefact(self, stage: str, name: str, *inputs: Any) -> Artefact:
        """Return the artefact of a stage, named by its science fields and its inputs' fingerprints."""
        parts = [item.fingerprint if isinstance(item, Artefact) else item for item in inputs]
        mark = fingerprint(stage, *parts)
        return Artefact(stage, name, mark, join(self.root, stage, f"{name}-{mark}"))

    def at(self, key: str) -> Artefact:
        """Return the artefact of a key, `<stage>/<name>-<fingerprint>`, whether or not it is there."""
        stage, _, folder = key.partition("/")
        name, _, mark = folder.rpartition("-")
        return Artefact(stage, name, mark, join(self.root, key))

    def salt(self) -> str:
        """Return the secret that patients' hashes of this lake are made with: $MAMMOFLOW_SALT, else one of its own.

        Raises:
            LakeError: the lake can't be read or written.
        """
        given = os.environ.get("MAMMOFLOW_SALT")
        if given:
            return given
        url = join(self.root, "salt")
        if not exists(url):
            write_bytes(url, uuid.uuid4().hex.encode(), private=True)
        return read_bytes(url).decode()

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            LakeError: it can't be written.
        """
        check_writable(join(self.root, "probe"))


def list_complete(root: Lake, stage: str) -> list[Artefact]:
    """Return the complete artefacts of a stage, sorted by name."""
    known = (root.at(f"{stage}/{url.rpartition('/')[2]}") for url in list_folders(join(root.root, stage)))
    return [item for item in known if item.done]


def list_siblings(artefact: Artefact) -> list[Artefact]:
    """Return the complete artefacts of the same stage and lake but this one, sorted by name."""
    root = Lake(artefact.url.removesuffix(f"/{artefact.key}"))
    return [item for item in list_complete(root, artefact.stage) if item.url != artefact.url]


def iter_shards(artefact: Artefact, split: str = "") -> Iterator[str]:
    """Yield the URLs of an artefact's Parquet shards, of one split or of all, sorted by name."""
    for url in list_files(artefact.file("shards"), ".parquet"):
        if not split or url.rsplit("/", 1)[-1].startswith(f"{split}-"):
            yield url
