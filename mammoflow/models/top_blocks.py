"""Convolutional blocks of top layers: how they are written, what they do to a map, and their layers. Plain PyTorch.

Source: Shen et al. 2019, methods; tables 2 and 3.
"""

import re
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu

from mammoflow.errors import SpecError

MOST_CHANNELS, MOST_REPEATS = 8192, 100
"""Beyond these a spec is a typing error that would take all memory."""


def within(text: str, *numbers: int, most: int = MOST_CHANNELS, of: str = "channels") -> tuple[int, ...]:
    """Return the numbers of a spec unless one is above its limit.

    Raises:
        SpecError: names the text and the limit.
    """
    if max(numbers) > most:
        raise SpecError(f"top layers {text!r} have more than {most} {of}; write fewer")
    return numbers


@dataclass(frozen=True, slots=True)
class VggBlock:
    """`repeats` times [3x3 convolution of `channels`, BN, ReLU], then 2x2 max pooling."""

    channels: int
    repeats: int

    @property
    def widest(self) -> int:
        """Return the most channels of its layers."""
        return self.channels

    @property
    def out_channels(self) -> int:
        """Return the channels of its output."""
        return self.channels

    def __str__(self) -> str:
        """Return it as written: `256x1`."""
        return f"{self.channels}x{self.repeats}"

    def shrink(self, side: int) -> int:
        """Return rows (or columns) after the block; pooling drops an odd last one, as Keras' `valid` does."""
        return side // 2

    def build(self, in_channels: int) -> nn.Sequential:
        """Return its layers."""
        layers: list[nn.Module] = []
        for _ in range(self.repeats):
            layers += [
                nn.Conv2d(in_channels, self.channels, kernel_size=3, padding=1, bias=False),  # BN has the bias
                nn.BatchNorm2d(self.channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = self.channels
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


@dataclass(frozen=True, slots=True)
class ResnetBlock:
    """`repeats` bottleneck units of 1x1, 3x3 and 1x1 convolutions with these channels; the first has stride 2."""

    channels: tuple[int, int, int]
    repeats: int

    @property
    def widest(self) -> int:
        """Return the most channels of its layers."""
        return max(self.channels)

    @property
    def out_channels(self) -> int:
        """Return the channels of its output."""
        return self.channels[2]

    def __str__(self) -> str:
        """Return it as written: `[512-512-1024]x2`."""
        return f"[{'-'.join(map(str, self.channels))}]x{self.repeats}"

    def shrink(self, side: int) -> int:
        """Return rows (or columns) after the block."""
        return (side + 1) // 2

    def build(self, in_channels: int) -> nn.Sequential:
        """Return its layers."""
        first = BottleneckUnit(in_channels, self.channels, stride=2)
        others = [BottleneckUnit(self.out_channels, self.channels, stride=1) for _ in range(self.repeats - 1)]
        return nn.Sequential(first, *others)


Block = VggBlock | ResnetBlock

_VGG = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")
_RESNET = re.compile(r"\[([1-9][0-9]*)-([1-9][0-9]*)-([1-9][0-9]*)\]x([1-9][0-9]*)")


def read_block(text: str) -> Block | None:
    """Return the block that a text asks for, or None where it is none.

    Raises:
        SpecError: a number is out of range.
    """
    vgg, resnet = _VGG.fullmatch(text), _RESNET.fullmatch(text)
    match = vgg or resnet
    if match is None:
        return None
    *channels, repeats = map(int, match.groups())
    within(text, *channels)
    within(text, repeats, most=MOST_REPEATS, of="repeats")
    return VggBlock(channels[0], repeats) if vgg else ResnetBlock((channels[0], channels[1], channels[2]), repeats)
