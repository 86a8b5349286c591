"""The grammar of top layers, and that what is built is what the paper describes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mammoflow import recipes
from mammoflow.errors import SpecError
from mammoflow.models.top_blocks import ResnetBlock, VggBlock
from mammoflow.models.top_kinds import KINDS, Blocks, parse, routes
from mammoflow.models.top_layers import Ground, TopLayers, decayed, map_sizes
from mammoflow.models.top_spec import slug

count = st.integers(1, 4096)
vgg = st.builds(VggBlock, count, st.integers(1, 9))
resnet = st.builds(ResnetBlock, st.tuples(count, count, count), st.integers(1, 9))


@given(st.lists(vgg | resnet, min_size=1, max_size=4))
def test_what_is_written_is_read(blocks: list[VggBlock | ResnetBlock]) -> None:
    def text(block: VggBlock | ResnetBlock) -> str:
        widths = block.channels if isinstance(block, VggBlock) else f"[{'-'.join(map(str, block.channels))}]"
        return f"{widths}x{block.repeats}"

    assert parse(",".join(map(text, blocks))) == Blocks(tuple(blocks), heatmap=False)
    assert str(parse(", ".join(map(text, blocks)))) == ",".join(map(text, blocks))
    assert parse(",".join(["heatmap", *map(text, blocks)])) == Blocks(tuple(blocks), heatmap=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "256",
        "256x",
        "x1",
        "256x0",
        "0x1",
        "256x1,",
        "256x1;128x1",
        "[512-512]x1",
        "[512-512-1024]",
        "512-512-1024x2",
        "[1-2-3-4]x1",
        "256X1",
        "-256x1",
        "256.0x1",
        "256x1 128x1",
        "1٣x1",
        "9999x1",
        "8x999",
        "heatmap",
        "heatmap,",
        "256x1,heatmap",
        "fc",
        "fc-pool5",
        "fc-pool0-64",
        "fc-pool5-64,32",
        "fc-pool5-9999",
        "attention",
        "attention-0",
        "maximum",
    ],
)
def test_bad_text_is_named_with_grammar(text: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert repr(text) in str(error.value)
    assert "write" in str(error.value)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        blocks = parse(text)
    except SpecError:
        return
    assert blocks


def ground(channels: int, features: tuple[int, int] = (36, 28), kernel: tuple[int, int] = (7, 7)) -> Ground:
    """What the paper's images of 1152x896 and patches of 224 are on a trunk of so many channels."""
    return Ground(channels=channels, features=features, kernel=kernel, classes=5)


def weights(layers: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layers.parameters())


@pytest.mark.parametrize("spec", [*recipes.RESNET50_TOP_LAYERS, *recipes.VGG16_TOP_LAYERS])
@pytest.mark.parametrize("channels", [2048, 512])
def test_every_row_of_the_paper_ends_at_9x7(spec: str, channels: int) -> None:
    assert map_sizes(parse(spec), ground(channels)) == [(36, 28), (18, 14), (9, 7)]
    with torch.device("meta"):
        top = TopLayers(parse(spec), ground(channels))
        features = torch.empty(2, channels, 36, 28)
    assert top.head.blocks(features).shape == (2, parse(spec).blocks[-1].out_channels, 9, 7)
    assert top(features).shape == (2, 2)


@pytest.mark.parametrize("spec", ["heatmap,[512-512-1024]x2,[512-512-1024]x2", "heatmap,[64-64-256]x2,[128-128-512]x2"])
def test_every_heatmap_row_ends_at_8x6(spec: str) -> None:
    assert map_sizes(parse(spec), ground(2048)) == [(36, 28), (30, 22), (15, 11), (8, 6)]
    with torch.device("meta"):
        top = TopLayers(parse(spec), ground(2048))
        features = torch.empty(2, 2048, 36, 28)
        assert top.heatmap(features).shape == (2, 5, 30, 22)
        assert top.head.blocks(torch.empty(2, 5, 30, 22)).shape == (2, parse(spec).blocks[-1].out_channels, 8, 6)
        assert top(features).shape == (2, 2)


@pytest.mark.parametrize(
    ("spec", "inputs"), [("fc-pool5-64-32", 120), ("fc-pool2-512-256", 825), ("fc-pool1-2048-1024", 3300)]
)
def test_every_fc_row_has_the_papers_inputs_and_a_shortcut(spec: str, inputs: int) -> None:
    torch.manual_seed(0)
    top = TopLayers(parse(spec), ground(16))
    first, second = parse(spec).widths
    assert top.head.shortcut.in_features == top.head.hidden[0].in_features == inputs
    # by hand: heatmap, FC1, FC2, output, shortcut
    by_hand = (16 * 5 + 5) + (inputs + 1) * first + (first + 1) * second + (second + 1) * 2 + (inputs + 1) * 2
    assert weights(top) == by_hand
    features = torch.randn(3, 16, 36, 28)
    with torch.no_grad():
        cells = torch.nn.functional.avg_pool2d(features, 7, stride=1)
        map_ = (
            torch.einsum("nchw,pc->nphw", cells, top.heatmap.fc.weight[:, :, 0, 0]) + top.heatmap.fc.bias[:, None, None]
        )
        pool = parse(spec).pool
        flat = torch.nn.functional.max_pool2d(map_.clamp(min=0), pool).reshape(3, inputs)
        hidden = flat
        for layer in top.head.hidden:
            hidden = hidden.clamp(min=0) if isinstance(layer, nn.ReLU) else hidden @ layer.weight.T + layer.bias
        expected = top.head.fc(hidden) + top.head.shortcut(flat)
        assert torch.allclose(top(features), expected, atol=1e-5)


@pytest.mark.parametrize("spec", ["max", "sparse", "attention-8"])
def test_an_image_is_as_malignant_as_its_instances(spec: str) -> None:
    torch.manual_seed(0)
    top = TopLayers(parse(spec), ground(16))
    features = torch.randn(3, 16, 36, 28)
    with torch.no_grad():
        cells = top.heatmap(features).flatten(2).transpose(1, 2)
        scores = cells @ top.head.score.weight[0] + top.head.score.bias
        logits, extra = top.judge(features)
        if spec == "attention-8":
            gated = torch.tanh(top.head.content(cells)) * torch.sigmoid(top.head.gate(cells))
            shares = torch.exp(top.head.weigh(gated))[..., 0]
            expected = (shares * scores).sum(dim=1) / shares.sum(dim=1)
        else:
            expected = scores.max(dim=1).values
    assert torch.allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5)
    by_hand = 1e-5 * torch.sigmoid(scores).sum(dim=1) if spec == "sparse" else torch.zeros(3)
    assert torch.allclose(extra, by_hand, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "channels", "by_hand"),
    [  # by hand: convolutions + 2 for each BN channel + FC
        ("256x1,128x1", 2048, 9 * 2048 * 256 + 512 + 9 * 256 * 128 + 256 + 2 * 128 + 2),
        ("512x3,512x3", 512, 6 * (9 * 512 * 512 + 1024) + 2 * 512 + 2),
        (
            "[512-512-1024]x2,[512-512-1024]x2",
            2048,
            (2048 * 512 + 9 * 512 * 512 + 512 * 1024 + 2048 * 1024 + 2 * (512 + 512 + 1024 + 1024))
            + 3 * (1024 * 512 + 9 * 512 * 512 + 512 * 1024 + 2 * (512 + 512 + 1024))
            + (1024 * 1024 + 2 * 1024)
            + 2 * 1024
            + 2,
        ),
    ],
)
def test_numbers_of_weights(spec: str, channels: int, by_hand: int) -> None:
    with torch.device("meta"):
        assert weights(TopLayers(parse(spec), ground(channels))) == by_hand


def test_a_resnet_block_is_the_papers() -> None:
    """Stride 2 on the first 1x1 and a projection in the first unit; the identity in later ones; ReLU after adding."""
    torch.manual_seed(0)
    first, later = TopLayers(parse("[4-5-6]x2"), ground(3)).eval().head.blocks[0]
    convs = [layer for layer in first.residual if isinstance(layer, nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0], c.out_channels) for c in convs] == [(1, 2, 4), (3, 1, 5), (1, 1, 6)]
    x = torch.randn(2, 3, 9, 7)
    with torch.no_grad():
        every_second = x[:, :, ::2, ::2]  # what a 1x1 convolution of stride 2 looks at
        shortcut = first.shortcut[1](torch.einsum("nchw,oc->nohw", every_second, first.shortcut[0].weight[:, :, 0, 0]))
        residual = every_second
        for conv, norm, relu in zip(convs, [first.residual[i] for i in (1, 4, 7)], [True, True, False], strict=True):
            padding = conv.kernel_size[0] // 2
            residual = norm(torch.nn.functional.conv2d(residual, conv.weight, padding=padding))
            residual = residual.clamp(min=0) if relu else residual
        expected = (residual + shortcut).clamp(min=0)
        assert torch.allclose(first(x), expected, atol=1e-6)
        assert torch.allclose(later(expected), (later.residual(expected) + expected).clamp(min=0), atol=1e-6)
        assert expected.shape == (2, 6, 5, 4)


def test_a_vgg_block_has_conv_bn_relu_and_one_pool() -> None:
    kinds = [type(layer).__name__ for layer in TopLayers(parse("8x2"), ground(3)).head.blocks[0]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["MaxPool2d"]


def test_l2_takes_kernels_only() -> None:
    for spec in ("8x1,[2-2-4]x1", "heatmap,8x1", "fc-pool5-8-4", "attention-8"):
        top = TopLayers(parse(spec), ground(3))
        kernels = {id(layer.weight) for layer in top.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
        if top.heatmap is not None:  # those of the patch classifier are not new
            kernels -= {id(top.heatmap.fc.weight)}
        assert {id(parameter) for parameter in decayed(top)} == kernels


def test_maps_that_vanish_are_refused_with_their_sizes() -> None:
    def sizes(spec: str, features: tuple[int, int], kernel: tuple[int, int]) -> list[tuple[int, int]]:
        return map_sizes(parse(spec), ground(8, features, kernel))

    assert sizes("8x1,8x1", (5, 4), (2, 2)) == [(5, 4), (2, 2), (1, 1)]
    with pytest.raises(SpecError, match=r"below 1x1 .*5x4 -> 2x2 -> 1x1 -> 0x0"):
        sizes("8x1,8x1,8x1", (5, 4), (2, 2))
    assert sizes("[8-8-8]x1,[8-8-8]x1", (1, 1), (1, 1))[-1] == (1, 1)
    with pytest.raises(SpecError, match=r"below 1x1 .*5x4 -> 4x3 -> 0x0"):
        sizes("fc-pool5-64-32", (5, 4), (2, 2))
    with pytest.raises(SpecError, match=r"below 1x1 .*5x4 -> -1x-2"):
        sizes("max", (5, 4), (7, 7))


def test_families() -> None:
    specs = ("8x1,8x2", "[8-8-8]x1", "8x1,[8-8-8]x1", "heatmap,8x1", "fc-pool2-8", "sparse")
    assert [parse(spec).family for spec in specs] == ["VGG", "Resnet", "Mixed", "Heatmap", "FC", "Instances"]
    assert routes() == {
        "heatmap + FC": ("FC",),
        "heatmap": ("Heatmap",),
        "all-convolutional": ("VGG", "Resnet", "Mixed"),
    }


@pytest.mark.parametrize("text", ["8x1, [2-2-4]x1", "heatmap,8x1", "fc-pool2-8-4", "max", "sparse", "attention-8"])
def test_every_kind_is_written_as_it_was_read(text: str) -> None:
    spec = parse(text)
    assert str(spec) == text.replace(" ", "")
    assert parse(str(spec)) == spec


def test_a_kind_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind with words, family and module of its own is read, sized and built like the others."""

    class Mean(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.fc = nn.Linear(channels, 2)

        def prepare_dropout(self, share: float, keys: object) -> None: ...

        def judge(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.fc(features.mean(dim=(2, 3)))
            return logits, logits.new_zeros(len(logits))

    class MeanSpec:
        GRAMMAR, ROUTES, rectified, heatmap, family, blocks = "`mean`", {}, True, False, "Mean", ()

        @classmethod
        def read(cls, text: str) -> "MeanSpec | None":
            return cls() if text == "mean" else None

        def __str__(self) -> str:
            return "mean"

        def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
            return []

        def build(self, size: tuple[int, int], channels: int) -> Mean:
            return Mean(channels)

    monkeypatch.setitem(KINDS, "mean", MeanSpec)  # type: ignore[arg-type]
    top = TopLayers(parse(" mean "), ground(4))
    assert top(torch.ones(2, 4, 36, 28)).shape == (2, 2)
    assert {id(parameter) for parameter in decayed(top)} == {id(top.head.fc.weight)}
    with pytest.raises(SpecError, match="`mean`"):
        parse("median")


def test_names() -> None:
    specs = (
        "[512-512-1024]x2,[512-512-1024]x2",
        "256x1, 128x1",
        "heatmap,[64-64-256]x2,[128-128-512]x2",
        "fc-pool5-64-32",
    )
    slugs = ["512-512-1024x2-512-512-1024x2", "256x1-128x1", "heatmap-64-64-256x2-128-128-512x2", "fc-pool5-64-32"]
    assert [slug(spec) for spec in specs] == slugs
