"""Data sets of a lake beside each other: which there are, and their grey values. No Ray, no torch."""

import numpy as np

from mammoflow import lake
from mammoflow.lake import Artefact
from mammoflow.rendering import figures, pages
from mammoflow.reports.inputs import PHANTOM_MARK

_SETS = 6  # side by side


def beside(images: Artefact) -> list[Artefact]:
    """Return a data set and others of its lake, as far as their grey values were counted."""
    known = (images, *lake.list_siblings(images))
    return [item for item in known if item.summary().get("histogram")][:_SETS]


def intensity(images: Artefact, sets: list[Artefact]) -> dict[str, str] | None:
    """Return a picture of the distribution of grey values of each data set; None where there is none.

    Args:
        images: the data set that is drawn thick.
        sets: of `beside`.

    Source: paper, Figure 4.
    """
    if not sets:
        return None
    parts = []
    for index, item in enumerate(sets):
        counts = np.array(item.summary()["histogram"], np.float64)
        heights = 100 * counts / max(1, counts.sum())
        name, colour = title(item), figures.COLOURS[index % len(figures.COLOURS)]
        edges, strong = np.arange(257.0), item.url == images.url
        parts.append(figures.Histogram(name=name, heights=heights, edges=edges, colour=colour, strong=strong))
    said_of_all = PHANTOM_MARK if all(mark(item) for item in sets) else ""
    names = ("grey value, 0 (air) to 255", "share of pixels [%]")
    drawn = figures.histogram("Grey values", parts, names, said_of_all, log=True)
    said = ", ".join(part.name for part in parts)
    caption = "Share of pixels by grey value, over all films as decoded; logarithmic, since most pixels are air."
    return pages.picture(drawn, "svg+xml", f"Histogram of grey values of {said}", caption, said_of_all)


def mark(item: Artefact) -> str:
    """Return what a picture of a data set must say; graph.locate names those that mammoflow drew."""
    return PHANTOM_MARK if item.name.startswith("phantoms-") else ""


def title(item: Artefact) -> str:
    """Return a name that tells a data set from others of its lake."""
    return f"{item.name}-{item.fingerprint[:4]}"
