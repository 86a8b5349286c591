"""What the report is made from. No Ray, no MLflow, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mammoflow.config import Config
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.lake import Artefact

PHANTOM_MARK = "phantom data, no clinical meaning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The two-step baseline of the same data."""

    backbone: str
    """Whose patch classifier's heatmaps it reads."""
    choice: Ensemble
    """Itself, frozen on validation."""
    test: pa.Table
    """schema.SCORES of it on test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """A finished run: its settings, artefacts and figures."""

    config: Config
    """Every setting."""
    images: Artefact
    """Decoded images."""
    patches: Artefact
    """Labelled patches."""
    trunks: Mapping[str, Artefact]
    """Patch classifier of each backbone."""
    search: Artefact
    """Whole-image candidates and their ranking."""
    val_scores: pa.Table
    """schema.SCORES of the finished candidates on validation."""
    test_scores: pa.Table
    """schema.SCORES of the finished candidates on test."""
    ensemble: Ensemble
    """The frozen choice that is registered."""
    ensembles: Mapping[str, Ensemble]
    """What each rule chose, by its name; that one among them."""
    singles: Mapping[str, Ensemble]
    """The best single model of each family of top layers by validation, as an ensemble of one: heatmap + FC, heatmap,
    all-convolutional, of those that there are."""
    folders: Mapping[str, str]
    """Candidate name -> folder of its model, of all that were scored."""
    facts: pa.Table
    """Density, vendor and lesion kinds of the test images, as evaluation.image_facts gives them."""
    baseline: Baseline | None
    """None where it was not run."""
    transfer: Mapping[str, Any] | None
    """What came of the registered ensemble on other data (`transfer.run`); None where it was not run."""
    registered: Mapping[str, Any]
    """At least `name` and `version` of the registered model."""
    patch_accuracy: Mapping[str, Mapping[str, Any]]
    """Test figures of each backbone's patch classifier, as evaluation.patch_accuracy gives them."""
    seconds: dict[str, float]
    """How long each stage took [s]."""

    reproduction: Mapping[str, Any] | None = None
    """The paper's Table 1 and its row of the other patch set (`reproduction`); None where they were not run."""

    @property
    def mark(self) -> str:
        """Return what every figure must say of its data: of phantoms, that they are; else nothing."""
        return PHANTOM_MARK if self.config.source is None else ""

    @property
    def ranking(self) -> list[dict[str, Any]]:
        """Return the candidates as the search ranked them."""
        return list(self.search.summary()["ranking"])

    @staticmethod
    def written(row: Mapping[str, Any]) -> str:
        """Return the top layers of a row of the ranking, with what was changed in their training."""
        return f"{row['top_layers']} {row['changes']}".strip()

    @property
    def test_ensemble(self) -> pa.Table:
        """Return the ensemble's own scores on test."""
        return ensembles.average(self.test_scores, self.ensemble)
