"""What the report is made from. No Ray, no MLflow, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from mammoflow.config import Config
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.facts.published import Reproduction, Transfer
from mammoflow.facts.stages import PatchAccuracy, RankingRow, RegisteredFacts, SearchFacts
from mammoflow.lake import Artefact
from mammoflow.rendering import marks


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
    """A finished run: its settings, artefacts and scores."""

    config: Config
    images: Artefact
    patches: Artefact
    trunks: Mapping[str, Artefact]
    """Patch classifier of each backbone."""
    search: Artefact
    """Whole-image candidates and their ranking."""
    test_scores: pa.Table
    """schema.SCORES of the finished candidates on test."""
    ensemble: Ensemble
    """The frozen choice that is registered."""
    ensembles: Mapping[str, Ensemble]
    """What each rule chose, by its name; that one among them."""
    singles: Mapping[str, Ensemble]
    """The best single model of each family of top layers by validation, as an ensemble of one
    (`selection.choose_singles`)."""
    folders: Mapping[str, str]
    """Candidate name -> folder of its model, of all that were scored."""
    image_facts: pa.Table
    """Density, vendor and lesion kinds of the test images, as evaluation.image_facts gives them."""
    baseline: Baseline | None
    """None where it was not run."""
    transfer: Transfer | None
    """What the registered ensemble reached on other data; None where that was not run."""
    registered: RegisteredFacts
    """The registered version."""
    patch_accuracy: Mapping[str, PatchAccuracy]
    """Test figures of each backbone's patch classifier."""
    seconds: dict[str, float]
    """How long each stage took [s]."""
    reproduction: Reproduction | None = None
    """The paper's Table 1 and its row of the other patch set; None where they were not run."""

    @property
    def mark(self) -> str:
        """Return the mark of its images: of phantoms, that they are; else empty."""
        return marks.mark_of(self.images)

    @property
    def ranking(self) -> tuple[RankingRow, ...]:
        """Return the candidates as the search ranked them."""
        return self.search.facts(SearchFacts).ranking

    @property
    def test_ensemble(self) -> pa.Table:
        """Return the ensemble's own scores on test."""
        return ensembles.average(self.test_scores, self.ensemble)
