"""The interface of a drawn release's layout, and tools that layouts share. Bytes only: no Ray, no files."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammoflow.data.phantom.cases import Film, Patient
from mammoflow.data.phantom.film import DrawnFilm

Row = dict[str, Any]
Rows = Mapping[str, Iterable[Mapping[str, Any]]]
"""Rows of metadata by the path of their table within the release."""
File = tuple[str, bytes]
"""Path within the release, and contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFiles:
    """The files and metadata rows of one film."""

    files: Iterator[File]
    """Encoded lazily, so that only one file is in memory at a time."""
    rows: dict[str, list[Row]]
    """Rows of metadata by the path of their table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a drawn release is laid out on disk."""

    examine: Callable[[Patient, int], Patient]
    """(planned patient, seed) -> the patient with the films this release takes."""
    film_files: Callable[[Patient, Film, DrawnFilm, int], FilmFiles]
    """(patient, film, its pixels, seed) -> files and rows."""
    metadata: Callable[[Rows], dict[str, bytes]]
    """Rows of any patients, in any order -> the release's tables by path."""
    digitised: bool
    """Scanned films, with letters, borders and dust; otherwise digital mammograms."""
    films_per_patient: float
    """Average, for cost estimates."""


def csv_bytes(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], delimiter: str = ",") -> bytes:
    """Return rows as CSV, sorted so that the input order does not matter, with a header and CRLF line ends."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, delimiter=delimiter, lineterminator="\r\n", restval="")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: [str(row.get(column, "")) for column in columns]))
    return stream.getvalue().encode()
