"""Weights that a trunk begins with: by name, from files of several makes, and never code from a pickle."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mammoflow import recipes
from mammoflow.config import CLASSES
from mammoflow.errors import ConfigError, TrainingError
from mammoflow.lake import Lake
from mammoflow.models import classifiers, model_files, weights
from mammoflow.models.backbones import BACKBONES, GREY_STD, Trunk
from mammoflow.models.classifiers import PatchSpec
from mammoflow.pipeline import graph
from mammoflow.search import tuning


def trunk(name: str = "resnet10_narrow") -> Trunk:
    return Trunk(BACKBONES[name], 50.0, GREY_STD)


def test_pretrained_weights_arrive_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision publishes has `features.` before each name and an FC that the trunk lacks."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = {f"features.{name}": value for name, value in BACKBONES["vgg11"].build().state_dict().items()}
    published["classifier.0.weight"] = torch.zeros(1)
    file = tmp_path / "hub" / "checkpoints" / Path(BACKBONES["vgg11"].pretrained["imagenet"].url).name
    file.parent.mkdir(parents=True)
    torch.save(published, file)  # as if downloaded before
    trunk = Trunk(BACKBONES["vgg11"], 50.0, GREY_STD)
    weights.load(trunk, "imagenet")
    assert all(torch.equal(value, published[f"features.{name}"]) for name, value in trunk.layers.state_dict().items())

    del published["features.0.bias"]
    torch.save(published, file)
    with pytest.raises(
        TrainingError, match=r"imagenet: 1 of 16 weights of vgg11 .* the first 0\.bias \(nothing where 64 is wanted\)"
    ):
        weights.load(trunk, "imagenet")


def test_no_network_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    trunk = Trunk(BACKBONES["vgg11"], 50.0, GREY_STD)
    with pytest.raises(TrainingError, match=r"can't download https://.*put the file into .*weights=None"):
        weights.load(trunk, "imagenet")


class Pickled:
    """Runs code when it is unpickled without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("make", ["plain", "features", "ours", "ours, safetensors", "module", "lightning"])
def test_files_of_several_makes_are_read(make: str, tmp_path: Path) -> None:
    made = trunk()
    own = {name: value.clone() for name, value in made.layers.state_dict().items()}
    file = tmp_path / ("model.safetensors" if make.endswith("safetensors") else "model.pth")
    if make.startswith("ours"):
        spec = PatchSpec(
            precision="fp32", backbone="resnet10_narrow", classes=CLASSES, mean_grey=50.0, side=64, weights=None
        )
        model = classifiers.patch_classifier(spec, seed=1)
        own = dict(model.trunk.layers.state_dict())
        if make.endswith("safetensors"):
            file.write_bytes(model_files.to_files(model)["model.safetensors"])
        else:
            torch.save(model.state_dict(), file)
    elif make == "lightning":
        torch.save({"epoch": 3, "state_dict": {f"net.encoder.{name}": value for name, value in own.items()}}, file)
    else:
        prefix = {"plain": "", "features": "features.", "module": "module."}[make]
        torch.save({"fc.weight": torch.zeros(3), **{prefix + name: value for name, value in own.items()}}, file)
    other = trunk()
    weights.load(other, str(file))
    assert all(torch.equal(value, own[name]) for name, value in other.layers.state_dict().items())
    assert BACKBONES["resnet10_narrow"].scale(str(file)) == GREY_STD


def test_files_that_do_not_fit_or_are_not_safe_are_refused(tmp_path: Path) -> None:
    other = trunk("vgg9_bn_narrow")
    before = {name: value.clone() for name, value in other.layers.state_dict().items()}
    file = tmp_path / "model.pth"
    torch.save(dict(trunk().layers.state_dict()), file)
    with pytest.raises(
        TrainingError, match=r"model\.pth: \d+ of \d+ weights of vgg9_bn_narrow are missing .* the first"
    ):
        weights.load(other, str(file))
    torch.save({"state_dict": Pickled(tmp_path / "run")}, file)
    with pytest.raises(TrainingError, match="no weights that can be read safely"):
        weights.load(other, str(file))
    assert not (tmp_path / "run").exists(), "no code of the file was run"
    torch.save([1, 2], file)
    with pytest.raises(TrainingError, match="holds a list"):
        weights.load(other, str(file))
    for damaged in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        save_file({"a": torch.zeros(1)}, damaged)
        damaged.write_bytes(damaged.read_bytes()[:7])
        with pytest.raises(TrainingError, match="no weights that can be read safely"):
            weights.load(other, str(damaged))
    with pytest.raises(TrainingError, match=r"can't read the weights .*absent\.pth .*give a file that is there"):
        weights.load(other, str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match=r"no weights 'imagnet' \(known: none\).*give a file \(\.safetensors"):
        weights.load(other, "imagnet")
    assert all(torch.equal(value, before[name]) for name, value in other.layers.state_dict().items())


def test_weights_that_do_not_fit_stop_a_job_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save(dict(trunk("vgg9_bn_narrow").layers.state_dict()), file)
    (asked,) = recipes.smoke().trunks
    for path, reason in ((str(file), "of resnet10_narrow are missing"), (str(tmp_path / "no.pth"), "can't read")):
        with pytest.raises(TrainingError, match=reason):
            tuning.plan(replace(recipes.smoke(), trunks=(replace(asked, weights=path),)))
    torch.save(dict(trunk().layers.state_dict()), file)
    tuning.plan(replace(recipes.smoke(), trunks=(replace(asked, weights=str(file)),)))


def test_a_trunk_is_named_by_what_its_file_of_weights_holds(tmp_path: Path) -> None:
    def fingerprint(path: Path) -> str:
        (asked,) = recipes.smoke().trunks
        config = replace(recipes.smoke(), trunks=(replace(asked, weights=str(path)),))
        return graph.locate(config, Lake(str(tmp_path))).trunks[asked.backbone].fingerprint

    one, other = tmp_path / "one.pth", tmp_path / "other.pth"
    one.write_bytes(b"a")
    other.write_bytes(b"a")
    assert fingerprint(one) == fingerprint(other)
    other.write_bytes(b"b")
    assert fingerprint(one) != fingerprint(other)
