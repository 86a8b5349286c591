"""Files of folders and of any pyarrow or fsspec URL: read, list, write whole or not at all. No Ray.

A local file gets a temporary name, then is renamed; on an object store it is one put.
"""

import functools
import json
import mimetypes
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mammoflow.errors import LakeError
from mammoflow.lake.stores import filesystem

_HALF = ".half"


def join(url: str, *parts: str) -> str:
    """Join path segments to a folder or URL with forward slashes."""
    return "/".join([url.rstrip("/"), *parts])


def exists(url: str) -> bool:
    """Tell whether a file or folder is there.

    Raises:
        LakeError: the filesystem does not answer.
    """
    fs, path = filesystem(url)
    try:
        return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)
    except OSError as error:
        raise LakeError(f"can't look for {url}: {error}; check credentials and network") from error


def write_bytes(url: str, data: bytes | pa.Buffer, *, private: bool = False) -> None:
    """Write a file so that it appears whole or not at all, creating its folder.

    Args:
        url: the file.
        data: its content.
        private: only its owner may read it; object stores ignore this.

    Raises:
        LakeError: no permission, or the disk is full.
    """
    fs, path = filesystem(url)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            _write_local(Path(path), data, 0o600 if private else 0o666)
        else:
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"  # browsers need it
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
    """Write and remove a small file beside `url`.

    Raises:
        LakeError: its folder can't be written.
    """
    probe = f"{url}-{uuid.uuid4().hex}"
    write_bytes(probe, b"mammoflow")
    remove(probe)


def read_bytes(url: str) -> bytes:
    """Read a whole file.

    Raises:
        LakeError: it does not exist or can't be read.
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
        LakeError: the folder is empty or does not exist.
    """
    files = list_files(url)
    if not files:
        raise LakeError(f"{url} holds no file; was its stage run on this lake?")
    return {file.rsplit("/", 1)[-1]: read_bytes(file) for file in files}


def write_folder(url: str, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each atomically, in the given order."""
    for name, data in files.items():
        write_bytes(join(url, name), data)


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text."""
    return json.loads(data)


def write_json(url: str, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(url: str) -> Any:
    """Read a JSON file."""
    return parse_json(read_bytes(url))


def write_table(url: str, table: pa.Table, *, row_group_size: int | None = None, grey: str | None = None) -> None:
    """Write a table as one Parquet file, atomically. Memory briefly holds it twice.

    Args:
        url: the file.
        table: its rows.
        row_group_size: maximum rows of a row group.
        grey: path of a column of noisy integers. Its high and low bytes are compressed separately, which is faster and
            smaller than a dictionary of its values.
    """
    sink = pa.BufferOutputStream()
    options = {"compression": "zstd", "compression_level": -1, "row_group_size": row_group_size}
    if grey:
        options["column_encoding"] = {grey: "BYTE_STREAM_SPLIT"}
        options["use_dictionary"] = [name for name in table.column_names if name != grey.partition(".")[0]]
    pq.write_table(table, sink, **options)
    write_bytes(url, sink.getvalue())


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file, or all Parquet files of a folder in name order, as one table.

    Raises:
        LakeError: there is no Parquet file.
    """
    fs, _ = filesystem(url)
    files = [url] if url.endswith(".parquet") else list_files(url, ".parquet")
    if not files:
        raise LakeError(f"{url} holds no Parquet file; was its stage run on this lake?")
    tables = [pq.read_table(filesystem(file)[1], filesystem=fs, columns=columns) for file in files]
    return pa.concat_tables(tables)


def list_folders(url: str) -> list[str]:
    """Return the folders directly in a folder, sorted; none if the folder does not exist."""
    return [join(url, info.base_name) for info in _list(url) if not info.is_file]


def list_files(url: str, suffix: str = "") -> list[str]:
    """Return the files directly in a folder that end in `suffix`, sorted; none if the folder does not exist."""
    names = (info.base_name for info in _list(url) if info.is_file)
    return [join(url, name) for name in names if name.endswith(suffix) and not name.startswith(".")]


def _list(url: str) -> list[pafs.FileInfo]:
    """Return the entries of a folder by name; none if it does not exist."""
    fs, path = filesystem(url)
    try:
        infos = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    except OSError as error:
        raise LakeError(f"can't list {url}: {error}; check its permissions") from error
    return sorted(infos, key=lambda info: str(info.base_name))


def sweep(url: str) -> None:
    """Delete the temporary files that killed writers left in a local folder; object stores keep none.

    The caller makes sure that nobody is writing there.
    """
    fs, path = filesystem(url)
    if isinstance(fs, pafs.LocalFileSystem):
        for half in Path(path).rglob(f".*{_HALF}"):
            half.unlink(missing_ok=True)


def remove(url: str) -> None:
    """Delete a file, or a folder and everything in it. Does nothing if it does not exist."""
    fs, path = filesystem(url)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        fs.delete_dir(path)
    elif kind == pafs.FileType.File:
        fs.delete_file(path)
