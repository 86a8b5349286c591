"""Find image files, skip those already scored, and cut the rest into shards. No Ray, no torch.

A folder of scores belongs to one version of one model and one set of outputs; it grows as files come.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from mammoflow import lake
from mammoflow.data.dicom import reader
from mammoflow.errors import ConfigError, SourceError
from mammoflow.lake import stores

SUFFIXES = (".dcm", ".dicom", ".png", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg")
"""Suffixes of image files. A file without a suffix counts if it is DICOM."""

IMAGES_PER_SHARD = 16
"""Images of a shard, which is decoded, scored and written as one; a kill loses the shards in progress."""

Heatmaps = Literal["none", "malignant", "all"]

_RUN, _SHARDS = "run.json", "shards"
_KEY = 20  # hex digits of a file's key: no collision is expected in ten million files


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Outputs of a folder of scores."""

    model: str
    """Version of the registered model, `<name>/<version>`."""
    heatmaps: Heatmaps
    """Images that get a heatmap: none, those called malignant, or all."""
    dicom: bool
    """Whether DICOM files get a Secondary Capture and a Structured Report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An image file."""

    path: str
    """Path or URL."""
    size: int
    """Bytes; -1 if it does not exist."""
    modified: int
    """Last change [ns since 1970]; 0 if unknown."""

    @property
    def key(self) -> str:
        """Return a name for its outputs that does not reveal the path."""
        return hashlib.sha256(self.path.encode()).hexdigest()[:_KEY]


def find(images: str | Sequence[str]) -> list[File]:
    """Return the image files below a folder, one file, or the files of a list, sorted and unique.

    Raises:
        SourceError: nothing is there, or no image.
    """
    if not isinstance(images, str):
        if not images:
            raise SourceError("the list of images is empty; name at least one file")
        return [_named(path) for path in sorted({*images})]
    fs, path = stores.filesystem(images)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise SourceError(f"images is {images}, but there is no such file or folder; give a folder or URL of images")
    if info.is_file:
        return [_file(images, info)]
    infos = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    images_here = [info for info in infos if info.is_file and _is_image(fs, info)]
    if not images_here:
        raise SourceError(
            f"{images} holds no file that ends in {', '.join(SUFFIXES)} and no DICOM file without a suffix; "
            "give the folder that holds the images"
        )
    root, inner = images.rstrip("/"), len(path.rstrip("/"))
    return sorted((_file(root + info.path[inner:], info) for info in images_here), key=lambda file: file.path)


def begin(out: str, outputs: Outputs) -> datetime:
    """Claim a folder for these outputs, or continue in one that holds such; return when it was claimed.

    Raises:
        ConfigError: it holds scores of another model or of other outputs.
        LakeError: it can't be written.
    """
    url = lake.join(out, _RUN)
    if not lake.exists(url):
        lake.write_json(url, asdict(outputs) | {"begun": datetime.now(UTC).isoformat(timespec="seconds")})
    held = lake.read_json(url)
    begun = datetime.fromisoformat(held.pop("begun"))
    if held != asdict(outputs):
        asked = ", ".join(f"{name} {value}" for name, value in asdict(outputs).items())
        there = ", ".join(f"{name} {value}" for name, value in held.items())
        raise ConfigError(f"{out} holds scores of {there}, not of {asked}; give --out another folder")
    return begun


def shards_of(files: Sequence[File]) -> list[dict[str, Any]]:
    """Cut files into shards: {"shard": name by content, "files": `File` as plain values}."""
    starts = range(0, len(files), IMAGES_PER_SHARD)
    pieces = [[asdict(file) for file in files[start : start + IMAGES_PER_SHARD]] for start in starts]
    return [{"shard": lake.fingerprint(piece), "files": piece} for piece in pieces]


def left(files: Sequence[File], held: pa.Table, *, again: bool) -> list[File]:
    """Return the files that are not scored yet or changed since.

    Args:
        files: as they are now.
        held: existing rows.
        again: whether failed files are scored again.
    """
    if again:
        held = held.filter(pc.equal(held["error"], ""))
    scored = set(zip(*(held[name].to_pylist() for name in ("path", "size", "modified")), strict=True))
    return [file for file in files if (file.path, file.size, file.modified) not in scored]


def shard_url(out: str, shard: str) -> str:
    """Return the URL of a shard's rows."""
    return lake.join(out, _SHARDS, f"{shard}.parquet")


def rows(out: str, schema: pa.Schema, columns: Sequence[str] = ()) -> pa.Table:
    """Return the rows of all finished shards, or some columns of them.

    A file that was scored again has several rows.
    """
    fields = pa.schema([schema.field(name) for name in columns]) if columns else schema
    urls = lake.list_files(lake.join(out, _SHARDS), ".parquet")
    return pa.concat_tables([fields.empty_table(), *(lake.read_table(url, fields.names).cast(fields) for url in urls)])


def newest(rows: pa.Table) -> pa.Table:
    """Return one row per file, sorted by path: that of its last change, preferably without an error."""
    good = pc.cast(pc.equal(rows["error"], ""), pa.int8())
    order = [("path", "ascending"), ("modified", "descending"), ("good", "descending")]
    rows = rows.append_column("good", good).sort_by(order).drop_columns("good")
    paths = rows["path"].to_pylist()
    first = [index for index, path in enumerate(paths) if index == 0 or path != paths[index - 1]]
    return rows.take(first)


def _named(path: str) -> File:
    fs, inner = stores.filesystem(path)
    info = fs.get_file_info(inner)
    return _file(path, info) if info.is_file else File(path=path, size=-1, modified=0)


def _file(path: str, info: pafs.FileInfo) -> File:
    return File(path=path, size=int(info.size), modified=int(info.mtime_ns or 0))


def _is_image(fs: pafs.FileSystem, info: pafs.FileInfo) -> bool:
    if info.base_name.startswith(".") or info.base_name == "DICOMDIR":
        return False
    if info.extension:
        return f".{info.extension.lower()}" in SUFFIXES
    with fs.open_input_file(info.path) as stream:
        return reader.is_dicom(stream.read(132))
