"""Data sets of a lake beside each other: which there are, and their grey values. No Ray, no torch."""

import numpy as np

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact
from mammoflow.rendering import figures, pages
from mammoflow.rendering.marks import PHANTOM_MARK, mark_of

_SETS = 6  # side by side


def beside(images: Artefact) -> list[Artefact]:
    """Return a data set and others of its lake."""
    return [item for item in (images, *lake.list_siblings(images)) if _readable(item)][:_SETS]


def intensity(images: Artefact, sets: list[Artefact]) -> dict[str, str]:
    """Return a picture of the distribution of grey values of each data set.

    Args:
        images: the data set that is drawn thick.
        sets: of `beside`.

    Source: paper, Figure 4.
    """
    parts = []
    for index, item in enumerate(sets):
        counts = np.array(item.facts(ImagesFacts).histogram, np.float64)
        heights = 100 * counts / max(1, counts.sum())
        name, colour = title(item), figures.COLOURS[index % len(figures.COLOURS)]
        edges, strong = np.arange(257.0), item.url == images.url
        parts.append(figures.Histogram(name=name, heights=heights, edges=edges, colour=colour, strong=strong))
    mark = PHANTOM_MARK if all(mark_of(item) == PHANTOM_MARK for item in sets) else ""
    names = ("grey value, 0 (air) to 255", "share of pixels [%]")
    drawn = figures.histogram("Grey values", parts, names, mark, log=True)
    listed = ", ".join(part.name for part in parts)
    caption = "Share of pixels by grey value, over all films as decoded; logarithmic, since most pixels are air."
    return pages.picture(drawn, "svg+xml", f"Histogram of grey values of {listed}", caption, mark)


def _readable(item: Artefact) -> bool:
    """Tell whether an artefact holds the facts of this version: data sets of earlier ones are left out."""
    try:
        item.facts(ImagesFacts)
    except LakeError:
        return False
    return True


def title(item: Artefact) -> str:
    """Return a name that tells a data set from others of its lake."""
    return f"{item.name}-{item.fingerprint[:4]}"
