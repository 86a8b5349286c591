"""What every layout of a drawn release is, and what layouts share. Bytes only: no Ray, no files."""

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
    """What one film adds to a release."""

    files: Iterator[File]
    """Encoded while it is read, once: of a film of real size a file at a time is in memory."""
    rows: dict[str, list[Row]]
    """Rows of metadata by the path of their table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a drawn release lies on disk."""

    women: Callable[[Patient, int], Patient]
    """From a woman of the plan and the seed to her films in this release."""
    film_files: Callable[[Patient, Film, DrawnFilm, int], FilmFiles]
    """From a woman, one of her films, its pixels and the seed to files and rows."""
    metadata: Callable[[Rows], dict[str, bytes]]
    """From the rows of any number of women, in any order, to the release's tables by path."""
    digitised: bool
    """Films that were scanned, with letters, borders and dust; else digital mammograms."""


def csv_bytes(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], delimiter: str = ",") -> bytes:
    """Return rows as CSV with CRLF line ends, sorted, so that their order has no say; without rows, the header."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, delimiter=delimiter, lineterminator="\r\n", restval="")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: [str(row.get(column, "")) for column in columns]))
    return stream.getvalue().encode()
