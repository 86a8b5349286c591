"""The finished runs of a lake, whatever configs made them: found by the inputs that artefacts record. No Ray."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from mammoflow import lake, tracking
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.split_door import open_scores
from mammoflow.errors import LakeError
from mammoflow.facts.stages import EnsembleFacts, RankingRow, RegisteredFacts, SearchFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.rendering import marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An evaluated run: its artefacts, from images to test scores."""

    images: Artefact
    """Decoded images."""
    search: Artefact
    """Whole-image candidates."""
    ranking: tuple[RankingRow, ...]
    """The candidates as the search ranked them."""
    evaluation: Artefact
    """Test scores."""
    val_scores: pa.Table
    """schema.SCORES of the finished candidates on validation."""
    ensembles: dict[str, Ensemble]
    """What each rule chose, the frozen choice first."""
    version: str
    """`<name>/<version>` in the registry; empty where it was not registered."""

    @property
    def key(self) -> str:
        """Return the name of its folder in the site."""
        return self.evaluation.key.partition("/")[2]

    @property
    def mark(self) -> str:
        """Return the mark of its images: of phantoms, that they are; else empty."""
        return marks.mark_of(self.images)

    @property
    def frozen(self) -> Ensemble:
        """Return the choice that was registered."""
        return next(iter(self.ensembles.values()))

    def test_scores(self) -> pa.Table:
        """Return schema.SCORES of the finished candidates on test."""
        return open_scores(self.evaluation, "test", self.frozen)


def find(root: Lake, tracking_uri: str, versions: Collection[str], say: Callable[[str], None]) -> list[Run]:
    """Return the evaluated runs of a lake, by name.

    Args:
        root: the lake.
        tracking_uri: of the registry.
        versions: `<name>/<version>` of all that it holds now; runs of any other count as not registered.
        say: told of runs that can't be shown, and why.

    Raises:
        LakeError: the lake can't be listed.
    """
    of_ensemble = {
        item.input_of("ensemble"): version
        for item in lake.list_complete(root, "registered")
        if (version := _version(item, tracking_uri)) in versions
    }
    evaluated = [_run(root, item, of_ensemble, say) for item in lake.list_complete(root, "evaluation")]
    return [run for run in evaluated if run]


def _run(root: Lake, evaluation: Artefact, versions: dict[str, str], say: Callable[[str], None]) -> Run | None:
    """Return an evaluated run, or None where it can't be shown."""
    chain = [evaluation]
    for stage in ("ensemble", "search", "images"):
        key = chain[-1].input_of(stage)
        chain.append(root.at(key))
        if not chain[-1].done:
            say(f"  {evaluation.key} is not shown: its {stage} ({key or 'not recorded'}) is not in the lake")
            return None
    _, chosen, search, images = chain
    try:
        by_rule = ensembles.read_choices(chosen.file("ensembles.json"))
        frozen = chosen.facts(EnsembleFacts).rule
        return Run(
            images=images,
            search=search,
            ranking=search.facts(SearchFacts).ranking,
            evaluation=evaluation,
            val_scores=open_scores(chosen, "val", None),
            ensembles={frozen: by_rule[frozen], **by_rule},
            version=versions.get(chosen.key, ""),
        )
    except LakeError as error:
        say(f"  {evaluation.key} is not shown: {error}")
        return None


def _version(registered: Artefact, tracking_uri: str) -> str:
    """Return `<name>/<version>`; empty where it was registered on another server."""
    facts = registered.facts(RegisteredFacts)
    return f"{facts.name}/{facts.version}" if facts.tracking_uri == tracking.public(tracking_uri) else ""
