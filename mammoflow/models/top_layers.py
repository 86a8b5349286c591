"""Top layers that turn a trunk's feature map into malignant or not, built from a spec (top_kinds.py).

Plain PyTorch; no Ray, no files.

Shape letters: N images, C channels, K candidate heads, h w rows and columns of a feature map, u v of a heatmap,
P classes of patches.
Source: Shen et al. 2019, methods; tables 2 and 3.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from mammoflow.errors import SpecError
from mammoflow.models.top_spec import Head, Size, TopSpec


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


def map_sizes(spec: TopSpec, ground: Ground) -> list[Size]:
    """Return (rows, columns) of the trunk's map, of the heatmap where there is one, and of what follows.

    Raises:
        SpecError: a map shrinks below 1x1; names the sizes.

    Source: 36x28 -> 18x14 -> 9x7; with the heatmap 36x28 -> 30x22 -> 15x11 -> 8x6, ResNet blocks (paper, methods).
    """
    sizes = [ground.features]
    if spec.heatmap:
        (rows, columns), kernel = ground.features, ground.kernel
        sizes.append((rows - kernel[0] + 1, columns - kernel[1] + 1))
    sizes += spec.sizes(sizes[-1])
    vanished = next((number for number, size in enumerate(sizes) if min(size) < 1), None)
    if vanished is not None:
        chain = " -> ".join(f"{rows}x{columns}" for rows, columns in sizes[: vanished + 1])
        raise SpecError(
            f"top layers {str(spec)!r} shrink the feature map below 1x1 ({chain}); "
            "use larger images or other top layers"
        )
    return sizes


class TopLayers(nn.Module):
    """The layers of a spec: from a trunk's features to two logits."""

    head: Head

    def __init__(self, spec: TopSpec, ground: Ground) -> None:
        """Build the layers with random weights from torch's global generator.

        Raises:
            SpecError: the spec shrinks the map below 1x1.
        """
        super().__init__()
        last = map_sizes(spec, ground)[-1]
        self.heatmap = Heatmap(ground) if spec.heatmap else None
        self._rectified = spec.rectified
        self.head = spec.build(last, ground.classes if spec.heatmap else ground.channels)

    def prepare_dropout(self, share: float, keys: Sequence[str]) -> None:
        """Choose what the next batch's dropout drops (`Dropout.prepare`)."""
        self.head.prepare_dropout(share, keys)

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
        return self.head.judge(features)


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
        judged = [head.judge(features) for head in cast(Iterable[TopLayers], self.heads)]
        return torch.stack([logits for logits, _ in judged]), torch.stack([extra for _, extra in judged])


def decayed(layers: nn.Module) -> Sequence[nn.Parameter]:
    """Return the weights that L2 applies to: kernels of new convolutions and FC, not biases and BatchNorm (as Keras).

    A heatmap's weights are not new: they are the patch classifier's.
    """
    new = layers.head if isinstance(layers, TopLayers) else layers
    return [parameter for parameter in new.parameters() if parameter.ndim > 1]
