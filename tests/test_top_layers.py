"""The grammar of top layers, and that what is built is what the paper describes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mammoflow import recipes
from mammoflow.errors import SpecError
from mammoflow.models.top_layers import ResnetBlock, TopLayers, VggBlock, decayed, family, map_sizes, parse

count = st.integers(1, 4096)
vgg = st.builds(VggBlock, count, st.integers(1, 9))
resnet = st.builds(ResnetBlock, st.tuples(count, count, count), st.integers(1, 9))


@given(st.lists(vgg | resnet, min_size=1, max_size=4))
def test_what_is_written_is_read(blocks: list[VggBlock | ResnetBlock]) -> None:
    def text(block: VggBlock | ResnetBlock) -> str:
        widths = block.channels if isinstance(block, VggBlock) else f"[{'-'.join(map(str, block.channels))}]"
        return f"{widths}x{block.repeats}"

    assert parse(",".join(map(text, blocks))) == tuple(blocks)


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


@pytest.mark.parametrize("spec", [*recipes.RESNET50_TOP_LAYERS, *recipes.VGG16_TOP_LAYERS])
@pytest.mark.parametrize("channels", [2048, 512])
def test_every_row_of_the_paper_ends_at_9x7(spec: str, channels: int) -> None:
    assert map_sizes(spec, 36, 28) == [(36, 28), (18, 14), (9, 7)]
    with torch.device("meta"):
        top = TopLayers(spec, channels)
        features = torch.empty(2, channels, 36, 28)
    assert top.blocks(features).shape == (2, parse(spec)[-1].out_channels, 9, 7)
    assert top(features).shape == (2, 2)


@pytest.mark.parametrize(
    ("spec", "channels", "weights"),
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
def test_numbers_of_weights(spec: str, channels: int, weights: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in TopLayers(spec, channels).parameters()) == weights


def test_a_resnet_block_is_the_papers() -> None:
    """Stride 2 on the first 1x1 and a projection in the first unit; the identity in later ones; ReLU after adding."""
    torch.manual_seed(0)
    first, later = TopLayers("[4-5-6]x2", 3).eval().blocks[0]
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
    kinds = [type(layer).__name__ for layer in TopLayers("8x2", 3).blocks[0]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["MaxPool2d"]


def test_l2_takes_kernels_only() -> None:
    top = TopLayers("8x1,[2-2-4]x1", 3)
    kernels = {id(layer.weight) for layer in top.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert {id(parameter) for parameter in decayed(top)} == kernels


def test_maps_that_vanish_are_refused_with_their_sizes() -> None:
    assert map_sizes("8x1,8x1", 5, 4) == [(5, 4), (2, 2), (1, 1)]
    with pytest.raises(SpecError, match=r"below 1x1 .*5x4 -> 2x2 -> 1x1 -> 0x0"):
        map_sizes("8x1,8x1,8x1", 5, 4)
    assert map_sizes("[8-8-8]x1,[8-8-8]x1", 1, 1)[-1] == (1, 1)


def test_families() -> None:
    assert [family(spec) for spec in ("8x1,8x2", "[8-8-8]x1", "8x1,[8-8-8]x1")] == ["VGG", "Resnet", "Mixed"]
