"""One pack of candidates as a job for distributed.py: what to load, and what to leave in the lake. No Ray here.

A candidate's folder holds `best/`, `last/` (model folders), `history.json` and `result.json`, written in this order
once a stage is over.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mammoflow import lake
from mammoflow.config import ImageConfig, ImageTrainingConfig
from mammoflow.data.batches import ShardBatches
from mammoflow.lake import Artefact
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import PatchClassifier, WholeImageClassifier
from mammoflow.training.bank_run import BankRun, kept
from mammoflow.training.loop import Workers

_CLASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Top layers to be tried on a trunk."""

    name: str
    backbone: str
    top_layers: str
    kind: str

    @classmethod
    def of(cls, backbone: str, top_layers: str) -> "Candidate":
        """Name a candidate after its trunk and top layers."""
        return cls(
            name=classifiers.candidate_name(backbone, top_layers),
            backbone=backbone,
            top_layers=top_layers,
            kind=classifiers.candidate_kind(backbone, top_layers),
        )

    def folder(self, out: Artefact, *parts: str) -> str:
        """Return its folder in the search's artefact."""
        return out.file("candidates", self.name, *parts)

    def result(self, out: Artefact) -> str:
        """Return the file that says how far it came."""
        return self.folder(out, "result.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class BankJob:
    """One stage of a pack of candidates on one trunk; stage 2 (number 1) takes a single one."""

    name: str
    stage: int
    candidates: tuple[Candidate, ...]
    training: ImageTrainingConfig
    images_config: ImageConfig
    images: Artefact
    start: str
    """Folder of the patch classifier that new candidates are made from, or of the whole-image classifier to go on
    from, whose top layers the only candidate then has."""
    out: Artefact
    seed: int

    @property
    def folder(self) -> str:
        """Return where its checkpoints are kept while it runs."""
        return self.out.file("work", self.name)

    @property
    def done(self) -> bool:
        """Tell whether every candidate of the pack has been through this stage."""
        return all(self._stages_done(candidate) > self.stage for candidate in self.candidates)

    def _stages_done(self, candidate: Candidate) -> int:
        url = candidate.result(self.out)
        return int(lake.read_json(url)["stages"]) if lake.exists(url) else 0

    def open(self, workers: Workers, device: torch.device) -> tuple[BankRun, ShardBatches, ShardBatches]:
        """Build the run and its batches on one worker."""
        training, validation = (
            ShardBatches.of_split(
                self.images,
                split,
                "image_id",
                self.training.batch,
                self.seed,
                rank=workers.rank,
                world_size=workers.world_size,
            )
            for split in ("train", "val")
        )
        counts = training.class_counts(_CLASSES)
        models = self._new_models() if self.stage == 0 else self._models_of_stage1()
        best = {} if self.stage == 0 else self._best_of_stage1()
        run = BankRun(self.training, self.stage, models, counts, device, workers, self.seed, best=best)
        return run, training, validation

    def _new_models(self) -> dict[str, WholeImageClassifier]:
        model = model_files.from_files(lake.read_folder(self.start))
        if isinstance(model, PatchClassifier):
            tops = [candidate.top_layers for candidate in self.candidates]
            return classifiers.candidates(model, tops, self.images_config, self.seed)
        (candidate,) = self.candidates
        mean_grey = float(self.images.summary()["mean_grey"])
        return {candidate.name: classifiers.adapt(model, self.images_config, mean_grey)}

    def _models_of_stage1(self) -> dict[str, WholeImageClassifier]:
        models = {c.name: model_files.from_files(lake.read_folder(c.folder(self.out, "last"))) for c in self.candidates}
        return {name: model for name, model in models.items() if isinstance(model, WholeImageClassifier)}

    def _best_of_stage1(self) -> dict[str, Any]:
        results = {c: lake.read_json(c.result(self.out)) for c in self.candidates}
        return {
            c.name: kept(lake.read_folder(c.folder(self.out, "best")), result["val_auc"], result["best_epoch"])
            for c, result in results.items()
            if result["best_epoch"]
        }

    def close(self, run: BankRun, history: list[dict[str, Any]]) -> None:
        """Write each candidate's best and last weights, curves, and last of all its result."""
        for candidate in self.candidates:
            for which, files in (("best", run.best_files(candidate.name)), ("last", run.last_files(candidate.name))):
                lake.write_folder(candidate.folder(self.out, which), files)
            earlier = lake.read_json(candidate.folder(self.out, "history.json")) if self.stage else []
            own = [row for row in earlier if row["stage"] <= self.stage]
            rows = [*own, *(of_candidate(figures, candidate.name) for figures in history)]
            lake.write_json(candidate.folder(self.out, "history.json"), rows)
            lake.write_json(candidate.result(self.out), self._result(run, candidate, rows))

    def _result(self, run: BankRun, candidate: Candidate, history: list[dict[str, Any]]) -> dict[str, Any]:
        best = run.best.get(candidate.name)
        first = [row["val_auc"] for row in history if row["stage"] == 1]
        alone = [row for row in history if row["stage"] == 2]  # in stage 1 it shared its pack's time and memory
        return {
            "stages": self.stage + 1,
            "val_auc": best.value if best else 0.5,
            "best_epoch": best.epoch if best else 0,
            "stage1_val_auc": max(first, default=0.5),
            "epochs": len(history),
            "parameters": run.parameters(candidate.name),
            "epoch_seconds": statistics.median(row["seconds"] for row in alone) if alone else None,
            "memory_gib": max(row["memory_gib"] for row in alone) if alone else None,
        }


def of_candidate(figures: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one candidate's figures of an epoch: its own, and those that the pack shares."""
    own = {key: value[name] for key, value in figures.items() if isinstance(value, dict) and name in value}
    return {**figures, **own}
