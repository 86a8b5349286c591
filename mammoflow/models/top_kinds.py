"""The kinds of top layers: each class reads its spec from text, says what maps it needs, and builds its module.

To add a kind, write its classes here and enter the spec in `KINDS` (`top_spec.TopSpec` says what a spec answers).
Plain PyTorch; no Ray, no files.

Shape letters: N images, C channels, h w rows and columns of a feature map, u v of a heatmap, I = u v instances, P
classes of patches, L units.
Source: Shen et al. 2019, methods; tables 2 and 3. Instances: Zhu et al. 2017 (arXiv:1705.08550), 2.2 and 2.4 (max
pooling; sparse label assignment); Ilse et al. 2018 (arXiv:1802.04712), 2.4 (gated attention).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mammoflow.errors import SpecError
from mammoflow.models.backbones import initialise, slow_statistics
from mammoflow.models.dropout import Dropout
from mammoflow.models.top_blocks import Block, ResnetBlock, VggBlock, read_block, within
from mammoflow.models.top_spec import Size, TopSpec

SPARSITY = 1e-5
"""mu, factor on the sum of an image's instance probabilities: few cells of a film are malignant. (ours)"""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks, global average pooling and a 2-way FC, on the trunk's feature map or on the heatmap."""

    blocks: tuple[Block, ...]
    heatmap: bool

    GRAMMAR: ClassVar[str] = (
        "blocks `NxK` (VGG) or `[L-M-N]xK` (ResNet) joined by commas, such as `256x1,128x1` or "
        "`[512-512-1024]x2,[512-512-1024]x2`; the same after `heatmap,`"
    )
    ROUTES: ClassVar[dict[str, str]] = {
        "Heatmap": "heatmap",
        "VGG": "all-convolutional",
        "Resnet": "all-convolutional",
        "Mixed": "all-convolutional",
    }
    rectified: ClassVar[bool] = True

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the blocks that a text asks for, or None where one of them can't be read."""
        heatmap, parts = _block_texts(text)
        blocks = [read_block(part) for part in parts]
        read = tuple(block for block in blocks if block is not None)
        return cls(read, heatmap) if len(read) == len(parts) else None

    @property
    def family(self) -> str:
        """Return `Heatmap`, or the blocks' kind: `VGG`, `Resnet`, or `Mixed` for both."""
        kinds = {type(block) for block in self.blocks}
        if self.heatmap:
            return "Heatmap"
        return "Mixed" if len(kinds) > 1 else {VggBlock: "VGG", ResnetBlock: "Resnet"}[kinds.pop()]

    def __str__(self) -> str:
        """Return the blocks as written."""
        return ",".join([*["heatmap"] * self.heatmap, *map(str, self.blocks)])

    def sizes(self, size: Size) -> list[Size]:
        """Return the map after each block."""
        sizes = [size]
        for block in self.blocks:
            sizes.append((block.shrink(sizes[-1][0]), block.shrink(sizes[-1][1])))
        return sizes[1:]

    def build(self, size: Size, channels: int) -> "BlockLayers":
        """Return the module."""
        del size
        return BlockLayers(self.blocks, channels)


def _block_texts(text: str) -> tuple[bool, list[str]]:
    """Return whether a text begins with the heatmap, and what stands between the commas of the rest."""
    head, *rest = (part.strip() for part in text.split(","))
    return (True, rest or [""]) if head == "heatmap" else (False, [head, *rest])


class BlockLayers(nn.Module):
    """Blocks, global average pooling and a 2-way FC."""

    def __init__(self, blocks: Sequence[Block], in_channels: int) -> None:
        """Build the layers with random weights."""
        super().__init__()
        layers = []
        for block in blocks:
            layers.append(block.build(in_channels))
            in_channels = block.out_channels
        self.blocks = nn.Sequential(*layers)
        initialise(self.blocks)
        slow_statistics(self.blocks)
        self.dropout = Dropout()
        self.fc = nn.Linear(in_channels, 2)

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Choose what the next batch's dropout drops (`Dropout.prepare`)."""
        self.dropout.prepare(share, keys)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to logits (N, 2) and zeros (N,)."""
        logits: Tensor = self.fc(self.dropout(self.blocks(features).mean(dim=(2, 3))))
        return logits, logits.new_zeros(len(logits))


@dataclass(frozen=True, slots=True)
class Fc:
    """Max pooling of the heatmap, FC layers of these widths, and a shortcut from what is pooled to the output."""

    pool: int
    """Side and stride of the pooling [cells]."""
    widths: tuple[int, ...]

    GRAMMAR: ClassVar[str] = "`fc-pool5-64-32`"
    ROUTES: ClassVar[dict[str, str]] = {"FC": "heatmap + FC"}
    rectified: ClassVar[bool] = True
    heatmap: ClassVar[bool] = True
    family: ClassVar[str] = "FC"
    blocks: ClassVar[tuple[Block, ...]] = ()

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what `fc-poolP-N-N` asks for."""
        match = re.fullmatch(r"fc-pool([1-9][0-9]*)((?:-[1-9][0-9]*)+)", text)
        if match is None:
            return None
        pool, *widths = within(text, int(match[1]), *map(int, match[2][1:].split("-")))
        return cls(pool, tuple(widths))

    def __str__(self) -> str:
        """Return it as written."""
        return "-".join([f"fc-pool{self.pool}", *map(str, self.widths)])

    def sizes(self, size: Size) -> list[Size]:
        """Return the pooled map."""
        return [(size[0] // self.pool, size[1] // self.pool)]

    def build(self, size: Size, channels: int) -> "FcLayers":
        """Return the module."""
        return FcLayers(self, size, channels)


class FcLayers(nn.Module):
    """Max pooling, FC layers with ReLU, a 2-way FC; a second 2-way FC leads past them, and the two are added.

    Source: paper, methods (heatmap with max pooling and FC layers, with a shortcut); inputs 120, 825 and 3300.
    """

    def __init__(self, spec: Fc, cells: Size, in_channels: int) -> None:
        """Build the layers for a pooled heatmap of this size, with random weights."""
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=spec.pool)
        inputs = in_channels * cells[0] * cells[1]
        widths = [inputs, *spec.widths]
        hidden = [layer for one, other in pairwise(widths) for layer in (nn.Linear(one, other), nn.ReLU(inplace=True))]
        self.hidden = nn.Sequential(*hidden)
        self.dropout = Dropout()
        self.fc = nn.Linear(widths[-1], 2)
        self.shortcut = nn.Linear(inputs, 2)

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Choose what the next batch's dropout drops (`Dropout.prepare`)."""
        self.dropout.prepare(share, keys)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map a heatmap (N, P, u, v) to logits (N, 2) and zeros (N,)."""
        flat = self.pool(features).flatten(1)
        logits: Tensor = self.fc(self.dropout(self.hidden(flat))) + self.shortcut(flat)
        return logits, logits.new_zeros(len(logits))


@dataclass(frozen=True, slots=True)
class Instances:
    """Each cell of the heatmap is an instance; the image is as malignant as its instances are.

    To compare with the multi-instance works that the paper names.
    """

    how: Literal["max", "sparse", "attention"]
    width: int = 0
    """Units of the gated attention."""

    GRAMMAR: ClassVar[str] = "`max`, `sparse` or `attention-64`"
    ROUTES: ClassVar[dict[str, str]] = {}
    rectified: ClassVar[bool] = False
    heatmap: ClassVar[bool] = True
    family: ClassVar[str] = "Instances"
    blocks: ClassVar[tuple[Block, ...]] = ()

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what `max`, `sparse` or `attention-N` asks for."""
        if text in ("max", "sparse"):
            return cls("max" if text == "max" else "sparse")
        match = re.fullmatch(r"attention-([1-9][0-9]*)", text)
        return match and cls("attention", *within(text, int(match[1])))

    def __str__(self) -> str:
        """Return it as written."""
        return f"attention-{self.width}" if self.how == "attention" else self.how

    def sizes(self, size: Size) -> list[Size]:
        """Return no map: it reads the heatmap's cells."""
        del size
        return []

    def build(self, size: Size, channels: int) -> "InstancePooling":
        """Return the module."""
        del size
        return InstancePooling(self, channels)


class InstancePooling(nn.Module):
    """Scores each cell of a heatmap and pools: the highest score, or the mean by learnt attention."""

    def __init__(self, spec: Instances, in_channels: int) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.how = spec.how
        self.score = nn.Linear(in_channels, 1)
        if spec.how == "attention":
            self.content = nn.Linear(in_channels, spec.width)
            self.gate = nn.Linear(in_channels, spec.width)
            self.weigh = nn.Linear(spec.width, 1)

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Drop nothing: instances have no dropout."""

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map a heatmap (N, P, u, v) to logits (N, 2), benign fixed at 0, and the sparsity's part of the loss (N,)."""
        cells_NIP = features.flatten(2).transpose(1, 2)
        score_NI = self.score(cells_NIP)[..., 0]
        if self.how == "attention":
            gated = torch.tanh(self.content(cells_NIP)) * torch.sigmoid(self.gate(cells_NIP))
            pooled_N = (self.weigh(gated)[..., 0].softmax(dim=1) * score_NI).sum(dim=1)
        else:
            pooled_N = score_NI.amax(dim=1)
        logits = torch.stack([torch.zeros_like(pooled_N), pooled_N], dim=1)
        if self.how == "sparse":
            return logits, SPARSITY * score_NI.float().sigmoid().sum(dim=1)
        return logits, logits.new_zeros(len(logits))


KINDS: Mapping[str, type[TopSpec]] = {"fc": Fc, "blocks": Blocks, "instances": Instances}
"""Every kind of top layers. Reports show the paper's routes in this order."""


def parse(text: str) -> TopSpec:
    """Read a spec of top layers.

    Raises:
        SpecError: names the text, the part at fault, the grammar and examples.
    """
    for kind in KINDS.values():
        spec = kind.read(text.strip())
        if spec is not None:
            return spec
    _, parts = _block_texts(text.strip())
    fault = next((part for part in parts if read_block(part) is None), text)
    likeliest_first = sorted(KINDS.values(), key=lambda kind: kind is not Blocks)
    grammar = "; ".join(kind.GRAMMAR for kind in likeliest_first)
    raise SpecError(f"top layers {text!r}: can't read block {fault!r}; write {grammar}")


def routes() -> dict[str, tuple[str, ...]]:
    """Return the paper's routes from a patch classifier to a whole-image one, each with its families of top layers."""
    families: dict[str, tuple[str, ...]] = {}
    for kind in KINDS.values():
        for family, route in kind.ROUTES.items():
            families[route] = (*families.get(route, ()), family)
    return families
