"""A table, built once: the console prints it, a page lays it out. No files.

A cell holds a figure, not its text; `formats.text` writes it, the same way in both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mammoflow.rendering.formats import Value

Kind = Literal["text", "name", "number", "paper", "path", "reason", "lines"]
"""How a column is laid out: plain text; a name that is not broken; numbers, to the right; the paper's numbers, tinted;
paths, broken anywhere; reasons, given room; text that holds line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column and its heading."""

    name: str
    kind: Kind = "number"

    @property
    def right(self) -> bool:
        """Tell whether its cells stand to the right."""
        return self.kind in ("number", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table."""

    cells: tuple[Value, ...]
    strong: bool = False
    tag: str = ""
    """Beside the first cell, e.g. member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    ours: bool = True
    """Its figures come from the data that the page is about."""


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[Value] | Row], *, ours: bool = True) -> Table:
    """Return a table of rows or of their cells."""
    made = tuple(row if isinstance(row, Row) else Row(cells=tuple(row)) for row in rows)
    return Table(title=title, columns=tuple(columns), rows=made, ours=ours)


def texts(*names: str) -> list[Column]:
    """Return columns of plain text."""
    return [Column(name=name, kind="text") for name in names]


def names(*names: str) -> list[Column]:
    """Return columns of names that are not broken."""
    return [Column(name=name, kind="name") for name in names]


def numbers(*names: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(name=name) for name in names]


def papers(*names: str) -> list[Column]:
    """Return columns of the paper's numbers."""
    return [Column(name=name, kind="paper") for name in names]
