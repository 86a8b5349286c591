"""The lake: artefacts and the files they consist of, in a folder or at any pyarrow or fsspec URL. No Ray.

`files` reads and writes, `artefacts` names what stages make, `locks` lets one writer in at a time, `schema` describes
the tables, `stores` finds filesystems.
"""

from mammoflow.lake.artefacts import (
    DONE,
    Artefact,
    Lake,
    Record,
    check_versions,
    fingerprint,
    iter_shards,
    list_complete,
    list_siblings,
    removal,
    resolve_root,
    science,
)
from mammoflow.lake.files import (
    check_writable,
    exists,
    join,
    list_files,
    list_folders,
    parse_json,
    read_bytes,
    read_folder,
    read_json,
    read_table,
    remove,
    sweep,
    write_bytes,
    write_folder,
    write_json,
    write_table,
)

__all__ = [
    "DONE",
    "Artefact",
    "Lake",
    "Record",
    "check_versions",
    "check_writable",
    "exists",
    "fingerprint",
    "iter_shards",
    "join",
    "list_complete",
    "list_files",
    "list_folders",
    "list_siblings",
    "parse_json",
    "read_bytes",
    "read_folder",
    "read_json",
    "read_table",
    "removal",
    "remove",
    "resolve_root",
    "science",
    "sweep",
    "write_bytes",
    "write_folder",
    "write_json",
    "write_table",
]
