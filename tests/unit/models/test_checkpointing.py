"""Options that save memory change no number: recomputed activations, micro-batches."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import whole_images
from small_runs import (
    IMAGES,
    SMALL,
    SMALL_VAL,
    TOPS,
    WHOLE_LABELS,
    WHOLES,
    WHOLES_VAL,
    bank_run,
    go,
    image_config,
    patch_config,
    patch_model,
    same,
    timeless,
    timeless_state,
)

from mammoflow.config import ComputeConfig, ImageTrainingConfig
from mammoflow.errors import ConfigError
from mammoflow.facts.training import EpochFigures
from mammoflow.models import checkpointing, model_files
from mammoflow.models.backbones import BACKBONES, GREY_STD, Trunk, seeded
from mammoflow.search.bank_run import BankRun
from mammoflow.training import loop
from mammoflow.training.loop import Workers
from mammoflow.training.patch_run import PatchRun

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["resnet10_narrow", "vgg9_bn_narrow"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    def once(checkpointed: bool) -> tuple[torch.Tensor, Trunk]:
        trunk = seeded(3, lambda: Trunk(BACKBONES[name], 50.0, GREY_STD)).train()
        trunk.checkpointing = checkpointed
        images = 255 * torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
        features = trunk(images)
        features.square().mean().backward()
        return features, trunk

    (features, plain), (again, anew) = once(False), once(True)
    assert torch.equal(features, again)
    assert same(dict(plain.state_dict()), dict(anew.state_dict())), "BatchNorm took the batch once"
    for one, other in zip(plain.parameters(), anew.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(("name", "parts"), [("resnet50", 5), ("vgg16", 5), ("vgg16_bn", 5), ("resnet10_narrow", 5)])
def test_parts_end_where_maps_shrink(name: str, parts: int) -> None:
    with torch.device("meta"):
        layers = BACKBONES[name].build()
    cut = checkpointing.parts(layers)
    assert len(cut) == parts
    assert [layer for part in cut for layer in part] == list(layers)


def test_a_checkpointed_bank_and_patch_run_give_the_same_numbers() -> None:
    def bank(checkpointed: bool) -> BankRun:
        (model,) = whole_images.candidates(patch_model(), TOPS[:1], IMAGES, seed=0).values()
        workers = Workers(checkpointing=checkpointed)
        return BankRun(image_config(), 1, {"one": model}, np.bincount(WHOLE_LABELS), CPU, workers, 2)

    def patches(checkpointed: bool) -> PatchRun:
        return PatchRun(patch_config(("top", 1e-3, 2)), patch_model(), CPU, Workers(checkpointing=checkpointed), seed=2)

    for make, data, validation in ((bank, WHOLES, WHOLES_VAL), (patches, SMALL, SMALL_VAL)):
        plain, anew = make(False), make(True)
        assert timeless(go(anew, data, validation, 2)) == timeless(go(plain, data, validation, 2))
        assert same(timeless_state(anew), timeless_state(plain))


def test_gradients_of_parts_add_up_to_the_steps() -> None:
    """Layers without BatchNorm in training, which sees one part only: FC layers on a frozen trunk, and a patch's FC."""
    whole, cut = (
        bank_run(
            replace(image_config(batch=8), micro_batches=number),
            whole_images.candidates(patch_model(), ["fc-pool2-8-4", "sparse"], IMAGES, seed=0),
            WHOLE_LABELS,
        )
        for number in (1, 3)
    )
    for one, other in zip(go(whole, WHOLES, WHOLES_VAL, 2), go(cut, WHOLES, WHOLES_VAL, 2), strict=True):
        for figure in ("loss", "val_loss", "val_auc"):
            values = ([getattr(row, figure) for row in rows.values()] for rows in (one, other))
            assert next(values) == pytest.approx(next(values), rel=1e-4)

    def patches(number: int) -> PatchRun:
        return PatchRun(
            replace(patch_config(("last", 1e-3, 2)), micro_batches=number), patch_model(), CPU, Workers(), seed=2
        )

    for one, other in zip(go(patches(1), SMALL, SMALL_VAL, 2), go(patches(4), SMALL, SMALL_VAL, 2), strict=True):
        for name, row in one.items():
            assert row.loss == pytest.approx(other[name].loss, rel=1e-5)
            assert row.val_loss == pytest.approx(other[name].val_loss, rel=1e-5)


def test_batches_have_no_more_micro_batches_than_rows() -> None:
    batch = next(SMALL.epoch(0))
    assert [len(part.ids) for part in loop.micro_batches(batch, 3)] == [6, 5, 5]
    assert [name for part in loop.micro_batches(batch, 3) for name in part.ids] == batch.ids
    with pytest.raises(ConfigError, match="micro_batches is 3, but must be 1 to the batch, 2"):
        ImageTrainingConfig(micro_batches=3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPUs needs a C++ compiler")
def test_a_compiled_trunk_trains_as_a_plain_one() -> None:
    def once(compiled: bool) -> tuple[EpochFigures, PatchRun]:
        run = PatchRun(patch_config(("all", 1e-3, 1)), patch_model(), CPU, Workers(compiled=compiled), seed=2)
        (figures,) = go(run, SMALL, SMALL_VAL, 1)[0].values()
        return figures, run

    (plain, one), (compiled, other) = once(False), once(True)
    assert [compiled.loss, compiled.val_loss] == pytest.approx([plain.loss, plain.val_loss], rel=1e-4)
    names = [model_files.from_files(run.best_files()).state_dict().keys() for run in (one, other)]
    assert names[0] == names[1]


def test_sync_batch_norm_is_in_the_place_of_every_other_and_changes_no_name() -> None:
    model, plain = patch_model(), patch_model()
    norms = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in plain.modules())
    run = PatchRun(patch_config(("top", 1e-3, 1)), model, CPU, Workers(sync_batch_norm=True), seed=2)
    found = [layer for layer in model.modules() if isinstance(layer, torch.nn.SyncBatchNorm)]
    assert len(found) == norms > 0
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    model.trunk.set_trained("top")
    model.train()
    assert len({layer.training for layer in found}) == 2, "the frozen ones evaluate"
    assert same(model_files.from_files(run.best_files()).state_dict(), plain.state_dict())


def test_what_this_machine_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="sync_batch_norm is True, but must be False on CPUs"):
        ComputeConfig(sync_batch_norm=True)
    with pytest.raises(ConfigError, match="choose one of the two"):
        ComputeConfig(compile=True, checkpointing=True)
    ComputeConfig(sync_batch_norm=True, gpu=True)
