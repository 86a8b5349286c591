"""The language of top layers: what a user writes, read and checked before anything is built. No torch.

    spec     := blocks | "heatmap," blocks | fc | instances
    blocks   := block "," block ...        two blocks in the paper
    block    := NxK                        VGG: K times [3x3 conv N, BN, ReLU], then 2x2 max pooling
              | [L-M-N]xK                  ResNet: K bottleneck units 1x1 L, 3x3 M, 1x1 N; the first has stride 2
    fc       := fc-poolP-N-N               heatmap, PxP max pooling, FC layers of N with a shortcut past them
    instances:= max | sparse | attention-N the heatmap's cells as instances of a bag

Blocks stand on the trunk's feature map, or on the heatmap: the patch classifier's own output, cell by cell.

Source: Shen et al. 2019, methods; tables 2 and 3. Instances: Zhu et al. 2017 (arXiv:1705.08550), Ilse et al. 2018
(arXiv:1802.04712).
"""

import re
from dataclasses import dataclass
from typing import Literal

from mammoflow.errors import SpecError

GRAMMAR = (
    "blocks `NxK` (VGG) or `[L-M-N]xK` (ResNet) joined by commas, such as `256x1,128x1` or "
    "`[512-512-1024]x2,[512-512-1024]x2`; the same after `heatmap,`; `fc-pool5-64-32`; "
    "`max`, `sparse` or `attention-64`"
)

_VGG = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")
_RESNET = re.compile(r"\[([1-9][0-9]*)-([1-9][0-9]*)-([1-9][0-9]*)\]x([1-9][0-9]*)")
_FC = re.compile(r"fc-pool([1-9][0-9]*)((?:-[1-9][0-9]*)+)")
_ATTENTION = re.compile(r"attention-([1-9][0-9]*)")
_HEATMAP = "heatmap"
_LARGEST = 8192  # channels, and 100 repeats: beyond it is a slip of the pen that would eat all memory
_MOST_REPEATS = 100

Family = Literal["VGG", "Resnet", "Mixed", "Heatmap", "FC", "Instances"]


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


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks, global average pooling and a 2-way FC."""

    blocks: tuple[Block, ...]
    heatmap: bool
    """They stand on the heatmap, not on the trunk's feature map."""


@dataclass(frozen=True, slots=True)
class Fc:
    """Max pooling of the heatmap, FC layers of these widths, and a shortcut from what is pooled to the output."""

    pool: int
    """Side and stride of the pooling [cells]."""
    widths: tuple[int, ...]
    heatmap: bool = True


@dataclass(frozen=True, slots=True)
class Instances:
    """Each cell of the heatmap is an instance; the image is as malignant as its instances are."""

    how: Literal["max", "sparse", "attention"]
    width: int = 0
    """Units of the gated attention."""
    heatmap: bool = True


Spec = Blocks | Fc | Instances


def parse(spec: str) -> Spec:
    """Read a spec of top layers.

    Raises:
        SpecError: names the text, the block at fault, the grammar and examples.
    """
    text = spec.strip()
    if text in ("max", "sparse"):
        return Instances("max" if text == "max" else "sparse")
    if found := _ATTENTION.fullmatch(text):
        return Instances("attention", _within(spec, text, [int(found[1])])[0])
    if found := _FC.fullmatch(text):
        widths = _within(spec, text, [int(width) for width in found[2][1:].split("-")])
        return Fc(_within(spec, text, [int(found[1])])[0], widths)
    head, *rest = text.split(",")
    heatmap = head.strip() == _HEATMAP
    parts = (rest or [""]) if heatmap else [head, *rest]
    return Blocks(tuple(_parse_block(part.strip(), spec) for part in parts), heatmap)


def _parse_block(text: str, spec: str) -> Block:
    vgg, resnet = _VGG.fullmatch(text), _RESNET.fullmatch(text)
    if not vgg and not resnet:
        raise SpecError(f"top layers {spec!r}: can't read block {text!r}; write {GRAMMAR}")
    *channels, repeats = map(int, (vgg or resnet).groups())  # type: ignore[union-attr]
    _within(spec, text, channels)
    if repeats > _MOST_REPEATS:
        raise SpecError(f"top layers {spec!r}: {text!r} has more than {_MOST_REPEATS} repeats; write fewer")
    return VggBlock(channels[0], repeats) if vgg else ResnetBlock((channels[0], channels[1], channels[2]), repeats)


def _within(spec: str, text: str, channels: list[int]) -> tuple[int, ...]:
    if max(channels) > _LARGEST:
        raise SpecError(f"top layers {spec!r}: {text!r} has more than {_LARGEST} channels; write a smaller one")
    return tuple(channels)


def slug(spec: str) -> str:
    """Return a spec as names have it, without brackets and commas: `512-512-1024x2-512-512-1024x2`."""
    return spec.replace("[", "").replace("]", "").replace(" ", "").replace(",", "-")


def family(spec: str) -> Family:
    """Return what kind of top layers a spec asks for; blocks of both kinds are `Mixed`.

    Raises:
        SpecError: the spec can't be read.
    """
    parsed = parse(spec)
    if isinstance(parsed, Fc):
        return "FC"
    if isinstance(parsed, Instances):
        return "Instances"
    if parsed.heatmap:
        return "Heatmap"
    if all(isinstance(block, VggBlock) for block in parsed.blocks):
        return "VGG"
    return "Mixed" if any(isinstance(block, VggBlock) for block in parsed.blocks) else "Resnet"


def map_sizes(spec: str, features: tuple[int, int], kernel: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of the trunk's map, of the heatmap where there is one, and of what follows.

    Args:
        spec: top layers.
        features: rows and columns of the trunk's feature map.
        kernel: rows and columns of the feature map of one patch, over which the heatmap averages.

    Raises:
        SpecError: a map shrinks below 1x1; names the sizes.

    Source: 36x28 -> 18x14 -> 9x7; with the heatmap 36x28 -> 30x22 -> 15x11 -> 8x6, ResNet blocks (paper, methods).
    """
    parsed = parse(spec)
    sizes = [features]
    if parsed.heatmap:
        sizes.append((features[0] - kernel[0] + 1, features[1] - kernel[1] + 1))
    if isinstance(parsed, Fc):
        sizes.append((sizes[-1][0] // parsed.pool, sizes[-1][1] // parsed.pool))
    elif isinstance(parsed, Blocks):
        for block in parsed.blocks:
            sizes.append((block.shrink(sizes[-1][0]), block.shrink(sizes[-1][1])))
    vanished = next((number for number, size in enumerate(sizes) if min(size) < 1), None)
    if vanished is not None:
        chain = " -> ".join(f"{h}x{w}" for h, w in sizes[: vanished + 1])
        raise SpecError(
            f"top layers {spec!r} shrink the feature map below 1x1 ({chain}); use larger images or other top layers"
        )
    return sizes
