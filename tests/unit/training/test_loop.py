"""Training runs: they learn, they keep the best, they continue as if never stopped, and a bank changes no number."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whole_images
from safetensors.torch import load
from sklearn.metrics import roc_auc_score
from small_runs import (
    CPU,
    GENTLE,
    IMAGES,
    SMALL,
    SMALL_VAL,
    TOPS,
    WHOLE,
    WHOLE_LABELS,
    WHOLES,
    WHOLES_VAL,
    TensorBatches,
    bank_run,
    blobs,
    go,
    image_config,
    patch_config,
    patch_model,
    patch_run,
    read_worker,
    same,
    short_run,
    timeless,
    timeless_state,
    train_as_one_of_two,
)

from mammoflow.config import AugmentConfig, ImageTrainingConfig, StageConfig
from mammoflow.errors import TrainingError
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import PatchClassifier, WholeImageClassifier
from mammoflow.models.top_kinds import parse
from mammoflow.search.bank_run import BankRun, kept
from mammoflow.search.candidates import Changes
from mammoflow.training import loop
from mammoflow.training.loop import Workers


@pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow"])
def test_patches_are_learnt(backbone: str) -> None:
    data = TensorBatches(*blobs(240, 32, 32, 3, seed=0), 16)
    validation = TensorBatches(*blobs(90, 32, 32, 3, seed=1), 16)
    run = patch_run(patch_config(("all", 1e-3, 5)), backbone)
    figures = go(run, data, validation, run.epochs)
    assert run.best is not None
    assert run.best.value > 0.8, "three balanced classes"
    first, last = figures[0][backbone], figures[-1][backbone]
    assert last.loss < first.loss
    assert 0 <= first.data_wait <= 1
    assert first.images_per_s > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_images_are_learnt_on_the_trunk_of_a_patch_classifier(precision: str) -> None:
    trained = patch_run(patch_config(("all", 1e-3, 4)))
    go(trained, TensorBatches(*blobs(240, 32, 32, 3, seed=0), 16), SMALL_VAL, 4)
    patches = model_files.from_files(trained.best_files())
    assert isinstance(patches, PatchClassifier)
    pixels, labels = blobs(64, 128, 128, 2, seed=4)
    data, validation = TensorBatches(pixels, labels, 8), TensorBatches(*blobs(40, 128, 128, 2, seed=5), 8)
    config = ImageTrainingConfig(stages=image_config(4, 2).stages, batch=8, augment=GENTLE, precision=precision)  # type: ignore[arg-type]

    bank = bank_run(config, whole_images.candidates(patches, TOPS, IMAGES, seed=0), labels)
    go(bank, data, validation, bank.epochs)
    name = max(bank.best, key=lambda one: bank.best[one].value)
    first = bank.best[name]
    assert first.value > 0.8

    model = model_files.from_files(bank.last_files(name))
    assert isinstance(model, WholeImageClassifier)
    whole = BankRun(
        config, 1, {name: model}, np.bincount(labels), CPU, Workers(), 2,
        best={name: kept(bank.best_files(name), first.value, first.epoch)},
    )  # fmt: skip
    figures = go(whole, data, validation, whole.epochs)
    assert [row[name].epoch for row in figures] == [5, 6]
    assert whole.best[name].value == max(first.value, *(row[name].val_auc for row in figures))
    best = model_files.from_files(whole.best_files(name))
    assert isinstance(best, WholeImageClassifier)
    scores, truth = [], []
    for batch in validation.epoch(0):
        real = batch.weights > 0
        scores.append(classifiers.flip_averaged(best, batch.pixels)[0][real])
        truth.append(batch.labels[real])
    auc = roc_auc_score(np.concatenate(truth), np.concatenate(scores))
    assert auc == pytest.approx(whole.best[name].value, abs=1e-9 if precision == "fp32" else 0.02)


def test_stages_train_what_they_say() -> None:
    run = patch_run(patch_config(("last", 1e-3, 1), ("top", 1e-4, 1), ("all", 1e-5, 1)))
    model = run._model
    stages = model.trunk.backbone.stages
    top_from = stages.index(model.trunk.backbone.top_from)
    for number, first in enumerate([len(stages), top_from, 0]):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        (figures,) = go(run, SMALL, SMALL_VAL, 1)[0].values()
        assert (figures.stage, figures.epoch, figures.epochs) == (number + 1, number + 1, 3)
        assert figures.lr == (1e-3, 1e-4, 1e-5)[number]
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        learning = ("top.", *(f"trunk.layers.{stage}." for stage in stages[first:]))
        assert all(name.startswith(learning) for name in changed)
        assert {"top.weight", *(["trunk.layers.conv1.weight"] if first == 0 else [])} <= changed


def test_the_best_is_the_first_of_the_highest_accuracy() -> None:
    run = patch_run(patch_config(("all", 3e-4, 6)))
    improved, weights = [], []
    for _ in range(6):
        run.train_epoch(SMALL)
        run.validate(SMALL_VAL)
        improved.append(run.improved)
        weights.append(loop.snapshot(run._model.state_dict()))
    assert run.best is not None
    assert improved[0]
    last = max(number for number, better in enumerate(improved) if better)
    assert run.best.epoch == last + 1
    assert all(torch.equal(value, weights[last][name]) for name, value in run.best.weights.items())
    run.best = loop.Best(value=1.0, epoch=1, weights={})
    assert not loop.is_better(1.0, run.best), "ties keep the earlier"


def test_validation_counts_every_row_once() -> None:
    run = patch_run(patch_config(("all", 1e-3, 1)))
    run.train_epoch(SMALL)
    (figures,) = run.validate(SMALL_VAL).values()  # 21 rows in batches of 16: the second is filled up with 11
    pixels, labels = blobs(21, 32, 32, 3, seed=1)
    with torch.no_grad():
        logits = run._model(classifiers.to_input(torch.from_numpy(pixels)))
    truth = torch.tensor(labels)
    right = (logits.argmax(dim=1) == truth).double()
    assert figures.val_accuracy == pytest.approx(float(right.mean()))
    assert figures.val_loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, truth)), rel=1e-5)
    recalls = [float(right[truth == code].mean()) for code in range(3)]
    assert [figures.val_recalls[name] for name in ("background", "dot", "ring")] == pytest.approx(recalls)
    assert figures.val_balanced_accuracy == pytest.approx(np.mean(recalls))


def test_a_patch_run_continues_as_if_never_stopped() -> None:
    config = patch_config(("top", 1e-3, 2), ("all", 1e-4, 2))
    whole = patch_run(config)
    expected = go(whole, SMALL, SMALL_VAL, 4)
    run, figures = patch_run(config), []
    for _ in range(4):
        stopped = run.state()
        run = patch_run(config)
        run.restore(stopped)
        figures += go(run, SMALL, SMALL_VAL, 1)
    assert timeless(figures) == timeless(expected)
    assert same(timeless_state(run), timeless_state(whole))


@pytest.mark.parametrize("stage", [0, 1])
def test_a_bank_run_continues_as_if_never_stopped(stage: int) -> None:
    def new() -> BankRun:
        models = whole_images.candidates(patch_model(), TOPS[: 2 - stage], IMAGES, seed=0)
        return bank_run(image_config(3, 3), models, WHOLE_LABELS, stage)

    whole = new()
    expected = go(whole, WHOLES, WHOLES_VAL, 3)
    run, figures = new(), []
    for _ in range(3):
        stopped = run.state()
        run = new()
        run.restore(stopped)
        figures += go(run, WHOLES, WHOLES_VAL, 1)
    assert timeless(figures) == timeless(expected)
    assert same(timeless_state(run), timeless_state(whole))
    for name in run.best:
        assert run.best_files(name) == whole.best_files(name)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow"])
def test_a_bank_gives_bit_for_bit_the_numbers_of_training_each_alone(backbone: str, precision: str) -> None:
    tops = [*TOPS, "[4-4-8]x1,8x1", "heatmap,8x1", "fc-pool2-8-4", "sparse", "attention-4"]
    names = [classifiers.candidate_name(backbone, parse(top)) for top in tops]
    changes = {
        name: Changes(lr=1 + number / 2, decay=2.0**number, dropout=number / 10) for number, name in enumerate(names)
    }
    config = replace(image_config(3), precision=precision)

    def run(specs: list[str]) -> tuple[BankRun, list[loop.Figures]]:
        models = whole_images.candidates(patch_model(backbone), specs, IMAGES, seed=4)
        made = BankRun(config, 0, models, np.bincount(WHOLE_LABELS), CPU, Workers(), seed=2, changes=changes)
        return made, go(made, WHOLES, WHOLES_VAL, 3)

    bank, together = run(tops)
    packed = timeless_state(bank)
    assert len({row[name].loss for row in together for name in names}) == 3 * len(names), "no two are the same"
    for name, top in zip(names, tops, strict=True):
        single, alone = run([top])
        for key in ("lr", "loss", "val_loss", "val_auc"):
            assert [getattr(row[name], key) for row in together] == [getattr(row[name], key) for row in alone]
        assert same(packed[name], timeless_state(single)[name])
        assert bank.best_files(name) == single.best_files(name)
        assert bank.last_files(name) == single.last_files(name)


def test_the_frozen_trunk_stays_as_it_is() -> None:
    patches = patch_model()
    before = loop.snapshot(patches.trunk.state_dict())
    go(
        bank_run(image_config(), whole_images.candidates(patches, TOPS, IMAGES, seed=0), WHOLE_LABELS),
        WHOLES,
        WHOLES_VAL,
        1,
    )
    assert all(torch.equal(value, before[name]) for name, value in patches.trunk.state_dict().items())


def test_a_heatmap_is_the_patch_classifiers_until_all_is_trained() -> None:
    (models,) = [whole_images.candidates(patch_model(), ["heatmap,8x1"], IMAGES, seed=0)]
    (model,) = models.values()
    before = loop.snapshot(model.top.heatmap.state_dict())
    go(bank_run(image_config(), models, WHOLE_LABELS), WHOLES, WHOLES_VAL, 1)
    assert same(loop.snapshot(model.top.heatmap.state_dict()), before)
    go(bank_run(image_config(), models, WHOLE_LABELS, stage=1), WHOLES, WHOLES_VAL, 1)
    assert not torch.equal(model.top.heatmap.fc.weight, before["fc.weight"])


def test_sparse_instances_add_to_the_gradient_but_not_to_the_loss_reported() -> None:
    """One step: the gradient is that of cross-entropy + mu * the sum of probabilities, the figure cross-entropy's."""
    still = AugmentConfig(flips=False, rotation=0, shear=0, zoom=0, channel_shift=0)
    plain = replace(image_config(batch=20), augment=still, balanced=False)
    models = whole_images.candidates(patch_model(), ["sparse"], IMAGES, seed=0)
    (model,) = models.values()
    twin = whole_images.whole_image(patch_model(), "sparse", IMAGES, seed=0).model.eval()
    run = bank_run(plain, models, WHOLE_LABELS)
    figures = run.train_epoch(TensorBatches(WHOLE, WHOLE_LABELS, 20))
    logits, extra = twin.top.judge(twin.trunk(classifiers.to_input(torch.from_numpy(WHOLE))))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(WHOLE_LABELS))
    assert next(iter(figures.values())).loss == pytest.approx(loss.item(), rel=1e-5)
    assert (extra > 0).all()
    (loss + extra.mean()).backward()
    for value, other in zip(model.top.head.parameters(), twin.top.head.parameters(), strict=True):
        assert torch.allclose(value.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_weight_decay_is_keras_l2_on_the_top_layers() -> None:
    """One Adam step with coupled decay equals one on loss + lambda * |w|^2."""
    stage = StageConfig(trained="all", lr=1e-2, epochs=1, weight_decay=0.05)
    model = whole_images.whole_image(patch_model(), "8x1", IMAGES, seed=0).model.double().eval()
    twin = whole_images.whole_image(patch_model(), "8x1", IMAGES, seed=0).model.double().eval()
    images = classifiers.to_input(torch.from_numpy(WHOLE[:4])).double()
    truth = torch.tensor(WHOLE_LABELS[:4])

    coupled = loop.optimiser(stage, model.top, model.trunk)
    torch.nn.functional.cross_entropy(model(images), truth).backward()
    coupled.step()

    plain = torch.optim.Adam(twin.parameters(), lr=1e-2)
    squares = sum(p.square().sum() for p in (twin.top.head.blocks[0][0].weight, twin.top.head.fc.weight))
    (torch.nn.functional.cross_entropy(twin(images), truth) + 0.05 * squares).backward()
    plain.step()
    for (name, value), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(value, other, atol=1e-9), name


def test_class_weights() -> None:
    step = torch.tensor([0, 0, 0, 1, 2, 2])
    assert loop.balance_step(torch.tensor([0, 1, 2, 2]), step).tolist() == pytest.approx([2, 6, 3, 3])
    weights = loop.class_weights(np.array([75, 25]))
    assert weights.tolist() == pytest.approx([2 / 3, 2])
    assert float((weights * torch.tensor([75, 25])).sum()) == pytest.approx(100), "mean 1 over the split"
    with pytest.raises(TrainingError, match=r"holds \[5, 0\] images"):
        loop.class_weights(np.array([5, 0]))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    run = patch_run(patch_config(("all", 1e-3, 2)))
    go(run, SMALL, SMALL_VAL, 1)
    with torch.no_grad():
        run._model.top.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss of resnet10_narrow is nan in epoch 2, step 1, at row \d+ \(rows of"):
        run.train_epoch(SMALL)

    models = whole_images.candidates(patch_model(), TOPS, IMAGES, seed=0)
    bank = bank_run(image_config(), models, WHOLE_LABELS)
    with torch.no_grad():
        models["resnet10_narrow-8-8-16x2-8-8-16x1"].top.head.fc.bias.fill_(float("inf"))
    with pytest.raises(TrainingError, match="loss of resnet10_narrow-8-8-16x2-8-8-16x1 is"):
        bank.train_epoch(WHOLES)


def test_what_cannot_train_is_refused() -> None:
    patches = patch_model()
    one = whole_images.candidates(patches, TOPS[:1], IMAGES, seed=0)
    two = whole_images.candidates(patch_model(), TOPS[1:], IMAGES, seed=0)
    with pytest.raises(TrainingError, match="2 candidates on 2 trunks"):
        bank_run(image_config(), one | two, WHOLE_LABELS)
    with pytest.raises(TrainingError, match="2 candidates on 1 trunks can't train together in stage 2"):
        bank_run(image_config(), whole_images.candidates(patches, TOPS, IMAGES, seed=0), WHOLE_LABELS, stage=1)
    run = bank_run(image_config(), one, WHOLE_LABELS)
    with pytest.raises(TrainingError, match="4 validation images are all of class 1"):
        run.validate(TensorBatches(WHOLE[:4], [1] * 4, 2))
    with pytest.raises(TrainingError, match=r"a checkpoint is damaged"):
        run.restore({next(iter(one)): b"PK no torch file"})
    with pytest.raises(TrainingError, match="the checkpoints are of"):
        run.restore(bank_run(image_config(), two, WHOLE_LABELS).state())


def test_packs_cut_anew_in_the_middle_change_no_number() -> None:
    def bank(names: Sequence[str], until: int | None = None) -> BankRun:
        models = {name: model for name, model in whole_models().items() if name in names}
        counts = np.bincount(WHOLE_LABELS)
        return BankRun(image_config(3, 3), 0, models, counts, CPU, Workers(), 2, until=until)

    def whole_models() -> dict[str, WholeImageClassifier]:
        return whole_images.candidates(patch_model(), TOPS, IMAGES, seed=0)

    names = list(whole_models())
    first = bank(names, until=2)
    assert (first.epochs, first.scheduled) == (2, 3)
    go(first, WHOLES, WHOLES_VAL, 2)
    kept = first.state()
    for pack in (names[:1], names[1:]):
        run, alone = bank(pack), bank(pack)
        run.restore({name: kept[name] for name in pack})
        go(run, WHOLES, WHOLES_VAL, 1)
        go(alone, WHOLES, WHOLES_VAL, 3)
        assert same(timeless_state(run), timeless_state(alone))
    ahead = bank(names[:1])
    go(ahead, WHOLES, WHOLES_VAL, 1)
    with pytest.raises(TrainingError, match=r"after \[1, 2\] epochs"):
        bank(names).restore({**kept, **ahead.state()})


@pytest.mark.slow
def test_two_workers_train_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_as_one_of_two, (str(tmp_path),), nprocs=2)
    (one, first), (other, second) = (read_worker(tmp_path / rank) for rank in "01")
    assert first == second, "both workers hold the same model"
    assert timeless(one) == timeless(other)
    alone, expected = short_run(Workers())
    weights = alone.best_files()["model.safetensors"]
    for got, wanted in zip(timeless(one), timeless(expected), strict=True):
        ours, theirs = asdict(got["vgg11"]), asdict(wanted["vgg11"])
        assert ours.pop("val_auc") is theirs.pop("val_auc") is None
        assert ours.pop("val_recalls") == pytest.approx(theirs.pop("val_recalls"), rel=1e-9)
        assert ours == pytest.approx(theirs, rel=1e-9)
    for name, value in load(first).items():
        assert torch.allclose(value, load(weights)[name], rtol=1e-9, atol=1e-9), name
