"""The registry's facts, measured on the networks themselves."""

import pytest
import torch
from torch import nn

from mammoflow.errors import ConfigError
from mammoflow.models import backbones
from mammoflow.models.backbones import BACKBONES, GREY_STD, Backbone, Trunk, feature_size

every_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=list(BACKBONES))


def meta_trunk(backbone: Backbone) -> nn.Module:
    with torch.device("meta"):
        return backbone.build()


@every_backbone
def test_stride_channels_and_stages(backbone: Backbone) -> None:
    layers = meta_trunk(backbone).eval()
    assert layers(torch.empty(1, 3, 1152, 896, device="meta")).shape == (1, backbone.channels, 36, 28)
    assert feature_size(backbone, 1152, 896) == (36, 28)

    by_stage = [name for stage in backbone.stages for name, _ in layers.get_submodule(stage).named_parameters(stage)]
    assert by_stage == [name for name, _ in layers.named_parameters()], "stages hold every weight once, in order"
    assert backbone.top_from in backbone.stages


@every_backbone
def test_receptive_field(backbone: Backbone) -> None:
    layers = backbone.build().eval().double()
    for module in list(layers.modules()):
        if isinstance(module, nn.Conv2d):  # no weight below 0, so that nothing cancels and no ReLU closes
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):  # would pass on one pixel of its window only
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    image = torch.ones(1, 3, 576, 32, dtype=torch.float64, requires_grad=True)  # a strip: rows tell enough
    layers(image)[0, :, 9, 0].sum().backward()
    assert image.grad is not None
    seen = image.grad[0].sum(dim=0) > 0
    rows = seen.any(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == backbone.receptive_field


@pytest.mark.parametrize(
    ("name", "weights"),
    [("vgg16", 14_714_688), ("vgg16_bn", 14_723_136), ("resnet50", 23_508_032), ("resnet18", 11_176_512)],
)
def test_weights_as_in_the_paper(name: str, weights: int) -> None:
    assert sum(p.numel() for p in meta_trunk(BACKBONES[name]).parameters()) == weights


def test_the_narrow_resnet_is_torchvisions_resnet_but_for_its_widths() -> None:
    wide, narrow = meta_trunk(BACKBONES["resnet10"]), meta_trunk(BACKBONES["resnet10_narrow"])
    assert [name for name, _ in wide.named_modules()] == [name for name, _ in narrow.named_modules()]
    again = backbones._narrow_resnet((64, 128, 256, 512))
    wide_shapes = {name: value.shape for name, value in wide.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == wide_shapes


def test_top_stages_begin_where_the_paper_says() -> None:
    vgg = meta_trunk(BACKBONES["vgg16"])
    blocks = [0, *(int(name) + 1 for name, layer in vgg.named_children() if isinstance(layer, nn.MaxPool2d))]
    assert int(BACKBONES["vgg16"].top_from) == blocks[3], "block4_conv1"
    assert BACKBONES["resnet50"].top_from == "layer2.1", "res3b"


@pytest.mark.parametrize("name", ["resnet10_narrow", "vgg9_bn_narrow"])
@pytest.mark.parametrize("trained", ["last", "top", "all"])
def test_frozen_layers_never_change(name: str, trained: backbones.Trained) -> None:
    backbone = BACKBONES[name]
    torch.manual_seed(0)
    trunk = Trunk(backbone, 50.0, GREY_STD)
    trunk.set_trained(trained)
    trunk.train()
    before = {key: value.clone() for key, value in trunk.layers.state_dict().items()}
    learning = [p for p in trunk.parameters() if p.requires_grad]
    features = trunk(torch.rand(2, 3, 64, 64) * 255)
    if learning:
        features.square().mean().backward()
        torch.optim.SGD(learning, lr=1.0).step()
    changed = {key for key, value in trunk.layers.state_dict().items() if not torch.equal(value, before[key])}

    first = {"last": len(backbone.stages), "top": backbone.stages.index(backbone.top_from), "all": 0}[trained]
    learns = tuple(f"{stage}." for stage in backbone.stages[first:])
    assert all(key.startswith(learns) for key in changed)
    assert any("running_mean" in key for key in changed) == bool(learns)


def test_input_is_scaled_as_the_weights_want() -> None:
    trunk = Trunk(BACKBONES["vgg11"], 50.0, BACKBONES["vgg11"].scale("imagenet"))
    trunk.layers = nn.Sequential()
    image = torch.full((1, 3, 2, 2), 50 + 255 * 0.226)
    assert torch.allclose(trunk(image), torch.ones(1, 3, 2, 2))


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'resnet5', but must be one of resnet50, .*vgg9_bn_narrow"):
        backbones.find("resnet5")
    with pytest.raises(ConfigError, match=r"no weights 'imagenet' \(known: none\)"):
        BACKBONES["resnet10"].scale("imagenet")
    with pytest.raises(ConfigError, match=r"16x64 px are too small for vgg16"):
        feature_size(BACKBONES["vgg16"], 16, 64)
