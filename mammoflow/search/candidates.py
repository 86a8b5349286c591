"""What a search tries: top layers on a trunk, and how their training differs from the config's. No Ray, no files.

    written := spec [lr*FACTOR] [decay*FACTOR] [dropout=SHARE]

such as `256x1,128x1` or `256x1,128x1 lr*2 dropout=0.5`: the spec as top_kinds.py reads it, then words in any order.
"""

import re
from dataclasses import dataclass, replace

from mammoflow import lake
from mammoflow.config import Config, StageConfig
from mammoflow.errors import SpecError
from mammoflow.facts import codec
from mammoflow.facts.training import CandidateResult, EpochFigures
from mammoflow.lake import Artefact
from mammoflow.models import classifiers
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.top_kinds import parse
from mammoflow.models.top_layers import Ground
from mammoflow.models.top_spec import TopSpec
from mammoflow.training import history

_WORD = re.compile(r"(lr\*|decay\*|dropout=)([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)")
_GRAMMAR = "words like `lr*2`, `decay*0.1` or `dropout=0.5`, each once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How a candidate's training differs from the config's stages."""

    lr: float = 1.0
    """Factor on the learning rate of both stages."""
    decay: float = 1.0
    """Factor on the weight decay of both stages."""
    dropout: float | None = None
    """Share dropped before the last FC [0-1); None: as the stages say."""

    def of(self, stage: StageConfig) -> StageConfig:
        """Return a stage as this candidate goes through it."""
        dropout = stage.dropout if self.dropout is None else self.dropout
        return replace(stage, lr=stage.lr * self.lr, weight_decay=stage.weight_decay * self.decay, dropout=dropout)

    def words(self) -> str:
        """Return them as written; empty without changes."""
        words = [f"{name}*{value:g}" for name, value in (("lr", self.lr), ("decay", self.decay)) if value != 1]
        return " ".join(words + ([] if self.dropout is None else [f"dropout={self.dropout:g}"]))


NONE = Changes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Top layers to be tried on a trunk."""

    name: str
    backbone: str
    top_layers: TopSpec
    changes: Changes = NONE

    @classmethod
    def of(cls, backbone: str, written: str) -> "Candidate":
        """Read a candidate and name it after its trunk and all that is written.

        Raises:
            SpecError: top layers or changes that can't be read, or a factor or share out of its range.
        """
        top_layers, changes = read(written)
        words = changes.words().replace("*", "").replace("=", "")
        return cls(
            name="-".join([classifiers.candidate_name(backbone, top_layers), *words.split()]),
            backbone=backbone,
            top_layers=top_layers,
            changes=changes,
        )

    @classmethod
    def continued(cls, name: str, spec: ImageSpec) -> "Candidate":
        """Return a whole-image classifier of other data that goes on, under the name that it has there."""
        return cls(name=name, backbone=spec.backbone, top_layers=spec.top_layers)

    @property
    def kind(self) -> str:
        """Return trunk family - top family, such as `Resnet-VGG`."""
        return classifiers.candidate_kind(self.backbone, self.top_layers)

    @property
    def written(self) -> str:
        """Return what `of` reads it from."""
        return f"{self.top_layers} {self.changes.words()}".strip()

    def folder(self, out: Artefact, *parts: str) -> str:
        """Return its folder in the search's artefact."""
        return out.file("candidates", self.name, *parts)

    def result(self, out: Artefact) -> str:
        """Return the file that says how far it came."""
        return self.folder(out, "result.json")

    def read_result(self, out: Artefact) -> CandidateResult | None:
        """Return how far it came; None before its first result."""
        url = self.result(out)
        return codec.from_json(lake.read_bytes(url), CandidateResult, url) if lake.exists(url) else None

    def history(self, out: Artefact) -> list[EpochFigures]:
        """Return its epochs so far; none before its first result."""
        url = self.folder(out, "history.json")
        return history.read(url) if lake.exists(url) else []

    def failure(self, out: Artefact) -> str:
        """Return the file that says why it can't go on, if it can't."""
        return self.folder(out, "failed.json")

    def stop(self, out: Artefact) -> str:
        """Return the file that says at which epoch it was stopped, if it was without waiting for the others."""
        return self.folder(out, "stopped.json")


def run_ground(config: Config, backbone: str) -> Ground:
    """Return what a run's top layers stand on.

    Raises:
        ConfigError: unknown backbone, or images or patches too small for it.
    """
    return classifiers.ground(backbone, config.images, config.patches.side, len(config.patches.classes))


def read(written: str) -> tuple[TopSpec, Changes]:
    """Return the top layers and the changes of a written candidate.

    Raises:
        SpecError: see `Candidate.of`.
    """
    spec = _WORD.sub("", written)
    words = _WORD.findall(written)
    values = {name.rstrip("*="): float(value) for name, value in words}
    if len(values) != len(words) or any(mark in spec for mark in "*="):
        raise SpecError(f"candidate {written!r}: can't read its changes; write {_GRAMMAR} after the top layers")
    if not (values.get("lr", 1) > 0 and 0 <= values.get("dropout", 0) < 1):
        raise SpecError(f"candidate {written!r}: lr's factor must be above 0, dropout from 0 to below 1; correct it")
    return parse(spec), Changes(**values)
