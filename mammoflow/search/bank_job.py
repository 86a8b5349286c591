"""One pack of candidates as a job for distributed.py: what to load, and what to leave in the lake. No Ray here.

A candidate's folder holds `best/`, `last/` (model folders), `history.json` and `result.json`, written in this order
once a stage is over, and all but `last/` where candidates are ranked in the middle of one. While it trains, its
checkpoints lie in `work/states/`, one file each, so that packs can be cut differently at any epoch.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mammoflow import lake
from mammoflow.config import ImageConfig, ImageTrainingConfig
from mammoflow.data.batches import ShardBatches
from mammoflow.facts import codec
from mammoflow.facts.training import CandidateResult, EpochFigures
from mammoflow.lake import Artefact
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import PatchClassifier, WholeImageClassifier
from mammoflow.search.bank_run import BankRun, kept
from mammoflow.search.candidates import Candidate
from mammoflow.training import history, inputs
from mammoflow.training.loop import Best, Workers

_CLASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BankJob:
    """One stage of a pack of candidates on one trunk; stage 2 (number 1) takes a single one."""

    name: str
    backbone: str
    """The trunk that all candidates share."""
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
    until: int | None = None
    """Epochs of the stage after which it stops, for the candidates to be ranked; None: at the stage's end."""
    deadline: float = math.inf
    """When it ends after the epoch then under way [s since 1970]."""

    @property
    def folder(self) -> str:
        """Return where Ray keeps what it knows of the run."""
        return self.out.file("work", self.name)

    @property
    def done(self) -> bool:
        """Tell whether every candidate of the pack has come as far as this job takes it."""
        return all(self._has_done(candidate) for candidate in self.candidates)

    def _has_done(self, candidate: Candidate) -> bool:
        result = candidate.read_result(self.out)
        if result is None:
            return False
        before = sum(stage.epochs for stage in self.training.stages[: self.stage])
        return result.stages > self.stage or (self.until is not None and result.epochs >= before + self.until)

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
        run = BankRun(
            self.training,
            self.stage,
            models,
            counts,
            device,
            workers,
            self.seed,
            changes={candidate.name: candidate.changes for candidate in self.candidates},
            best=best,
            until=self.until,
        )
        return run, training, validation

    def _new_models(self) -> dict[str, WholeImageClassifier]:
        model = model_files.from_files(lake.read_folder(self.start))
        if isinstance(model, PatchClassifier):
            top_layers = {candidate.name: candidate.top_layers for candidate in self.candidates}
            return classifiers.candidates(model, top_layers, self.images_config, self.seed, self.training.precision)
        (candidate,) = self.candidates
        mean_grey, precision = inputs.mean_grey(self.images), self.training.precision
        return {candidate.name: classifiers.adapt(model, self.images_config, mean_grey, precision)}

    def _models_of_stage1(self) -> dict[str, WholeImageClassifier]:
        models = {c.name: model_files.from_files(lake.read_folder(c.folder(self.out, "last"))) for c in self.candidates}
        return {name: model for name, model in models.items() if isinstance(model, WholeImageClassifier)}

    def _best_of_stage1(self) -> dict[str, Best]:
        results = {c: c.read_result(self.out) for c in self.candidates}
        return {
            c.name: kept(lake.read_folder(c.folder(self.out, "best")), result.val_auc, result.best_epoch)
            for c, result in results.items()
            if result and result.best_epoch
        }

    def keep(self, run: BankRun) -> None:
        """Write a checkpoint of each candidate; the one before stays until all of the next are there."""
        for name, file in run.state().items():
            lake.write_bytes(self._state(name, run.epoch), file)
        for name in run.history:
            lake.remove(self._state(name, run.epoch - 2))

    def resume(self) -> dict[str, bytes]:
        """Return each candidate's checkpoint after the last epoch that all of the pack have done, whoever with."""
        common = self.common_epochs(self.candidates)
        return {c.name: lake.read_bytes(self._state(c.name, max(common))) for c in self.candidates} if common else {}

    def common_epochs(self, candidates: Sequence[Candidate]) -> set[int]:
        """Return the epochs of this stage after which each of these candidates has a checkpoint."""
        return set.intersection(*({*self._epochs(candidate)} for candidate in candidates))

    def _epochs(self, candidate: Candidate) -> list[int]:
        folder = self._state(candidate.name, 0).rpartition("/")[0]
        return [int(url.rpartition("/")[2].partition(".")[0]) for url in lake.list_files(folder, ".pt")]

    def _state(self, name: str, epoch: int) -> str:
        return self.out.file("work", "states", f"{name}-stage{self.stage + 1}", f"{epoch}.pt")

    def close(self, run: BankRun) -> None:
        """Write each candidate's best weights, at the stage's end its last ones, curves, and last of all its result."""
        over = run.epoch >= run.scheduled
        for candidate in self.candidates:
            name = candidate.name
            kinds = {"best": run.best_files(name)} | ({"last": run.last_files(name)} if over else {})
            for which, files in kinds.items():
                lake.write_folder(candidate.folder(self.out, which), files)
            earlier = candidate.history(self.out) if self.stage else []
            rows = [*(row for row in earlier if row.stage <= self.stage), *run.history[name]]
            history.write(candidate.folder(self.out, "history.json"), rows)
            result = _result(run, name, rows, self.stage + (1 if over else 0))
            lake.write_bytes(candidate.result(self.out), codec.to_json(result))


def _result(run: BankRun, name: str, rows: Sequence[EpochFigures], stages: int) -> CandidateResult:
    best = run.best.get(name)
    first = [row.val_auc for row in rows if row.stage == 1 and row.val_auc is not None]
    alone = [row for row in rows if row.stage == 2]  # in stage 1 it shared its pack's time and memory
    seconds = [row.seconds for row in alone if row.seconds is not None]
    memory = [row.memory_gib for row in alone if row.memory_gib is not None]
    return CandidateResult(
        stages=stages,
        epochs=len(rows),
        val_auc=best.value if best else 0.5,
        best_epoch=best.epoch if best else 0,
        stage1_val_auc=max(first, default=0.5),
        parameters=run.parameters(name),
        gflops=run.flops(name) / 1e9,
        epoch_seconds=statistics.median(seconds) if seconds else None,
        memory_gib=max(memory, default=None),
    )
