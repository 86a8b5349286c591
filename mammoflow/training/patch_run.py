"""Training of one patch classifier, stage by stage. Plain PyTorch: no Ray, no files.

Shape letters: N rows of a batch, C classes. Source: paper, methods (3-stage schedule, balanced batches).
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mammoflow.config import PatchTrainingConfig, StageConfig
from mammoflow.data.batches import Batch
from mammoflow.facts.training import EpochFigures, Validation
from mammoflow.models import devices
from mammoflow.models.classifiers import PatchClassifier
from mammoflow.models.model_files import to_files
from mammoflow.training import batch_norm, loop
from mammoflow.training.loop import Batches, Best, EpochLosses, Feed, Figures, Workers

STATE_FILE = "run.pt"


class PatchRun:
    """Trains a patch classifier epoch by epoch and keeps the weights of the best validation accuracy."""

    def __init__(
        self, config: PatchTrainingConfig, model: PatchClassifier, device: torch.device, workers: Workers, seed: int
    ) -> None:
        """Move the model to the device; nothing is trained yet.

        Args:
            config: schedule, batch, augmentation, precision.
            model: to be trained in place.
            device: of this worker.
            workers: this worker among all.
            seed: of the augmentations.
        """
        self.epoch = 0
        self.improved = False
        self.best: Best | None = None
        self.history: list[EpochFigures] = []
        self._config, self._device, self._workers, self._seed = config, device, workers, seed
        loop.prepare(model, model.trunk, device, workers)
        self._model = model
        self._stage: int | None = None
        self._net: nn.Module = self._model
        self._optimiser: torch.optim.Adam | None = None

    @property
    def epochs(self) -> int:
        """Return the epochs of all stages."""
        return sum(stage.epochs for stage in self._config.stages)

    def train_epoch(self, batches: Batches) -> Figures:
        """Train one epoch.

        Raises:
            TrainingError: a loss is not finite.
        """
        number = _stage_of(self._config.stages, self.epoch)
        optimiser = self._optimiser
        if optimiser is None or number != self._stage:
            optimiser = self._enter(number)
        lr = loop.learning_rate(self._config.stages[number], self.epoch - _first_of(self._config.stages, number))
        loop.set_learning_rate(optimiser, lr)
        self._model.train()
        if self._config.stages[number].batch_norm == "frozen":
            batch_norm.freeze(self._model)
        losses = EpochLosses([self._model.spec.backbone], self.epoch + 1)
        feed = Feed(batches.epoch(self.epoch), self._workers.world_size)
        for batch in feed:
            self._step(optimiser, batch, losses)
        if self._config.recalibrate:
            batch_norm.recalibrate(
                self._model, self._forward, islice(batches.epoch(self.epoch + 1), self._config.recalibrate)
            )
        self.epoch += 1
        images_per_s, data_wait = feed.speed()
        return {
            name: EpochFigures(
                epoch=self.epoch,
                epochs=self.epochs,
                stage=number + 1,
                lr=lr,
                loss=loss,
                images_per_s=images_per_s,
                data_wait=data_wait,
            )
            for name, loss in losses.means(self._workers).items()
        }

    def _enter(self, number: int) -> torch.optim.Adam:
        """Start a stage: choose what is trained, with a fresh optimiser as the reference's recompiling gives."""
        stage = self._config.stages[number]
        self._model.trunk.set_trained(stage.trained)
        self._net = self._workers.wrap(self._model)
        self._optimiser = loop.optimiser(stage, self._model.top, self._model.trunk)
        self._stage = number
        return self._optimiser

    def _forward(self, batch: Batch) -> Tensor:
        """Return the logits (N, C) of a batch, augmented for this epoch and stage."""
        stage = _stage_of(self._config.stages, self.epoch)
        images = loop.augmented(batch, self._config.augment, self._seed, self.epoch, stage, self._device)
        keys = [f"{self._seed}/{self.epoch}/{name}" for name in batch.ids]
        self._model.dropout.prepare(self._config.stages[stage].dropout, keys)
        with devices.autocast(self._device, self._config.precision):
            logits: Tensor = self._net(images)
        return logits

    def _step(self, optimiser: torch.optim.Adam, batch: Batch, losses: EpochLosses) -> None:
        optimiser.zero_grad(set_to_none=True)
        micro_losses = loop.accumulate(self._net, batch, self._config.micro_batches, self._add_gradient)
        optimiser.step()
        losses.add(torch.cat(micro_losses)[None], batch.weights, batch.ids)

    def _add_gradient(self, batch: Batch) -> Tensor:
        """Add the gradient of a micro-batch; returns the losses (N,)."""
        device = self._device
        logits = self._forward(batch)
        labels, weights = batch.labels.to(device), batch.weights.to(device)
        losses_N = cross_entropy(loop.at_least_float32(logits), labels, reduction="none")
        if self._config.balanced:
            weights = weights * loop.balance_step(batch.labels, batch.step_labels).to(device)
        # workers' gradients are averaged: each gives its part of the step's mean, times their number
        loss = (losses_N * weights).sum() * (self._workers.world_size / len(batch.step_labels))
        torch.autograd.backward(loss)
        return losses_N.detach()

    @torch.inference_mode()
    def validate(self, batches: Batches) -> dict[str, Validation]:
        """Judge the model on the validation split; keep it if its accuracy is the best so far."""
        batch_norm.sync_buffers(self._model, self._workers)
        self._model.eval()
        rows = [self._judge(batch) for batch in batches.epoch(self.epoch)]
        label_N, named_N, loss_N = self._workers.gather(np.concatenate(rows)).T
        accuracy = float((label_N == named_N).mean())
        recalls = _recalls(label_N, named_N, self._model.spec.classes)
        self.improved = loop.is_better(accuracy, self.best)
        if self.improved:
            self.best = Best(value=accuracy, epoch=self.epoch, weights=loop.snapshot(self._model.state_dict()))
        validation = Validation(
            val_loss=float(loss_N.mean()),
            val_accuracy=accuracy,
            val_balanced_accuracy=float(np.mean(list(recalls.values()))),
            val_recalls=recalls,
        )
        return {self._model.spec.backbone: validation}

    def _judge(self, batch: Batch) -> NDArray[np.float64]:
        """Return (label, named class, loss) of each real row of a batch."""
        with devices.autocast(self._device, self._config.precision):
            logits: Tensor = self._model(loop.unchanged(batch, self._device))
        logits = logits.double().cpu()
        loss_N = cross_entropy(logits, batch.labels, reduction="none")
        rows = torch.stack([batch.labels.double(), logits.argmax(dim=1).double(), loss_N], dim=1)
        return rows[batch.weights > 0].numpy()

    def best_files(self) -> dict[str, bytes]:
        """Return the model folder of the best epoch; before the first validation, of the current weights."""
        return to_files(self._model, None if self.best is None else self.best.weights)

    def record(self, figures: Figures) -> None:
        """Add the figures of the epoch just judged to the history."""
        self.history += figures.values()

    def state(self) -> dict[str, bytes]:
        """Return all that is needed to continue, as files."""
        state = loop.pack(
            {
                "epoch": self.epoch,
                "history": [asdict(row) for row in self.history],
                "stage": self._stage,
                "model": self._model.state_dict(),
                "optimiser": None if self._optimiser is None else self._optimiser.state_dict(),
                "best": None if self.best is None else self.best.to_state(),
            }
        )
        return {STATE_FILE: state}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Continue from files of `state`: on the CPU, the numbers are those of a run that was never stopped.

        Raises:
            TrainingError: the files are damaged.
        """
        state = loop.unpack(files[STATE_FILE])
        self.history = [EpochFigures(**row) for row in state["history"]]
        self._model.load_state_dict(state["model"])
        self.epoch = state["epoch"]
        self.best = None if state["best"] is None else Best(**state["best"])
        if state["stage"] is not None:
            self._enter(state["stage"])
        if self._optimiser is not None:
            self._optimiser.load_state_dict(state["optimiser"])


def _stage_of(stages: tuple[StageConfig, ...], epoch: int) -> int:
    """Return the number, from 0, of the stage that an epoch, from 0, belongs to."""
    ends = np.cumsum([stage.epochs for stage in stages])
    return int(np.searchsorted(ends, epoch, side="right"))


def _first_of(stages: tuple[StageConfig, ...], number: int) -> int:
    """Return the first epoch, from 0, of a stage."""
    return sum(stage.epochs for stage in stages[:number])


def _recalls(label_N: NDArray[np.float64], named_N: NDArray[np.float64], classes: tuple[str, ...]) -> dict[str, float]:
    """Return the recall of each class that is present [0-1]."""
    right_N = label_N == named_N
    return {
        name: float(right_N[label_N == code].mean()) for code, name in enumerate(classes) if (label_N == code).any()
    }
