"""Nets of timm as trunks: what the registry says of them, measured; the same training, files and names as ours."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import whole_images
from real_weights import LITE0, imagenet_lite0
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from mammoflow import recipes
from mammoflow.config import CLASSES, ImageConfig
from mammoflow.errors import ConfigError, TrainingError
from mammoflow.lake import Lake
from mammoflow.models import backbones, checkpointing, classifiers, model_files, timm_trunks, weights
from mammoflow.models.backbones import BACKBONES, GREY_STD, Trunk, feature_size, seeded
from mammoflow.models.classifiers import PatchSpec, WholeImageClassifier
from mammoflow.models.top_kinds import parse
from mammoflow.pipeline import graph
from mammoflow.search import tuning
from mammoflow.training import batch_norm, loop

timm = pytest.importorskip("timm", reason="the package timm is not installed")

FACTS = {
    LITE0: ("EfficientNet", 1280, "blocks.3", 127.5),
    "timm:resnet10t": ("Resnet", 512, "layer3.0", 255 * 0.226),
    "timm:regnetx_002": ("RegNet", 368, "s3", 255 * 0.226),
    "timm:mobilenetv3_small_050": ("MobileNetV3", 1024, "blocks.2", 255 * 0.226),
    "timm:densenet121": ("DenseNet", 1024, "features.denseblock2", 255 * 0.226),
    "timm:resnet50": ("Resnet", 2048, "layer2.1", 255 * 0.226),
    "timm:vgg11_bn": ("VGG", 512, "features.15", 255 * 0.226),
}
SMALL = ("timm:resnet10t", "timm:regnetx_002", "timm:mobilenetv3_small_050")
BLURRED = "timm:resnetblur18"
"""Its blurring filter is in no file of weights."""


def a_trunk(name: str, seed: int = 0) -> Trunk:
    backbone = backbones.find(name)
    return seeded(seed, lambda: Trunk(backbone, 50.0, backbone.grey_std))


def images(n: int = 2, height: int = 96, width: int = 64) -> Tensor:
    return 255 * torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def patch_spec(name: str, weights: str | None = None) -> PatchSpec:
    return PatchSpec(precision="fp32", backbone=name, classes=CLASSES, mean_grey=50.0, side=64, weights=weights)


@pytest.mark.parametrize("name", FACTS)
def test_entries_say_what_the_nets_are(name: str) -> None:
    family, channels, top_from, grey_std = FACTS[name]
    entry = backbones.find(name)
    assert entry is backbones.find(name), "built once"
    assert (entry.name, entry.family, entry.channels, entry.top_from) == (name, family, channels, top_from)
    assert entry.scale(None) == entry.scale("imagenet") == entry.scale("a.pth") == pytest.approx(grey_std, rel=0.01)
    assert feature_size(entry, 1152, 896) == (36, 28)

    with torch.device("meta"):
        net = entry.build().eval()
        assert net(torch.empty(1, 3, 320, 64)).shape == (1, channels, 10, 2)
    by_stage = [key for stage in entry.stages for key, _ in net.get_submodule(stage).named_parameters(stage)]
    assert sorted(by_stage) == sorted(key for key, _ in net.named_parameters()), "stages hold every weight once"


@pytest.mark.parametrize("name", BACKBONES)
def test_the_measured_layout_is_that_of_our_own_trunks(name: str) -> None:
    """The rule by which a net of timm is cut says of ours what the registry says."""
    entry = BACKBONES[name]
    with torch.device("meta"):
        net = nn.ModuleDict({"net": entry.build().eval()})["net"]
    layout = timm_trunks.measure(net)
    weighty = [stage for stage in entry.stages if any(True for _ in net.get_submodule(stage).parameters())]
    assert (layout.channels, layout.top_from, list(layout.stages)) == (entry.channels, entry.top_from, weighty)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", r"can't be a trunk: .*choose a convolutional net of stride 32"),
        ("convmixer_1024_20_ks9_p14", r"it makes \(1, 1024, 18, 13\), not a map of \(1, C, 8, 6\)"),
        ("inception_v3", r"it makes \(1, 2048, 6, 4\), not a map"),
        ("mambaout_femto", r"it makes \(1, 8, 6, 1152\), not a map"),
        ("resnet5", r"backbone is 'timm:resnet5', but timm .* has no 'resnet5'; .*such as timm:resnet50"),
        ("resnet50.of_no_tag", r"has no 'resnet50\.of_no_tag'"),
        ("hf-hub:timm/resnet18.a1_in1k", r"has no 'hf-hub:timm/resnet18"),
        ("", r"has no ''"),
    ],
)
def test_what_is_no_trunk_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        backbones.find(f"timm:{name}")


@pytest.mark.slow
def test_timm_is_imported_only_where_it_is_asked_for() -> None:
    code = "import sys, mammoflow.models.weights; sys.exit('timm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_timm_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm:resnet18 needs the package timm .*pip install 'mammoflow\[timm\]'"):
        backbones.find("timm:resnet18")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("trained", ["last", "top", "all"])
def test_frozen_layers_never_change(name: str, trained: backbones.Trained) -> None:
    trunk = a_trunk(name)
    entry = trunk.backbone
    trunk.set_trained(trained)
    trunk.train()
    before = {key: value.clone() for key, value in trunk.layers.state_dict().items()}
    learning = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
    features = trunk(images())
    if learning:
        features.square().mean().backward()
        torch.optim.SGD(learning, lr=1.0).step()
    changed = {key for key, value in trunk.layers.state_dict().items() if not torch.equal(value, before[key])}
    first = {"last": len(entry.stages), "top": entry.stages.index(entry.top_from), "all": 0}[trained]
    learns = {stage for stage in entry.stages[first:] if any(key.startswith(f"{stage}.") for key in changed)}
    assert learns == set(entry.stages[first:])
    assert all(key.startswith(tuple(f"{stage}." for stage in learns)) for key in changed if learns)
    assert bool(changed) == bool(learning)


@pytest.mark.parametrize("name", [*SMALL, BLURRED])
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    def once(checkpointed: bool) -> tuple[Tensor, Trunk]:
        trunk = a_trunk(name).train()
        trunk.set_trained("top")
        trunk.checkpointing = checkpointed
        features = trunk(images())
        features.square().mean().backward()
        return features, trunk

    (features, plain), (again, anew) = once(False), once(True)
    assert torch.equal(features, again)
    for (key, value), other in zip(plain.state_dict().items(), anew.state_dict().values(), strict=True):
        assert torch.equal(value, other), f"{key}: BatchNorm took the batch once"
    for one, other in zip(plain.parameters(), anew.parameters(), strict=True):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad)
    assert all("forward" not in vars(layer) for layer in anew.modules()), "the net is as it was"


def test_sync_batch_norm_keeps_the_activation_that_timm_s_batch_norm_holds() -> None:
    trunk = seeded(0, lambda: Trunk(backbones.find("timm:tf_efficientnet_lite0"), 50.0, 100.0))
    images = 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before, names = trunk.eval()(images), list(trunk.state_dict())
    loop.prepare(trunk, trunk, torch.device("cpu"), loop.Workers(sync_batch_norm=True))
    assert any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in trunk.modules())
    torch.testing.assert_close(trunk.eval()(images), before, rtol=1e-4, atol=1e-4)
    assert list(trunk.state_dict()) == names


def test_checkpointing_keeps_less() -> None:
    def kept(checkpointed: bool) -> int:
        trunk = a_trunk("timm:resnet10t").train()
        trunk.checkpointing = checkpointed
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            trunk(images())
        return sum(sizes)

    assert kept(True) < kept(False) / 2


class Spoilt(nn.Module):
    """Doubles in place what its first layer was given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.second(images)
        features = self.first(images).tanh()
        with torch.no_grad():
            images.mul_(2)
        return features


def test_checkpointing_refuses_inputs_that_were_changed_since() -> None:
    net = Spoilt()
    features = checkpointing.run(net, ("first", "second"), images())
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):  # torch's own word
        features.sum().backward()


def test_nothing_is_left_to_chance() -> None:
    """GhostNet drops a fifth of the features by default."""
    trunk = a_trunk("timm:ghostnet_050").train()
    one, other = (seeded(seed, lambda: trunk(images())) for seed in (1, 2))
    assert torch.equal(one, other)


def test_batchnorm_averages_slowly_and_settles() -> None:
    trunk = a_trunk("timm:resnet10t").train()
    norms = [layer for layer in trunk.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {backbones.BN_MOMENTUM}
    batch = images()
    batch_norm.recalibrate(trunk, trunk, iter([batch, batch]))
    trained = trunk(batch)
    norm = norms[0]
    seen = nn.functional.conv2d((batch - 50) / trunk.scale, trunk.layers.conv1[0].weight, stride=2, padding=1)
    assert isinstance(norm.running_mean, Tensor)
    assert torch.allclose(norm.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-5)
    assert norm.momentum == backbones.BN_MOMENTUM
    assert torch.allclose(trunk.eval()(batch), trained, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", BLURRED])
def test_a_model_folder_holds_all_of_a_model(name: str) -> None:
    made = classifiers.patch_classifier(patch_spec(name), seed=1).eval()
    read = model_files.from_files(model_files.to_files(made))
    assert torch.equal(read(images()), made(images()))

    top = whole_images.whole_image(made, "8x1,8x1", ImageConfig(height=160, width=128), seed=2).model.eval()
    again = model_files.from_files(model_files.to_files(top))
    assert isinstance(again, WholeImageClassifier)
    film = images(1, 160, 128)
    assert torch.equal(again(film), top(film))
    torch.testing.assert_close(top.trunk(film), made.trunk(film), rtol=0, atol=0)


def test_names_of_folders_and_runs_hold_no_colon(tmp_path: Path) -> None:
    (asked,) = recipes.smoke().trunks
    config = replace(recipes.smoke(), trunks=(replace(asked, backbone="timm:resnet10t"),))
    one, other = tuning.plan(config)
    assert (one.name, one.backbone, one.kind) == ("timm-resnet10t-16x1-8x1", "timm:resnet10t", "Resnet-VGG")
    assert other.name == "timm-resnet10t-8-8-16x1-8-8-16x1"
    assert classifiers.candidate_name(LITE0, parse("256x1,128x1")) == "timm-tf_efficientnet_lite0-256x1-128x1"
    assert classifiers.candidate_kind(LITE0, parse("256x1,128x1")) == "EfficientNet-VGG"
    found = graph.locate(config, Lake(str(tmp_path))).trunks["timm:resnet10t"]
    assert found.key.startswith("trunks/timm-resnet10t-")


@pytest.fixture(scope="module")
def real_lite0(tmp_path_factory: pytest.TempPathFactory) -> str:
    return imagenet_lite0(tmp_path_factory.mktemp("lite0") / "lite0.safetensors")


def judge(trunk: Trunk, file: str, photo: str) -> list[int]:
    """Return the five ImageNet classes that the trunk and the file's own classifier find most likely."""
    fc = timm.models.load_state_dict(file)
    image = torch.from_numpy(load_sample_image(photo).copy()).permute(2, 0, 1)[None].float()
    small = nn.functional.interpolate(image, (224, 336), mode="bilinear", antialias=True)
    with torch.inference_mode():
        features = trunk.eval()(small).mean(dim=(2, 3))[0]
        return (fc["classifier.weight"] @ features + fc["classifier.bias"]).topk(5).indices.tolist()


def test_real_imagenet_weights_of_a_file_fit_and_see(real_lite0: str) -> None:
    """A palace by a lake, and a flower: photographs of scikit-learn's."""
    entry = backbones.find(LITE0)
    trunk = Trunk(entry, 127.5, entry.scale(real_lite0))
    weights.load(trunk, real_lite0)
    held = timm.models.load_state_dict(real_lite0)
    assert all(torch.equal(value, held[key]) for key, value in trunk.layers.state_dict().items())
    assert held.keys() - trunk.layers.state_dict().keys() == {"classifier.weight", "classifier.bias"}
    assert {698, 975} <= {*judge(trunk, real_lite0, "china.jpg")}, "palace, lakeside"
    assert 985 in judge(trunk, real_lite0, "flower.jpg"), "daisy"


def test_published_weights_arrive(real_lite0: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lies in Hugging Face's cache as if downloaded before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    trunk = a_trunk(LITE0)
    with pytest.raises(
        TrainingError, match=r"can't download https://huggingface\.co/timm/tf_efficientnet_lite0\.in1k .*weights=None"
    ):
        weights.load(trunk, "imagenet")

    repository = tmp_path / "models--timm--tf_efficientnet_lite0.in1k"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to(real_lite0)
    model = classifiers.patch_classifier(patch_spec(LITE0, "imagenet"), seed=0)
    assert model.trunk.scale == 127.5
    weights.load(trunk, real_lite0)
    for one, other in zip(model.trunk.state_dict().values(), trunk.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_net_without_published_weights_says_so() -> None:
    assert backbones.find("timm:nf_regnet_b0").grey_std == pytest.approx(GREY_STD, rel=0.01)
    with pytest.raises(ConfigError, match=r"timm:nf_regnet_b0 has no weights 'imagenet' \(known: none\)"):
        weights.check(backbones.find("timm:nf_regnet_b0"), "imagenet")
