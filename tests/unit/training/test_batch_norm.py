"""BatchNorm statistics, recalibrated and frozen."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammoflow.config import AugmentConfig, PatchTrainingConfig, StageConfig
from mammoflow.data.batches import Batch
from mammoflow.models import classifiers
from mammoflow.models.classifiers import PatchSpec
from mammoflow.training import batch_norm, loop
from mammoflow.training.loop import Workers
from mammoflow.training.patch_run import PatchRun

STILL = AugmentConfig(flips=False, rotation=0, shear=0, zoom=0, channel_shift=0)


def batch(pixels: NDArray[np.uint16]) -> Batch:
    n = len(pixels)
    labels = torch.arange(n) % 2
    names = [f"row {row}" for row in range(n)]
    return Batch(pixels=torch.from_numpy(pixels), labels=labels, weights=torch.ones(n), ids=names, step_labels=labels)


class OneBatch:
    """A split of one batch, the same every epoch."""

    def __init__(self, one: Batch) -> None:
        self._one = one

    def epoch(self, epoch: int) -> Iterator[Batch]:
        yield self._one


def test_statistics_become_the_plain_mean_over_the_batches() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(1, momentum=0.01), nn.BatchNorm2d(1)).train()
    layers[1].eval()  # as a frozen layer is
    inputs: list[Tensor] = [torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 7.0)]
    waiting = iter(inputs)
    batch_norm.recalibrate(layers, lambda _: layers(next(waiting)), iter([batch(np.zeros((2, 2, 2), np.uint16))] * 2))
    assert layers[0].running_mean.item() == 5.0, "of 3 and 7"
    assert layers[0].running_var.item() == 0.0
    assert layers[0].momentum == 0.01
    assert layers[1].running_mean.item() == 0.0, "frozen layers keep theirs"


def test_a_recalibrated_model_is_judged_as_it_was_trained() -> None:
    """After one large step running averages are worthless; recalibrated, evaluation equals what training computes."""
    pixels = np.random.default_rng(0).integers(20000, 40000, (16, 32, 32)).astype(np.uint16)
    data = OneBatch(batch(pixels))
    stage = StageConfig(trained="all", lr=1e-2, epochs=1)
    config = PatchTrainingConfig(stages=(stage,), batch=16, augment=STILL, precision="fp32")
    spec = PatchSpec(
        precision="fp32",
        backbone="vgg9_bn_narrow",
        classes=("background", "dot"),
        mean_grey=90.0,
        side=32,
        weights=None,
    )
    apart = {}
    for batches in (0, 1):
        run = PatchRun(
            replace(config, recalibrate=batches),
            classifiers.patch_classifier(spec, 1),
            torch.device("cpu"),
            Workers(),
            seed=2,
        )
        run.train_epoch(data)
        judged = run.validate(data)["vgg9_bn_narrow"].val_loss
        run._model.train()
        images = loop.unchanged(next(data.epoch(0)), torch.device("cpu"))
        with torch.no_grad():
            as_trained = nn.functional.cross_entropy(run._model(images), torch.arange(16) % 2).item()
        apart[batches] = abs(judged - as_trained)
    assert apart[1] < 0.05
    assert apart[0] > 0.2


def test_frozen_statistics_stay_while_weights_learn() -> None:
    pixels = np.random.default_rng(0).integers(20000, 40000, (16, 32, 32)).astype(np.uint16)
    data = OneBatch(batch(pixels))
    stage = StageConfig(trained="all", lr=1e-3, epochs=1, batch_norm="frozen")
    config = PatchTrainingConfig(stages=(stage,), batch=16, augment=STILL, precision="fp32", recalibrate=1)
    spec = PatchSpec(
        precision="fp32",
        backbone="vgg9_bn_narrow",
        classes=("background", "dot"),
        mean_grey=90.0,
        side=32,
        weights=None,
    )
    model = classifiers.patch_classifier(spec, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    PatchRun(config, model, torch.device("cpu"), Workers(), seed=2).train_epoch(data)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if "running" in name or "num_batches" in name}
    assert changed == {name for name, _ in model.named_parameters()}
