"""The card of a registered model: where it comes from, what it can do, what it is for."""

from dataclasses import dataclass
from typing import Any, Literal

from mammoflow.facts.results import Performance


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCounts:
    """Images of one split."""

    split: str
    images: int
    malignant: int
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """A data set."""

    dataset: str
    protocol: str
    images: str
    """Fingerprint of the images artefact."""
    splits: str
    """Fingerprint of who is in which split."""
    rows: tuple[SplitCounts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardValidation:
    """Figures on the images that members, cut-off and calibration were chosen on."""

    reached: Performance
    patients: int
    cutoff_rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCode:
    """The code that trained it."""

    mammoflow: str
    """Version."""
    source: str
    """Hash of the source."""
    commit: str
    """Of git; empty where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything that a card says beside the ensemble itself."""

    version: Literal[1] = 1
    recipe: str
    config: dict[str, Any]
    """Every setting that changes results, by name."""
    phantoms: bool
    """Trained on images that mammoflow drew."""
    started_from: str | None
    """URI of the classifiers that training went on from."""
    recalibrated_on: CardData | None
    """Another site's images that cut-off and calibration come from."""
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    data: CardData
    code: CardCode
    validation: CardValidation
    artefacts: dict[str, tuple[str, ...]]
    """Stage -> fingerprints of its artefacts."""
