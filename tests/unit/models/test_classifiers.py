"""Classifiers: what moves from one to the other, what goes into files and comes back, what they say of images."""

import json

import numpy as np
import pytest
import torch
import whole_images

from mammoflow.config import CLASSES, ImageConfig
from mammoflow.errors import ConfigError, LakeError, SpecError
from mammoflow.models import backbones, classifiers, model_files
from mammoflow.models.classifiers import ImageSpec, PatchClassifier, PatchSpec, WholeImageClassifier
from mammoflow.models.top_kinds import parse

IMAGES = ImageConfig(height=160, width=128)
both_trunks = pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow"])


def patch_spec(backbone: str, side: int = 64) -> PatchSpec:
    return PatchSpec(precision="fp32", backbone=backbone, classes=CLASSES, mean_grey=48.0, side=side, weights=None)


def patch_model(backbone: str) -> PatchClassifier:
    """A patch classifier whose BatchNorm has seen something."""
    model = classifiers.patch_classifier(patch_spec(backbone), seed=3)
    model(classifiers.to_input(pixels(4, 64, 64)))
    return model.eval()


def pixels(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).integers(0, 65536, (n, height, width), dtype=np.uint16))


@pytest.mark.parametrize(("backbone", "channels"), [("resnet50", 2048), ("vgg16", 512)])
def test_the_papers_shapes(backbone: str, channels: int) -> None:
    spec = "[512-512-1024]x2,[512-512-1024]x2"
    with torch.device("meta"):
        patches = PatchClassifier(patch_spec(backbone, 224))
        model = WholeImageClassifier(
            ImageSpec(
                precision="fp32",
                backbone=backbone,
                top_layers=parse(spec),
                classes=CLASSES,
                side=224,
                mean_grey=52.18,
                height=1152,
                width=896,
                fit="stretch",
                weights=None,
            )
        ).eval()
        images = torch.empty(1, 3, 1152, 896)
        features = model.trunk(images)
        assert patches(torch.empty(2, 3, 224, 224)).shape == (2, 5)
    assert features.shape == (1, channels, 36, 28)
    assert model.top.head.blocks(features).shape == (1, 1024, 9, 7)
    assert model(images).shape == (1, 2)


@both_trunks
def test_the_whole_image_trunk_gives_the_patch_classifiers_features(backbone: str) -> None:
    patches = patch_model(backbone)
    conversion = whole_images.whole_image(patches, "16x1,8x1", IMAGES, seed=0)
    crop = classifiers.to_input(pixels(2, 64, 64))
    with torch.no_grad():
        assert torch.equal(conversion.model.eval().trunk(crop), patches.trunk(crop))
    names = patches.trunk.state_dict()
    assert conversion.moved == len(names)
    assert all(name.startswith("top.") for name in conversion.new)
    assert conversion.left == ("top.weight", "top.bias")

    with torch.no_grad():
        next(conversion.model.trunk.parameters()).zero_()
    assert next(patches.trunk.parameters()).any(), "the patch classifier is not changed"


@both_trunks
@pytest.mark.parametrize("spec", ["heatmap,[4-4-8]x1", "fc-pool2-8-4", "max"])
def test_a_heatmap_inside_is_the_patch_classifiers(backbone: str, spec: str) -> None:
    patches = patch_model(backbone)
    conversion = whole_images.whole_image(patches, spec, IMAGES, seed=0)
    assert conversion.moved == len(patches.state_dict())
    assert conversion.left == ()
    assert all(name.startswith("top.head.") for name in conversion.new)
    image = pixels(1, 160, 128)
    model = conversion.model.eval()
    with torch.no_grad():
        inside = model.top.heatmap(model.trunk(classifiers.to_input(image)))
    shown = torch.softmax(inside[0], dim=0).permute(1, 2, 0).numpy()
    assert np.allclose(shown, classifiers.heatmap(patches, image[0]), atol=1e-6)


@pytest.mark.parametrize(("backbone", "millions"), [("resnet50", 23.5), ("vgg16", 14.7)])
def test_numbers_of_weights_without_fc_layers(backbone: str, millions: float) -> None:
    with torch.device("meta"):
        trunk = PatchClassifier(patch_spec(backbone, 224)).trunk
    assert sum(parameter.numel() for parameter in trunk.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_candidates_share_a_trunk_and_are_seeded_by_name() -> None:
    patches = patch_model("resnet10_narrow")
    state = torch.random.get_rng_state()
    many = whole_images.candidates(patches, ["16x1,8x1", "[4-4-8]x1,8x1"], IMAGES, seed=5)
    (alone,) = whole_images.candidates(patches, ["[4-4-8]x1,8x1"], IMAGES, seed=5).values()
    assert torch.equal(torch.random.get_rng_state(), state), "torch's own generator is left alone"
    assert list(many) == ["resnet10_narrow-16x1-8x1", "resnet10_narrow-4-4-8x1-8x1"]
    assert all(model.trunk is patches.trunk for model in many.values())
    for name, value in many["resnet10_narrow-4-4-8x1-8x1"].top.state_dict().items():
        assert torch.equal(value, alone.top.state_dict()[name])
    other = whole_images.whole_image(patches, "16x1,8x1", IMAGES, seed=6).model
    assert not torch.equal(other.top.head.fc.weight, many["resnet10_narrow-16x1-8x1"].top.head.fc.weight)


def test_names_and_kinds() -> None:
    resnet, vgg = "[512-512-1024]x2,[512-512-1024]x2", "256x1,128x1"
    assert classifiers.candidate_name("resnet50", resnet) == "resnet50-512-512-1024x2-512-512-1024x2"
    assert classifiers.candidate_name("vgg16", "256x1, 128x1") == "vgg16-256x1-128x1"
    kinds = [
        classifiers.candidate_kind(trunk, parse(top)) for trunk in ("resnet50", "vgg16_bn") for top in (resnet, vgg)
    ]
    assert kinds == ["Resnet-Resnet", "Resnet-VGG", "VGG-Resnet", "VGG-VGG"]


def test_input_covers_the_full_range() -> None:
    images = classifiers.to_input(torch.tensor([[[0, 65535], [257, 32768]]], dtype=torch.uint16))
    assert images.shape == (1, 3, 2, 2)
    assert images.dtype == torch.float32
    assert images[0, 2].flatten().tolist() == pytest.approx([0, 255, 1, 127.502], abs=1e-3)


@both_trunks
def test_files_bring_back_the_same_model(backbone: str) -> None:
    patches = patch_model(backbone)
    specs = ("16x1,[4-4-8]x1", "heatmap,[4-4-8]x1", "fc-pool2-8-4", "attention-4")
    whole = [whole_images.whole_image(patches, spec, IMAGES, seed=0).model.eval() for spec in specs]
    images = classifiers.to_input(pixels(2, 160, 128))
    for model in (patches, *whole):
        files = model_files.to_files(model)
        assert set(files) == {"model.json", "model.safetensors"}
        again = model_files.from_files(files)
        assert again.spec == model.spec
        assert not again.training
        with torch.no_grad():
            assert torch.equal(again(images), model(images))
        assert model_files.to_files(again) == files


def test_damaged_files_are_refused() -> None:
    files = model_files.to_files(patch_model("resnet10_narrow"))
    about = json.loads(files["model.json"])

    def with_about(**changes: object) -> dict[str, bytes]:
        return files | {"model.json": json.dumps(about | changes).encode()}

    bad = [
        ({"model.json": files["model.json"]}, LakeError, "model.safetensors is missing"),
        (files | {"model.json": b"{"}, LakeError, "model.json is damaged"),
        (with_about(kind="pickle"), LakeError, "model.json is damaged"),
        (with_about(format=1), LakeError, "format 1, but this version of mammoflow reads 3"),
        (with_about(backbone="resnet5"), ConfigError, "'resnet5', but must be one of"),
        (with_about(classes=["background", "lesion"]), LakeError, r"2 of 74 weights .* don't fit .* top\.bias"),
        (with_about(backbone="vgg9_bn_narrow"), LakeError, "weights in model.safetensors don't fit"),
        (files | {"model.safetensors": files["model.safetensors"][:1000]}, LakeError, "model.safetensors is damaged"),
        (files | {"model.safetensors": b""}, LakeError, "model.safetensors is damaged"),
    ]
    for broken, error, message in bad:
        with pytest.raises(error, match=message):
            model_files.from_files(broken)


def test_sizes_that_a_model_cannot_take_are_refused() -> None:
    patches = patch_model("resnet10_narrow")
    with pytest.raises(SpecError, match="5x4 -> 2x2 -> 1x1 -> 0x0"):
        whole_images.candidates(patches, ["8x1,8x1,8x1"], IMAGES, seed=0)
    with pytest.raises(ConfigError, match="16x16 px are too small for vgg16"):
        PatchClassifier(patch_spec("vgg16", side=16))


@both_trunks
def test_flip_averaged_is_the_mean_of_four_predictions(backbone: str) -> None:
    model = whole_images.whole_image(patch_model(backbone), "16x1,8x1", IMAGES, seed=0).model.eval()
    images = pixels(3, 160, 128)
    score, averaged = classifiers.flip_averaged(model, images)
    assert score.dtype == averaged.dtype == np.float64
    one_by_one = []
    for dims in ([], [1], [2], [1, 2]):
        flipped = torch.from_numpy(np.flip(images.numpy(), axis=tuple(dims)).copy())
        with torch.no_grad():
            one_by_one.append(torch.softmax(model(classifiers.to_input(flipped)), dim=1)[:, 1].numpy())
    assert np.allclose(score, one_by_one[0], atol=1e-6)
    assert np.allclose(averaged, np.mean(one_by_one, axis=0), atol=1e-6)
    assert np.allclose(classifiers.flip_averaged(model, torch.from_numpy(images.numpy()[:, ::-1].copy()))[1], averaged)


@both_trunks
def test_heatmap_of_one_patch_is_its_prediction(backbone: str) -> None:
    model = patch_model(backbone)
    image = pixels(1, 160, 128)[0]
    cells = classifiers.heatmap(model, image)
    assert cells.shape == (4, 3, 5)
    assert np.allclose(cells.sum(axis=2), 1, atol=1e-5)
    with torch.no_grad():
        expected = torch.softmax(model(classifiers.to_input(image[None, :64, :64])), dim=1).numpy()
    assert np.allclose(classifiers.heatmap(model, image[:64, :64]), expected, atol=1e-6)


@both_trunks
def test_a_heatmap_cell_is_that_of_a_crop_with_a_margin_of_the_receptive_field(backbone: str) -> None:
    """And not that of the patch alone, which its own border of zeros surrounds."""
    model = patch_model(backbone)
    margin = 32 * (backbones.find(backbone).receptive_field // 2 // 32 + 1)
    side = model.spec.side
    image = pixels(1, 2 * margin + side + 96, 2 * margin + side + 64)[0]
    cells = classifiers.heatmap(model, image)
    row, column = 2, 1  # cells from the first whose margin lies within the image
    top, left = 32 * row, 32 * column
    crop = image[top : top + 2 * margin + side, left : left + 2 * margin + side]
    at = margin // 32
    aligned = classifiers.heatmap(model, crop)[at, at]
    assert np.allclose(cells[row + at, column + at], aligned, atol=1e-6)
    alone = crop[margin : margin + side, margin : margin + side]
    isolated = classifiers.heatmap(model, alone)[0, 0]
    assert np.abs(isolated - aligned).max() > 1e-4


def test_heatmap_of_the_papers_size() -> None:
    model = PatchClassifier(patch_spec("resnet10_narrow", side=224)).eval()
    assert classifiers.heatmap(model, torch.zeros(1152, 896, dtype=torch.uint16)).shape == (30, 22, 5)


def test_a_model_folder_holds_its_precision_and_other_formats_are_refused() -> None:
    whole = whole_images.candidates(patch_model("resnet10_narrow"), ["8x1"], IMAGES, seed=0, precision="bf16")
    (model,) = whole.values()
    files = model_files.to_files(model)
    assert model_files.read_spec(files["model.json"]) == model.spec
    assert model.spec.precision == "bf16"
    older = json.dumps({**json.loads(files["model.json"]), "format": 2}).encode()
    with pytest.raises(LakeError, match="has format 2, but this version of mammoflow reads 3; train the model again"):
        model_files.read_spec(older)
