"""Pages: templates filled in, and pictures that stand inside them. No files written."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment

from mammoflow.rendering import formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A headline figure of a page."""

    what: str
    value: str
    more: str
    """A line below."""


def render(template: str, context: Mapping[str, Any], package: str = "mammoflow.reports") -> bytes:
    """Return a page with the context filled in, every value escaped; tables are `tables.Table`.

    Args:
        template: its file name, e.g. `report.html`.
        context: values by the names that the template knows; `mark` at least, the kind of data or empty.
        package: where the template lies.
    """
    text = files(package).joinpath(template).read_text(encoding="utf-8")
    return environment({template: text}).get_template(template).render(context).encode()


def environment(templates: Mapping[str, str]) -> Environment:
    """Return an environment with these templates and `parts.html`; its filter `text` writes figures."""
    parts = files("mammoflow.rendering").joinpath("parts.html").read_text(encoding="utf-8")
    loader = DictLoader({"parts.html": parts, **templates})
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    made.filters["text"] = formats.text
    return made


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
    item = {"src": source, "alt": alt, "caption": caption}
    return item if mark is None else item | {"mark": mark}
