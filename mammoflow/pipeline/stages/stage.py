"""What a stage of the pipeline is. Imports nothing heavy: jobs that only look load fast."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mammoflow.lake import Artefact

if TYPE_CHECKING:  # which imports the stages
    from mammoflow.pipeline.graph import Artefacts

Located = Artefact | Mapping[str, Artefact] | None
"""A stage's artefact; or one for each backbone, by its name; or None where a config has none."""

Built = Iterable[tuple[Artefact, Any]]
"""Artefacts, each complete but for `done.json`, with their facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the pipeline."""

    name: str
    """Folder of the lake."""
    needs: tuple[str, ...] = ()
    """Names of the stages that it reads; a config may lack some of them."""
    job: str
    """The script in jobs/ that builds it by name."""
    facts: type
    """Record of `facts.stages` that its `done.json` holds."""
    locate: Callable[["Artefacts"], Located]
    """Names its artefacts; those of earlier stages are there already."""
    build: Callable[["Artefacts"], Built]
    """Builds the missing ones."""
    runs_models: bool = False
    """It trains or runs models, on GPUs where the config asks for them."""
    decides: bool = False
    """Its outcome changes which artefacts later stages have."""
    start: Literal["not read", "scored", "recalibrated", "trained on"] = "trained on"
    """What it does, directly or through its needs, with the classifiers that `--start` names."""
