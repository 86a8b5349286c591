"""What every release adapter returns, and the file index that adapters resolve paths with. No Ray, no pixels.

A source is a local folder or URL; paths within it are relative, with forward slashes.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from mammoflow import lake, schema
from mammoflow.errors import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a release, by its metadata alone: no image file has been opened."""

    exams: pa.Table
    """schema.EXAMS, one row an image, `split` null, sorted by image_id."""
    problems: tuple[dict[str, Any], ...]
    """Rows of schema.QUARANTINE for metadata that can't be used."""
    counts: dict[str, int]
    """What was read: rows per metadata file, patients, images, films."""


def problem(image_id: str, path: str, stage: str, reason: str, *, fatal: bool) -> dict[str, Any]:
    """Return one row of schema.QUARANTINE; `fatal` when the image is left out."""
    return {"image_id": image_id, "path": path, "stage": stage, "reason": reason, "fatal": fatal}


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Every file of a source, listed once: adapters match the metadata's paths against it."""

    root: str
    folders: dict[str, dict[str, int]]
    """Names and sizes [bytes] of the files of each folder that holds any; the root is the empty string."""

    def has(self, path: str) -> bool:
        """Tell whether a relative path is a file of the source."""
        folder, _, name = path.rpartition("/")
        return name in self.folders.get(folder, ())

    def inside(self, folder: str, suffix: str) -> list[str]:
        """Return the relative paths of a folder's own files that end in `suffix`, sorted."""
        return [f"{folder}/{name}" for name in sorted(self.folders.get(folder, ())) if name.endswith(suffix)]

    def sizes(self) -> dict[str, int]:
        """Return absolute path or URL -> size [bytes] of every file."""
        return {
            self.url(f"{folder}/{name}" if folder else name): size
            for folder, names in self.folders.items()
            for name, size in names.items()
        }

    def url(self, path: str) -> str:
        """Return the absolute path or URL of a relative path."""
        return lake.join(self.root, path)


def scan(source: str) -> SourceFiles:
    """List a source folder, all levels.

    Raises:
        SourceError: it is not there, is no folder, or can't be read.
    """
    fs, root = lake.filesystem(source)
    try:
        if fs.get_file_info(root).type != pafs.FileType.Directory:
            raise SourceError(f"the source {source} is not a folder; give --source the folder of the release")
        infos = fs.get_file_info(pafs.FileSelector(root, recursive=True))
    except OSError as error:
        raise SourceError(f"can't list the source {source}: {error}; check its path and permissions") from error
    folders: dict[str, dict[str, int]] = {}
    for info in infos:
        if info.is_file:
            folder, _, name = info.path[len(root) :].strip("/").rpartition("/")
            folders.setdefault(folder, {})[name] = info.size
    absolute = source if "://" in source else root
    return SourceFiles(absolute.rstrip("/"), folders)


def exams_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as schema.EXAMS, sorted by image_id whatever their order, with the split still null."""
    ordered = sorted(rows, key=lambda row: str(row["image_id"]))
    return pa.Table.from_pylist([{**row, "split": None} for row in ordered], schema=schema.EXAMS)
