"""Top layers that turn a trunk's feature map into malignant or not, built from a spec (top_spec.py).

Plain PyTorch; no Ray, no files.

Shape letters: N images, C channels, K candidate heads, h w rows and columns of a feature map, u v of a heatmap,
P classes of patches.
Source: Shen et al. 2019, methods; tables 2 and 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from mammoflow.models.backbones import initialise, slow_statistics
from mammoflow.models.dropout import Dropout
from mammoflow.models.instances import InstancePooling
from mammoflow.models.top_spec import Block, Fc, Instances, ResnetBlock, VggBlock, map_sizes, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What top layers stand on: the trunk's feature map of an image, and how a patch is classified there."""

    channels: int
    """C of the trunk."""
    features: tuple[int, int]
    """Rows and columns of the feature map of an image."""
    kernel: tuple[int, int]
    """Rows and columns of the feature map of one patch."""
    classes: int
    """P of the patch classifier."""


class Heatmap(nn.Module):
    """The patch classifier's output at every position: its average pooling at stride 1, its FC as 1x1 convolution."""

    def __init__(self, ground: Ground) -> None:
        """Build it with random weights; `take` brings those of the patch classifier."""
        super().__init__()
        self.kernel = ground.kernel
        self.fc = nn.Conv2d(ground.channels, ground.classes, kernel_size=1)

    def take(self, fc: nn.Linear) -> None:
        """Take over the weights of a patch classifier's FC."""
        with torch.no_grad():
            self.fc.weight.copy_(fc.weight[:, :, None, None])
            self.fc.bias.copy_(fc.bias)  # type: ignore[union-attr]

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, h, w) to logits (N, P, u, v); 36x28 becomes 30x22 for patches of 224."""
        logits: Tensor = self.fc(avg_pool2d(features, self.kernel, stride=1))
        return logits


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


class BlockLayers(nn.Module):
    """Blocks, global average pooling and a 2-way FC."""

    def __init__(self, blocks: Sequence[Block], in_channels: int) -> None:
        """Build the layers with random weights."""
        super().__init__()
        made = []
        for block in blocks:
            layers = (
                _vgg_layers(block, in_channels) if isinstance(block, VggBlock) else _resnet_layers(block, in_channels)
            )
            made.append(layers)
            in_channels = block.out_channels
        self.blocks = nn.Sequential(*made)
        initialise(self.blocks)
        slow_statistics(self.blocks)
        self.dropout = Dropout()
        self.fc = nn.Linear(in_channels, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, h, w) to logits (N, 2)."""
        logits: Tensor = self.fc(self.dropout(self.blocks(features).mean(dim=(2, 3))))
        return logits


class FcLayers(nn.Module):
    """Max pooling, FC layers with ReLU, a 2-way FC; a second 2-way FC leads past them, and the two are added.

    Source: paper, methods (heatmap with max pooling and FC layers, with a shortcut); inputs 120, 825 and 3300.
    """

    def __init__(self, spec: Fc, cells: tuple[int, int], in_channels: int) -> None:
        """Build the layers for a pooled heatmap of so many cells, with random weights."""
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=spec.pool)
        inputs = in_channels * cells[0] * cells[1]
        widths = [inputs, *spec.widths]
        hidden = [layer for one, other in pairwise(widths) for layer in (nn.Linear(one, other), nn.ReLU(inplace=True))]
        self.hidden = nn.Sequential(*hidden)
        self.dropout = Dropout()
        self.fc = nn.Linear(widths[-1], 2)
        self.shortcut = nn.Linear(inputs, 2)

    def forward(self, heatmap: Tensor) -> Tensor:
        """Map a heatmap (N, P, u, v) to logits (N, 2)."""
        flat = self.pool(heatmap).flatten(1)
        logits: Tensor = self.fc(self.dropout(self.hidden(flat))) + self.shortcut(flat)
        return logits


class TopLayers(nn.Module):
    """The layers of a spec: from a trunk's features to two logits."""

    def __init__(self, spec: str, ground: Ground) -> None:
        """Build the layers with random weights from torch's global generator.

        Raises:
            SpecError: the spec can't be read, or shrinks the map below 1x1.
        """
        super().__init__()
        parsed = parse(spec)
        last = map_sizes(spec, ground.features, ground.kernel)[-1]
        self.heatmap = Heatmap(ground) if parsed.heatmap else None
        channels = ground.classes if parsed.heatmap else ground.channels
        self._rectified = not isinstance(parsed, Instances)
        self.head: BlockLayers | FcLayers | InstancePooling
        if isinstance(parsed, Fc):
            self.head = FcLayers(parsed, last, channels)
        elif isinstance(parsed, Instances):
            self.head = InstancePooling(parsed, channels)
        else:
            self.head = BlockLayers(parsed.blocks, channels)

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Choose what the next batch's dropout drops (`Dropout.prepare`); instances have none."""
        if not isinstance(self.head, InstancePooling):
            self.head.dropout.prepare(share, keys)

    def set_trained(self, *, heatmap: bool) -> None:
        """Choose whether the heatmap, which came with the patch classifier's weights, learns as new layers do."""
        if self.heatmap is not None:
            self.heatmap.requires_grad_(heatmap)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C, h, w) to logits (N, 2): benign, malignant."""
        logits, _ = self.judge(features)
        return logits

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, 2), and what each image adds to the loss beside its cross-entropy (N,)."""
        if self.heatmap is not None:
            features = self.heatmap(features)
            if self._rectified:
                features = relu(features)
        if isinstance(self.head, InstancePooling):
            return self.head.judge(features)
        logits: Tensor = self.head(features)
        return logits, logits.new_zeros(len(logits))


class TopLayerBank(nn.Module):
    """K candidates' top layers on one trunk's features.

    Heads share nothing but their input, so each one's numbers are bit for bit those of training it alone.
    """

    def __init__(self, heads: Sequence[TopLayers]) -> None:
        """Hold these heads, in this order."""
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to logits (K, N, 2) and to what is added to the loss (K, N)."""
        judged = [head.judge(features) for head in self.heads if isinstance(head, TopLayers)]
        return torch.stack([logits for logits, _ in judged]), torch.stack([extra for _, extra in judged])


def decayed(layers: nn.Module) -> Sequence[nn.Parameter]:
    """Return the weights that L2 applies to: kernels of new convolutions and FC, not biases and BatchNorm (as Keras).

    A heatmap's weights are not new: they are the patch classifier's.
    """
    new = layers.head if isinstance(layers, TopLayers) else layers
    return [parameter for parameter in new.parameters() if parameter.ndim > 1]
