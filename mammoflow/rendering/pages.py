"""What the HTML pages share: one look (parts.html), pictures inside the file, tables as plain values. No files written.

A table is a dict: `caption`; `columns`; `classes`, one CSS class a column (`n` numbers, `paper` the paper's);
`rows`, each `cells`, `strong` and `tag`; `ours`, whether its figures come from this run.
"""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment

NONE = "–"
"""Stands where there is no figure."""


def render(template: str, context: Mapping[str, Any], package: str = "mammoflow.reports") -> bytes:
    """Return a page with the context filled in, every value escaped.

    Args:
        template: its file name, e.g. `report.html`.
        context: plain values by the names that the template knows; `mark` at least, the kind of data or nothing.
        package: where the template lies.
    """
    parts = files("mammoflow.rendering").joinpath("parts.html").read_text(encoding="utf-8")
    texts = {"parts.html": parts, template: files(package).joinpath(template).read_text(encoding="utf-8")}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=DictLoader(texts))
    return environment.get_template(template).render(context).encode()


def picture(data: bytes, kind: str, alt: str, caption: str, mark: str | None = None) -> dict[str, str]:
    """Return a picture that stands inside the page.

    Args:
        data: the encoded picture.
        kind: jpeg or svg+xml.
        alt: what it shows, for those who don't see it.
        caption: written below.
        mark: its own kind of data, where that may be another than the page's.
    """
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    own = {} if mark is None else {"mark": mark}
    return {"src": source, "alt": alt, "caption": caption} | own


def table(
    caption: str, columns: Sequence[str], classes: Sequence[str], rows: Sequence[dict[str, Any]], *, ours: bool = True
) -> dict[str, Any]:
    """Return a table of rows made by `cells`."""
    return {"caption": caption, "columns": columns, "classes": classes, "rows": rows, "ours": ours}


def cells(*values: Any, strong: bool = False, tag: str = "") -> dict[str, Any]:
    """Return a row of a table."""
    return {"cells": values, "strong": strong, "tag": tag}


def count(value: float) -> str:
    """Return a number with commas."""
    return f"{value:,}"


def share(part: float, whole: float) -> str:
    """Return a part in percent."""
    return f"{part / whole:.0%}" if whole else NONE
