"""Training of whole-image classifiers: a bank of candidates on one frozen trunk, then one of them with all its layers.

Plain PyTorch: no Ray, no files. In stage 1 the trunk runs once a batch for all K candidates; each has its own loss and
optimiser, so its numbers are bit for bit those of training it alone.

Shape letters: K candidates, N rows of a batch. Source: paper, methods (2-stage schedule).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mammoflow.config import ImageTrainingConfig
from mammoflow.data.batches import Batch
from mammoflow.errors import ModelError, TrainingError
from mammoflow.facts.training import EpochFigures, Validation
from mammoflow.models import classifiers, devices
from mammoflow.models.backbones import Trunk
from mammoflow.models.classifiers import WholeImageClassifier
from mammoflow.models.model_files import from_files, to_files
from mammoflow.models.top_layers import TopLayerBank
from mammoflow.search.candidates import NONE, Changes
from mammoflow.training import batch_norm, cost, loop
from mammoflow.training.loop import Batches, Best, EpochLosses, Feed, Figures, Workers


class BankRun:
    """Trains K candidates through one stage and keeps each one's weights of the best validation AUC."""

    def __init__(
        self,
        config: ImageTrainingConfig,
        stage: int,
        candidates: Mapping[str, WholeImageClassifier],
        class_counts: NDArray[np.int64],
        device: torch.device,
        workers: Workers,
        seed: int,
        *,
        changes: Mapping[str, Changes] | None = None,
        best: Mapping[str, Best] | None = None,
        until: int | None = None,
    ) -> None:
        """Move the candidates to the device; nothing is trained yet.

        Args:
            config: both stages, batch, augmentation, precision.
            stage: 0 trains the top layers alone, 1 everything.
            candidates: by name, to be trained in place; they share one trunk (`classifiers.candidates`). Stage 1 takes
                one, with the last weights of stage 0.
            class_counts: benign and malignant images in the training split.
            device: of this worker.
            workers: this worker among all.
            seed: of the augmentations.
            changes: how candidates differ from the config's stage, by name; others are trained as it says.
            best: what stage 0 kept (`kept`), to be beaten in stage 1.
            until: epochs of this stage after which to stop; None: all of them.

        Raises:
            TrainingError: candidates on different trunks, several in stage 1, or a class without images.
        """
        self.epoch = 0
        self.improved: tuple[str, ...] = ()
        self.best: dict[str, Best] = dict(best or {})
        self.history: dict[str, list[EpochFigures]] = {name: [] for name in candidates}
        self._until = until
        self._config, self._number, self._device = config, stage, device
        self._workers, self._seed = workers, seed
        self._stage = config.stages[stage]
        self._stages = {name: (changes or {}).get(name, NONE).of(self._stage) for name in candidates}
        self._before = sum(earlier.epochs for earlier in config.stages[:stage])
        self._total = sum(one.epochs for one in config.stages)
        self._models = dict(candidates)
        self._trunk = _shared_trunk(self._models, stage)
        self._class_weights = loop.class_weights(class_counts) if config.balanced else torch.ones(2)
        bank = TopLayerBank([model.top for model in candidates.values()])
        layers: OrderedDict[str, nn.Module] = OrderedDict(trunk=self._trunk, bank=bank)
        self._layers = nn.Sequential(layers)
        loop.prepare(self._layers, self._trunk, device, workers)
        self._trunk.set_trained(self._stage.trained)
        for model in candidates.values():
            model.top.set_trained(heatmap=self._stage.trained == "all")
        self._net = workers.wrap(self._layers)
        self._optimisers = [
            loop.optimiser(self._stages[name], model.top, self._trunk) for name, model in self._models.items()
        ]

    @property
    def epochs(self) -> int:
        """Return the epochs that this run goes to."""
        return self.scheduled if self._until is None else min(self._until, self.scheduled)

    @property
    def scheduled(self) -> int:
        """Return the epochs of this stage; in stage 2 they grow while a model has not converged.

        Source: paper, methods (resumed for up to 200 more epochs where not converged).
        """
        planned = self._stage.epochs
        if self._number == 0 or not self._config.resume or not self.best or self.epoch < planned:
            return planned
        (best,) = self.best.values()
        if best.epoch <= self._total - self._config.unconverged:
            return planned
        wanted = best.epoch + self._config.patience - self._before
        return max(planned, min(wanted, planned + self._config.resume))

    def train_epoch(self, batches: Batches) -> Figures:
        """Train one epoch of all candidates.

        Raises:
            TrainingError: a loss is not finite.
        """
        self._layers.train()
        if self._stage.batch_norm == "frozen":
            batch_norm.freeze(self._layers)
        epoch = self._before + self.epoch
        lr = {name: loop.learning_rate(stage, self.epoch) for name, stage in self._stages.items()}
        for optimiser, rate in zip(self._optimisers, lr.values(), strict=True):
            loop.set_learning_rate(optimiser, rate)
        losses = EpochLosses(list(self._models), epoch + 1)
        feed = Feed(batches.epoch(epoch), self._workers.world_size)
        for batch in feed:
            self._step(batch, losses)
        if self._config.recalibrate:
            batch_norm.recalibrate(
                self._layers, self._forward, islice(batches.epoch(epoch + 1), self._config.recalibrate)
            )
        self.epoch += 1
        images_per_s, data_wait = feed.speed()
        return {
            name: EpochFigures(
                epoch=epoch + 1,
                epochs=self._total,
                stage=self._number + 1,
                lr=lr[name],
                loss=loss,
                images_per_s=images_per_s,
                data_wait=data_wait,
            )
            for name, loss in losses.means(self._workers).items()
        }

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return each candidate's logits (K, N, 2) of a batch, augmented for this epoch and stage.

        With them comes what is added to each row's loss (K, N).
        """
        epoch = self._before + self.epoch
        images = loop.augmented(batch, self._config.augment, self._seed, epoch, self._number, self._device)
        for name, model in self._models.items():
            model.top.prepare_dropout(
                self._stages[name].dropout, [f"{self._seed}/{name}/{epoch}/{one}" for one in batch.ids]
            )
        with devices.autocast(self._device, self._config.precision):
            judged: tuple[Tensor, Tensor] = self._net(images)
        return judged

    def _step(self, batch: Batch, losses: EpochLosses) -> None:
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        micro_losses = loop.accumulate(self._net, batch, self._config.micro_batches, self._add_gradient)
        for optimiser in self._optimisers:
            optimiser.step()
        losses.add(torch.cat(micro_losses, dim=1), batch.weights, batch.ids)

    def _add_gradient(self, batch: Batch) -> Tensor:
        """Add the gradient of a micro-batch; returns the losses (K, N)."""
        weights_N = (batch.weights * self._class_weights[batch.labels]).to(self._device)
        logits_KN2, extra_KN = self._forward(batch)
        losses_KN = _cross_entropies(loop.at_least_float32(logits_KN2), batch.labels.to(self._device))
        # workers' gradients are averaged: each gives its part of the step's mean, times their number
        loss = ((losses_KN + loop.at_least_float32(extra_KN)) * weights_N).sum() * (
            self._workers.world_size / len(batch.step_labels)
        )
        torch.autograd.backward(loss)  # the sum over candidates: none of them is in another's gradient
        return losses_KN.detach()

    @torch.inference_mode()
    def validate(self, batches: Batches) -> dict[str, Validation]:
        """Judge every candidate on the validation split; keep those whose AUC is the best so far.

        Raises:
            TrainingError: the split holds one class only, or scores are not finite.
        """
        batch_norm.sync_buffers(self._layers, self._workers)
        self._layers.eval()
        rows = np.concatenate([self._judge(batch) for batch in batches.epoch(self.epoch)])
        label_N, *columns = self._workers.gather(rows).T
        score_KN, loss_KN = np.split(np.array(columns), 2)
        aucs = {name: self._auc(name, label_N, score_N) for name, score_N in zip(self._models, score_KN, strict=True)}
        self.improved = tuple(name for name, auc in aucs.items() if loop.is_better(auc, self.best.get(name)))
        for name in self.improved:
            weights = loop.snapshot(self._trained_weights(name))
            self.best[name] = Best(value=aucs[name], epoch=self._before + self.epoch, weights=weights)
        losses = loss_KN.mean(axis=1).tolist()
        return {
            name: Validation(val_loss=loss, val_auc=auc) for (name, auc), loss in zip(aucs.items(), losses, strict=True)
        }

    def _judge(self, batch: Batch) -> NDArray[np.float64]:
        """Return (label, K scores, K losses) of each real row of a batch: float64 (rows, 1 + 2 K)."""
        with devices.autocast(self._device, self._config.precision):
            logits_KN2, _ = self._layers(loop.unchanged(batch, self._device))
        logits_KN2 = logits_KN2.double().cpu()
        score_KN = logits_KN2.softmax(dim=-1)[..., 1]
        loss_KN = _cross_entropies(logits_KN2, batch.labels)
        rows = torch.cat([batch.labels[None].double(), score_KN, loss_KN]).T
        return rows[batch.weights > 0].numpy()

    def _auc(self, name: str, label_N: NDArray[np.float64], score_N: NDArray[np.float64]) -> float:
        if len(np.unique(label_N)) < 2:
            raise TrainingError(
                f"the {len(label_N)} validation images are all of class {label_N[0]:.0f}; an AUC needs both: use more"
            )
        if not np.isfinite(score_N).all():
            raise ModelError(
                f"{name} gives scores that are not finite in epoch {self._before + self.epoch}; lower its lr", name
            )
        return float(roc_auc_score(label_N, score_N))

    def _trained_weights(self, name: str) -> dict[str, Tensor]:
        """Return what this stage changes of a candidate: a frozen trunk is the same for all and for ever."""
        state = self._models[name].state_dict()
        return {key: value for key, value in state.items() if self._number == 1 or key.startswith("top.")}

    def parameters(self, name: str) -> int:
        """Return how many weights a candidate has, its trunk's included."""
        return sum(parameter.numel() for parameter in self._models[name].parameters())

    def flops(self, name: str) -> int:
        """Return the operations of a candidate's forward pass of one image [FLOP], its trunk's included."""
        spec = self._models[name].spec
        trunk = cost.of_trunk(spec.backbone, spec.height, spec.width, torch.float32)
        return trunk.flops + cost.of_top(spec.top_layers, classifiers.ground_of(spec), torch.float32).flops

    def best_files(self, name: str) -> dict[str, bytes]:
        """Return the model folder of a candidate's best epoch; before any validation, of the current weights."""
        model = self._models[name]
        kept = self.best[name].weights if name in self.best else {}
        return to_files(model, model.state_dict() | kept)

    def last_files(self, name: str) -> dict[str, bytes]:
        """Return the model folder of a candidate's current weights, from which stage 2 continues."""
        return to_files(self._models[name])

    def record(self, figures: Figures) -> None:
        """Add the figures of the epoch just judged to each candidate's history."""
        for name, rows in self.history.items():
            rows.append(figures[name])

    def state(self) -> dict[str, bytes]:
        """Return all that is needed to continue, a file for each candidate; without the trunk where it is frozen."""
        return {
            name: loop.pack(
                {
                    "epoch": self.epoch,
                    "history": [asdict(row) for row in self.history[name]],
                    "weights": self._trained_weights(name),
                    "optimiser": optimiser.state_dict(),
                    "best": self.best[name].to_state() if name in self.best else None,
                }
            )
            for name, optimiser in zip(self._models, self._optimisers, strict=True)
        }

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Continue from files of `state`: on the CPU, the numbers are those of a run that was never stopped.

        Candidates may come from different packs, so long as they have done the same epochs.

        Raises:
            TrainingError: the files are damaged, or of other candidates or different epochs.
        """
        states = {name: loop.unpack(file) for name, file in files.items()}
        epochs = {state["epoch"] for state in states.values()}
        if list(states) != list(self._models) or len(epochs) != 1:
            raise TrainingError(
                f"the checkpoints are of {list(states)} after {sorted(epochs)} epochs, this run trains "
                f"{list(self._models)} together; delete them to start afresh"
            )
        for (name, state), optimiser in zip(states.items(), self._optimisers, strict=True):
            self._models[name].load_state_dict(state["weights"], strict=self._number == 1)
            optimiser.load_state_dict(state["optimiser"])
            self.history[name] = [EpochFigures(**row) for row in state["history"]]
        (self.epoch,) = epochs
        self.best = {name: Best(**state["best"]) for name, state in states.items() if state["best"]}


def _shared_trunk(candidates: Mapping[str, WholeImageClassifier], stage: int) -> Trunk:
    """Return the trunk that candidates have in common; refuse those that can't train together."""
    trunks = {id(model.trunk): model.trunk for model in candidates.values()}
    if len(trunks) != 1 or (stage == 1 and len(candidates) != 1):
        raise TrainingError(
            f"{len(candidates)} candidates on {len(trunks)} trunks can't train together in stage {stage + 1}; "
            "stage 1 takes candidates that share one trunk, stage 2 a single one"
        )
    (trunk,) = trunks.values()
    return trunk


def kept(files: Mapping[str, bytes], value: float, epoch: int) -> Best:
    """Return the best of an earlier stage from its model folder, its validation AUC and its epoch.

    Raises:
        LakeError: the folder is damaged.
    """
    return Best(value=value, epoch=epoch, weights=from_files(files).state_dict())


def _cross_entropies(logits_KN2: Tensor, labels_N: Tensor) -> Tensor:
    """Return the loss of each candidate on each row: (K, N)."""
    return torch.stack([cross_entropy(logits_N2, labels_N, reduction="none") for logits_N2 in logits_KN2])
