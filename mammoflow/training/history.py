"""A model's learning curve in the lake: `history.json`, a row for each epoch. No Ray, no torch."""

from collections.abc import Sequence

from mammoflow import lake
from mammoflow.facts import codec
from mammoflow.facts.training import EpochFigures


def read(url: str) -> list[EpochFigures]:
    """Return the epochs of a history.

    Raises:
        LakeError: it is missing or damaged.
    """
    return codec.from_json(lake.read_bytes(url), list[EpochFigures], url)


def write(url: str, epochs: Sequence[EpochFigures]) -> None:
    """Write a history, atomically."""
    lake.write_bytes(url, codec.to_json(epochs))
