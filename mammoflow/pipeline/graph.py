"""The artefacts of every stage of a config, located in a lake by fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mammoflow.config import Config
from mammoflow.ensemble import pool
from mammoflow.ensemble.pool import PooledCandidate
from mammoflow.errors import ConfigError
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.pipeline.stages import STAGES
from mammoflow.registry import starting_points
from mammoflow.registry.registry import Registered
from mammoflow.registry.starting_points import Starts


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """The artefacts of every stage of one config, whether or not the lake holds them yet."""

    config: Config
    lake: Lake
    starts: Starts | None
    """Whole-image classifiers to train on, in place of trunks (`--start`)."""
    by_stage: dict[str, Mapping[str, Artefact]] = field(default_factory=dict)
    """Stage -> its artefacts, by backbone; a stage with one artefact has it under its own name."""

    def of(self, stage: str) -> list[Artefact]:
        """Return a stage's artefacts: one, or one for each trunk, or none where this config has none."""
        return list(self.by_stage[stage].values())

    def one(self, stage: str) -> Artefact:
        """Return the artefact of a stage that this config has exactly once."""
        return self.by_stage[stage][stage]

    @property
    def images(self) -> Artefact:
        """Return the decoded images."""
        return self.one("images")

    @property
    def patches(self) -> Artefact:
        """Return the labelled patches."""
        return self.one("patches")

    @property
    def trunks(self) -> Mapping[str, Artefact]:
        """Return the patch classifiers of the first round, by backbone."""
        return self.by_stage["trunks"]

    @property
    def mined(self) -> Mapping[str, Artefact]:
        """Return the patches with hard examples, by backbone."""
        return self.by_stage["mined"]

    @property
    def retrained(self) -> Mapping[str, Artefact]:
        """Return the patch classifiers trained on these, by backbone."""
        return self.by_stage["retrained"]

    @property
    def classifiers(self) -> dict[str, Artefact]:
        """Return the patch classifiers that whole-image classifiers are made from, by backbone."""
        return {**self.trunks, **self.retrained}

    @property
    def search(self) -> Artefact:
        """Return the search over top layers."""
        return self.one("search")

    @property
    def ensemble(self) -> Artefact:
        """Return the ensemble chosen on validation."""
        return self.one("ensemble")

    @property
    def registered(self) -> Artefact:
        """Return the record of the registered version."""
        return self.one("registered")

    @property
    def evaluation(self) -> Artefact:
        """Return the test scores."""
        return self.one("evaluation")

    @property
    def report(self) -> Artefact:
        """Return the report."""
        return self.one("report")

    @cached_property
    def usable(self) -> tuple[Artefact | str, ...]:
        """Return the images, and a fingerprint of those that could not be used where there are any.

        That is known once they are decoded: when a broken file is mended later, everything made from the images
        changes.
        """
        left_out = self.images.facts(ImagesFacts).left_out if self.images.done else None
        return (self.images, left_out) if left_out else (self.images,)

    @cached_property
    def pool(self) -> list[PooledCandidate]:
        """Return the candidates of other searches that the ensemble may take (`ensemble.pool`)."""
        return pool.find(self.config, self.lake, self.images, self.search)

    @property
    def source(self) -> str:
        """Return the folder of the release that the images come from."""
        return self.config.source or self.one("phantoms").file("release")

    @property
    def begun(self) -> tuple[Starts, Registered]:
        """Return the registered ensemble that `--start` names.

        Raises:
            ConfigError: it names none.
        """
        if self.starts is None or self.starts.registered is None:
            raise ConfigError(
                f"recipe {self.config.name!r} names no registered ensemble; give one with --start, such as "
                "models:/mammoflow@champion"
            )
        return self.starts, self.starts.registered

    def seconds(self) -> dict[str, float]:
        """Return how long each complete stage took [s]."""
        done = {stage: [item for item in self.of(stage) if item.done] for stage in STAGES}
        return {
            stage: round(max(item.record().seconds or 0.0 for item in items), 1)
            for stage, items in done.items()
            if items
        }


def locate(config: Config, root: Lake) -> Artefacts:
    """Name the artefacts of every stage by the fingerprints of its science settings and its inputs.

    Names of data and trunks do not contain the recipe's, so that recipes on the same data share them.
    """
    starts = starting_points.find(config, root) if config.start else None
    artefacts = Artefacts(config=config, lake=root, starts=starts)
    for stage in STAGES.values():
        located = stage.locate(artefacts) or {}
        artefacts.by_stage[stage.name] = {stage.name: located} if isinstance(located, Artefact) else located
    return artefacts
