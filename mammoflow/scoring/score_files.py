"""Which files are to be scored, which are scored already, and in what pieces the rest is done. No Ray, no torch.

A folder of scores belongs to one version of one model and one kind of output; it may grow as files come.
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
"""Files of a folder that are taken for images; files without a suffix are too where they are DICOM."""

IMAGES_PER_SHARD = 16
"""Images that are decoded, scored and written at a time; a kill costs no more of them than are under way."""

Heatmaps = Literal["none", "malignant", "all"]

_RUN, _SHARDS = "run.json", "shards"
_KEY = 20  # characters of a file's key: of ten million files no two share one


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a folder of scores holds."""

    model: str
    """Version of the registered model, `<name>/<version>`."""
    heatmaps: Heatmaps
    """Images that get a heatmap: none, those called malignant, or all."""
    dicom: bool
    """Whether DICOM files get a Secondary Capture and a Structured Report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An image file as it was found."""

    path: str
    """Path or URL."""
    size: int
    """Bytes; -1 where it is not there."""
    modified: int
    """When it was written last [ns since 1970]; 0 where nobody knows."""

    @property
    def key(self) -> str:
        """Return a name for what is made of it that says nothing of the path."""
        return hashlib.sha256(self.path.encode()).hexdigest()[:_KEY]


def find(images: str | Sequence[str]) -> list[File]:
    """Return the image files of a folder and all below it, of one file, or of a list, sorted, each once.

    Raises:
        SourceError: nothing there, or no image among it.
    """
    if not isinstance(images, str):
        if not images:
            raise SourceError("the list of images is empty; name at least one file")
        return [_named(path) for path in sorted({*images})]
    fs, path = stores.filesystem(images)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise SourceError(f"{images} is not there; give a folder or URL of images")
    if info.is_file:
        return [_file(images, info)]
    infos = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    found = [info for info in infos if info.is_file and _is_image(fs, info)]
    if not found:
        raise SourceError(
            f"{images} holds no file that ends in {', '.join(SUFFIXES)} and no DICOM file without an ending"
        )
    root, inner = images.rstrip("/"), len(path.rstrip("/"))
    return sorted((_file(root + info.path[inner:], info) for info in found), key=lambda file: file.path)


def begin(out: str, outputs: Outputs) -> datetime:
    """Take a folder for these outputs, or go on in one that holds such; return when it was taken.

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
    """Cut files into pieces, each {"shard": its name, by what it holds, "files": of `File` as plain values}."""
    starts = range(0, len(files), IMAGES_PER_SHARD)
    pieces = [[asdict(file) for file in files[start : start + IMAGES_PER_SHARD]] for start in starts]
    return [{"shard": lake.fingerprint(piece), "files": piece} for piece in pieces]


def left(files: Sequence[File], held: pa.Table, *, again: bool) -> list[File]:
    """Return the files that are not scored yet, or that changed since.

    Args:
        files: as they are now.
        held: rows that are there.
        again: whether those that could not be used are tried again.
    """
    if again:
        held = held.filter(pc.equal(held["error"], ""))
    known = set(zip(*(held[name].to_pylist() for name in ("path", "size", "modified")), strict=True))
    return [file for file in files if (file.path, file.size, file.modified) not in known]


def shard_url(out: str, shard: str) -> str:
    """Return where a piece's rows stand."""
    return lake.join(out, _SHARDS, f"{shard}.parquet")


def rows(out: str, schema: pa.Schema, columns: Sequence[str] = ()) -> pa.Table:
    """Return the rows of all pieces that are done, or some columns of them.

    Of a file that was scored again, after it changed or could not be used, every row is returned.
    """
    kept = pa.schema([schema.field(name) for name in columns]) if columns else schema
    urls = lake.list_files(lake.join(out, _SHARDS), ".parquet")
    return pa.concat_tables([kept.empty_table(), *(lake.read_table(url, kept.names).cast(kept) for url in urls)])


def newest(rows: pa.Table) -> pa.Table:
    """Return one row a file, sorted by path: the one of its last change, and of those one without an error."""
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
