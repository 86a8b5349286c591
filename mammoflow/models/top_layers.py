"""Top layers that turn a feature map into malignant or not: VGG blocks, ResNet bottleneck blocks, pooling, FC.

    spec   := block "," block ...          two blocks in the paper
    block  := NxK                          VGG: K times [3x3 conv N, BN, ReLU], then 2x2 max pooling
            | [L-M-N]xK                    ResNet: K bottleneck units 1x1 L, 3x3 M, 1x1 N; the first has stride 2

Plain PyTorch; no Ray, no files.

Shape letters: N images, C channels, K candidate heads, h w rows and columns of a feature map.
Source: Shen et al. 2019, methods; tables 2 and 3.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mammoflow.errors import SpecError
from mammoflow.models.backbones import initialise, slow_statistics

GRAMMAR = (
    "blocks `NxK` (VGG) or `[L-M-N]xK` (ResNet), joined by commas, "
    "such as `256x1,128x1` or `[512-512-1024]x2,[512-512-1024]x2`"
)

_VGG = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")
_RESNET = re.compile(r"\[([1-9][0-9]*)-([1-9][0-9]*)-([1-9][0-9]*)\]x([1-9][0-9]*)")
_LARGEST = 8192  # channels, and 100 repeats: beyond it is a slip of the pen that would eat all memory
_MOST_REPEATS = 100


@dataclass(frozen=True, slots=True)
class VggBlock:
    """`repeats` times [3x3 convolution of `channels`, BN, ReLU], then 2x2 max pooling."""

    channels: int
    repeats: int

    @property
    def out_channels(self) -> int:
        """Channels of the block's output."""
        return self.channels

    def shrink(self, side: int) -> int:
        """Return rows (or columns) after the block; pooling drops an odd last one, as Keras' `valid` does."""
        return side // 2


@dataclass(frozen=True, slots=True)
class ResnetBlock:
    """`repeats` bottleneck units of 1x1, 3x3 and 1x1 convolutions with these channels; the first has stride 2."""

    channels: tuple[int, int, int]
    repeats: int

    @property
    def out_channels(self) -> int:
        """Channels of the block's output."""
        return self.channels[2]

    def shrink(self, side: int) -> int:
        """Return rows (or columns) after the block."""
        return (side + 1) // 2


Block = VggBlock | ResnetBlock


def parse(spec: str) -> tuple[Block, ...]:
    """Read a spec of top layers.

    Raises:
        SpecError: names the text, the block at fault, the grammar and examples.
    """
    return tuple(_parse_block(text.strip(), spec) for text in spec.split(","))


def _parse_block(text: str, spec: str) -> Block:
    vgg, resnet = _VGG.fullmatch(text), _RESNET.fullmatch(text)
    if not vgg and not resnet:
        raise SpecError(f"top layers {spec!r}: can't read block {text!r}; write {GRAMMAR}")
    *channels, repeats = map(int, (vgg or resnet).groups())  # type: ignore[union-attr]
    if max(channels) > _LARGEST or repeats > _MOST_REPEATS:
        raise SpecError(
            f"top layers {spec!r}: block {text!r} has more than {_LARGEST} channels or {_MOST_REPEATS} repeats; "
            "write a smaller one"
        )
    return VggBlock(channels[0], repeats) if vgg else ResnetBlock((channels[0], channels[1], channels[2]), repeats)


def family(spec: str) -> str:
    """Return `VGG` or `Resnet` where all blocks are of one kind, else `Mixed`."""
    kinds = {"VGG" if isinstance(block, VggBlock) else "Resnet" for block in parse(spec)}
    return kinds.pop() if len(kinds) == 1 else "Mixed"


def map_sizes(spec: str, height: int, width: int) -> list[tuple[int, int]]:
    """Return (rows, columns) of the map that enters the first block and of those after each block.

    Raises:
        SpecError: the map shrinks below 1x1; names the sizes.

    Source: 36x28 -> 18x14 -> 9x7 (paper, methods).
    """
    sizes = [(height, width)]
    for block in parse(spec):
        sizes.append((block.shrink(sizes[-1][0]), block.shrink(sizes[-1][1])))
        if min(sizes[-1]) < 1:
            chain = " -> ".join(f"{h}x{w}" for h, w in sizes)
            raise SpecError(
                f"top layers {spec!r} shrink the feature map below 1x1 ({chain}); use larger images or fewer VGG blocks"
            )
    return sizes


def _vgg_layers(block: VggBlock, in_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(block.repeats):
        layers += [
            nn.Conv2d(in_channels, block.channels, kernel_size=3, padding=1, bias=False),  # BN has the bias
            nn.BatchNorm2d(block.channels),
            nn.ReLU(inplace=True),
        ]
        in_channels = block.channels
    return nn.Sequential(*layers, nn.MaxPool2d(kernel_size=2, stride=2))


class BottleneckUnit(nn.Module):
    """1x1 L, 3x3 M, 1x1 N with BN each, ReLU after the first two and after the addition.

    With stride 2 it stands on the *first 1x1* (ResNet v1, as Keras has it; torchvision's own has it on the 3x3),
    and the shortcut is a 1x1 convolution of stride 2 with BN; otherwise the shortcut is the identity.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int, int], stride: int) -> None:
        """Build one unit; stride 1 needs in_channels equal to N."""
        super().__init__()
        first, middle, last = channels
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, first, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, middle, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, last, kernel_size=1, bias=False),
            nn.BatchNorm2d(last),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            projection = nn.Conv2d(in_channels, last, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(last))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, last, ceil(h / stride), ceil(w / stride))."""
        return relu(self.residual(features) + self.shortcut(features))


def _resnet_layers(block: ResnetBlock, in_channels: int) -> nn.Sequential:
    first = BottleneckUnit(in_channels, block.channels, stride=2)
    others = [BottleneckUnit(block.out_channels, block.channels, stride=1) for _ in range(block.repeats - 1)]
    return nn.Sequential(first, *others)


class TopLayers(nn.Module):
    """The blocks of a spec, global average pooling and a 2-way FC."""

    def __init__(self, spec: str, in_channels: int) -> None:
        """Build the layers with random weights from torch's global generator.

        Raises:
            SpecError: the spec can't be read.
        """
        super().__init__()
        blocks: list[nn.Sequential] = []
        for block in parse(spec):
            make = (
                _vgg_layers(block, in_channels) if isinstance(block, VggBlock) else _resnet_layers(block, in_channels)
            )
            blocks.append(make)
            in_channels = block.out_channels
        self.blocks = nn.Sequential(*blocks)
        initialise(self.blocks)
        slow_statistics(self.blocks)
        self.fc = nn.Linear(in_channels, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, h, w) to logits (N, 2): benign, malignant."""
        logits: Tensor = self.fc(self.blocks(features).mean(dim=(2, 3)))
        return logits


class TopLayerBank(nn.Module):
    """K candidates' top layers on one trunk's features.

    Heads share nothing but their input, so each one's numbers are bit for bit those of training it alone.
    """

    def __init__(self, heads: Sequence[TopLayers]) -> None:
        """Hold these heads, in this order."""
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, h, w) to logits (K, N, 2)."""
        return torch.stack([head(features) for head in self.heads])


def decayed(layers: nn.Module) -> Sequence[nn.Parameter]:
    """Return the weights that L2 applies to: kernels of convolutions and FC, not biases and BatchNorm (as Keras)."""
    return [parameter for parameter in layers.parameters() if parameter.ndim > 1]
