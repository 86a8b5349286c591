"""The result of every release adapter, and their shared tools: file index, tables, lesions, labels. No Ray, no pixels.

A source is a local folder or URL; paths within it are relative, with forward slashes.
"""

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs

from mammoflow import lake
from mammoflow.data.quarantine import Quarantined
from mammoflow.errors import DecodeError, LakeError, SourceError
from mammoflow.lake import schema, stores
from mammoflow.lake.schema import BENIGN, MALIGNANT

T = TypeVar("T")

_READERS = 16  # threads: reading headers waits for the disk or the network
_LARGEST_SHEET = 64 * 2**20
"""Most bytes that an Excel file may unpack to; those of INbreast and CMMD need less than 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a release, by its metadata alone."""

    exams: pa.Table
    """schema.EXAMS, one row per image, `split` null, sorted by image_id."""
    problems: tuple[Quarantined, ...]
    """Images whose metadata can't be used."""
    counts: dict[str, int]
    """Counts for the user: rows per metadata file, patients, images, films."""
    files: "SourceFiles"
    """The source's files at the time of listing."""


def listing(
    files: "SourceFiles", exams: list[dict[str, Any]], problems: Iterable[Quarantined], counts: Mapping[str, int]
) -> Listing:
    """Return the listing of these exams; images and patients are added to `counts`.

    An exam is a row of `schema.EXAMS` without `split`; unknown values are None, `lesions` are rows of `lesion`.
    """
    patients = len({exam["patient_id"] for exam in exams})
    return Listing(
        exams=exams_table(exams),
        problems=tuple(problems),
        counts={**counts, "images": len(exams), "patients": patients},
        files=files,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release in the registry."""

    read: Callable[[str], Listing]
    """Lists the images of a source folder or URL."""
    marks: tuple[str, ...]
    """Files that identify the release; any one suffices."""
    roots: tuple[str, ...] = ("",)
    """Folders of the source that may hold them."""
    films: int | None = None
    """Films of the published release, for cost estimates; None only for users' own folders."""


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Every file of a source, listed once, so that adapters can match the metadata's paths."""

    root: str
    folders: dict[str, dict[str, int]]
    """Folder (the root is empty) -> file name -> size [bytes]; without empty folders."""

    def has(self, path: str) -> bool:
        """Tell whether a relative path is a file of the source."""
        folder, _, name = path.rpartition("/")
        return name in self.folders.get(folder, ())

    def inside(self, folder: str, suffix: str | tuple[str, ...]) -> list[str]:
        """Return the relative paths of the files directly in a folder that end in `suffix`, sorted."""
        return [f"{folder}/{name}" for name in sorted(self.folders.get(folder, ())) if name.endswith(suffix)]

    def sizes(self) -> dict[str, int]:
        """Return absolute path or URL -> size [bytes] of every file."""
        return {
            self.url(f"{folder}/{name}" if folder else name): size
            for folder, names in self.folders.items()
            for name, size in names.items()
        }

    def locate(self, path: str, roots: Sequence[str]) -> str | None:
        """Return a path below the first of these folders that holds it, or None."""
        return next((p for root in roots if self.has(p := str(PurePosixPath(root, path)))), None)

    def url(self, path: str) -> str:
        """Return the absolute path or URL of a relative path."""
        return lake.join(self.root, path)


def scan(source: str) -> SourceFiles:
    """List a source folder, all levels.

    Raises:
        SourceError: it is absent, not a folder, or can't be read.
    """
    fs, root = stores.filesystem(source)
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
    absolute = source if stores.is_url(source) else root
    return SourceFiles(absolute.rstrip("/"), folders)


def contents(exam: dict[str, Any], sizes: Mapping[str, int]) -> list[Any]:
    """Return everything that decides an exam's decoded image, except where its files lie: metadata and file sizes.

    Args:
        exam: a row of schema.EXAMS.
        sizes: as `SourceFiles.sizes`; missing files count as None.
    """
    lesions = [{name: value for name, value in lesion.items() if name != "mask_paths"} for lesion in exam["lesions"]]
    masks = [[sizes.get(path) for path in lesion["mask_paths"]] for lesion in exam["lesions"]]
    metadata = {name: value for name, value in exam.items() if name not in ("path", "lesions")}
    return [metadata, sizes.get(exam["path"]), lesions, masks]


def exams_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as schema.EXAMS, sorted by image_id, with the split still null."""
    ordered = sorted(rows, key=lambda row: str(row["image_id"]))
    return pa.Table.from_pylist([{**row, "split": None} for row in ordered], schema=schema.EXAMS)


def lesion(
    lesion_id: str,
    kind: str,
    pathology: str,
    *,
    masks: Iterable[str] = (),
    outline: Sequence[tuple[float, float]] = (),
    from_bottom: bool = False,
) -> dict[str, Any]:
    """Return one lesion of an exam, located by files that may be its mask, or by its outline.

    Args:
        lesion_id: unique in the release.
        kind: mass | calcification | other.
        pathology: malignant | benign.
        masks: absolute paths or URLs, most likely first.
        outline: vertices (row, column) in the file's pixels; may reach past the edges.
        from_bottom: rows of the outline are counted from the lower edge.
    """
    vertices = [[float(row), float(column)] for row, column in outline]
    return {
        "lesion_id": lesion_id,
        "kind": kind,
        "pathology": pathology,
        "mask_paths": list(masks),
        "outline": vertices,
        "from_bottom": from_bottom,
    }


def box(top: float, left: float, bottom: float, right: float) -> list[tuple[float, float]]:
    """Return the vertices (row, column) of a box."""
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


def read_csv(files: SourceFiles, path: str, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV of the source as rows with stripped values; absent ones are empty, `line` is the row's last line.

    Args:
        files: of the source.
        path: relative path of the CSV.
        columns: required columns.
        delimiter: between fields.

    Raises:
        SourceError: it can't be read, or lacks a column.
    """
    url = files.url(path)
    try:
        text = lake.read_bytes(url).decode("utf-8-sig")
    except (LakeError, UnicodeDecodeError) as error:
        raise SourceError(f"can't read {url}: {error}; fetch it again") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    _refuse_missing(url, header, columns)
    return [
        {name: (value or "").strip() for name, value in record.items() if isinstance(name, str)}
        | {"line": str(reader.line_num)}
        for record in reader
    ]


def read_sheet(files: SourceFiles, path: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the first sheet of an Excel file (xls, xlsx) like `read_csv`; whole numbers lose their decimal point.

    Raises:
        SourceError: it can't be read, lacks a column, or unpacks to too many bytes.
    """
    url = files.url(path)
    data = lake.read_bytes(url)
    _refuse_bomb(url, data)
    try:
        table = pd.read_excel(io.BytesIO(data), dtype=object)
    except Exception as error:  # readers of Excel files raise anything on damaged ones
        raise SourceError(f"can't read {url}: {error}; fetch it again") from error
    table.columns = [str(name).strip() for name in table.columns]
    _refuse_missing(url, list(table.columns), columns)
    return [
        {str(name): _cell(value) for name, value in record.items()} | {"line": str(number)}
        for number, record in enumerate(table.to_dict("records"), start=2)
    ]


def _refuse_bomb(url: str, data: bytes) -> None:
    """Refuse an xlsx archive whose parts claim too large a size; zip readers never unpack more than a part claims."""
    try:
        size = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
    except zipfile.BadZipFile:  # xls, or not a table at all, which the reader reports
        return
    if size > _LARGEST_SHEET:
        raise SourceError(
            f"{url} would unpack to {size / 2**20:.0f} MiB, but tables of at most {_LARGEST_SHEET / 2**20:.0f} are "
            "read; fetch it again"
        )


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _refuse_missing(url: str, header: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in header]:
        raise SourceError(f"{url} has no column {', '.join(missing)}; fetch it again, or fix its header")


def read_headers(urls: Sequence[str], read: Callable[[str], T]) -> dict[str, T | DecodeError]:
    """Return URL -> what `read` makes of a DICOM file's header, or its error; several are read at once."""

    def attempt(url: str) -> T | DecodeError:
        try:
            return read(url)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(urls, pool.map(attempt, urls), strict=True))


def refuse_escape(path: str, url: str, column: str, line: str) -> None:
    """Refuse a path of a CSV that leads out of the source, e.g. to other files of the machine.

    Raises:
        SourceError: it is empty, absolute, or contains `..`.
    """
    parts = path.replace("\\", "/").split("/")
    if not path or "" in parts or ".." in parts or ":" in parts[0]:
        raise SourceError(
            f"{url}, line {line}: column `{column}` is {path!r}, but must be a relative path inside the source, "
            "without `..`; fix the CSV"
        )


def birads_label(text: str) -> int | None:
    """Return the label of a BI-RADS assessment: 1 and 2 benign, 4 to 6 malignant, 3 None.

    Args:
        text: e.g. `4a` or `BI-RADS 4`.

    Raises:
        ValueError: not an assessment from 1 to 6.

    Source: paper, 2.2 (INbreast: 3 is left out, 4-6 positive).
    """
    grade = text.upper().removeprefix("BI-RADS").strip()[:1]
    if grade not in ("1", "2", "3", "4", "5", "6"):
        raise ValueError(f"BI-RADS is {text!r}, but must be 1 to 6, or 4a to 4c")
    return {"1": BENIGN, "2": BENIGN, "3": None}.get(grade, MALIGNANT)


def density_class(text: str) -> int | None:
    """Return BI-RADS density 1-4 from `1`-`4`, `A`-`D` or `DENSITY A`; None if unknown."""
    mark = text.upper().removeprefix("DENSITY").strip()
    return {"1": 1, "2": 2, "3": 3, "4": 4, "A": 1, "B": 2, "C": 3, "D": 4}.get(mark)


PATHOLOGY = {BENIGN: "benign", MALIGNANT: "malignant"}
"""A lesion's pathology, if only its image's label is known."""
