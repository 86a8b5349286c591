"""Convolutional trunks by name: what they are built of, where stages cut them, how their weights want input scaled.

Plain PyTorch and torchvision, and timm for names that begin with `timm:` (timm_trunks.py); no Ray, no files.

Shape letters: N images, H W rows and columns [px], C channels of the trunk's output, h w its rows and columns.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, conv1x1
from torchvision.models.vgg import make_layers

from mammoflow.errors import ConfigError
from mammoflow.models import checkpointing, timm_trunks

GREY_STD = 255 * 0.226
"""Divisor of grey values 0-255 that torchvision's ImageNet weights expect (the mean of three channels)."""

Trained = Literal["last", "top", "all"]
_Model = TypeVar("_Model", bound=nn.Module)


WEIGHT_FILES = (".safetensors", ".pth", ".pt")
"""Endings of files that hold weights."""


def is_file(weights: str) -> bool:
    """Tell whether weights are named by their file, a path or URL."""
    return weights.endswith(WEIGHT_FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """Published weights of a backbone."""

    url: str
    """Where they are published."""
    download: Callable[[], Mapping[str, Tensor]]
    """Fetches them, or takes them from a cache; raises OSError or RuntimeError where it can't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """One entry of the registry. Every trunk has stride 32."""

    name: str
    family: str
    """Of whose candidates the best goes on: Resnet, VGG, or the class of a net of timm, such as EfficientNet."""
    channels: int
    """C, channels of the last feature map."""
    receptive_field: int | None
    """Side of the square of input pixels that one cell of the last map sees [px]; None: unknown, or the whole image, as
    where squeeze-and-excitation pools over it. Nothing that is computed depends on it."""
    build: Callable[[], nn.Module]
    """Makes the trunk's layers, randomly initialised; a Sequential holds them in the order in which they run."""
    stages: tuple[str, ...]
    """Names of the layers (dots go deeper) in order; between them training may be cut."""
    top_from: str
    """The stage where `top` training begins: res3b of Resnet50, block4_conv1 of VGG16, and their like."""
    pretrained: Mapping[str, Pretrained] = field(default_factory=dict, hash=False)
    grey_std: float = GREY_STD
    """The trunk's input is (grey value 0-255 - mean grey) / this."""

    def scale(self, weights: str | None) -> float:
        """Return the input scale that these weights expect; random initialisation and files take the published ones'.

        Raises:
            ConfigError: the backbone has no weights of that name.
        """
        if weights is not None and not is_file(weights) and weights not in self.pretrained:
            known = ", ".join(self.pretrained) or "none"
            raise ConfigError(
                f"backbone {self.name} has no weights {weights!r} (known: {known}); choose one, give a file "
                f"({', '.join(WEIGHT_FILES)}), or None for random"
            )
        return self.grey_std


def _resnet(block: type[BasicBlock | Bottleneck], units: Sequence[int]) -> nn.Sequential:
    """Build torchvision's ResNet without pooling and FC."""
    net = ResNet(block, list(units))
    return nn.Sequential(
        OrderedDict((name, layer) for name, layer in net.named_children() if name not in ("avgpool", "fc"))
    )


def _narrow_resnet(widths: Sequence[int]) -> nn.Sequential:
    """One BasicBlock per stage, as ResNet(BasicBlock, [1, 1, 1, 1]), whose widths torchvision fixes at 64 to 512."""
    stem = widths[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(stem),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        layer1=nn.Sequential(BasicBlock(stem, stem)),
    )
    for number, (before, width) in enumerate(pairwise(widths), start=2):
        shortcut = nn.Sequential(conv1x1(before, width, 2), nn.BatchNorm2d(width))
        layers[f"layer{number}"] = nn.Sequential(BasicBlock(before, width, stride=2, downsample=shortcut))
    trunk = nn.Sequential(layers)
    initialise(trunk)
    return trunk


def _vgg(widths: Sequence[int | str], batch_norm: bool) -> nn.Sequential:
    """Build torchvision's VGG features; its FC layers (124 M weights in VGG16) are never made."""
    trunk: nn.Sequential = make_layers(list(widths), batch_norm=batch_norm)
    initialise(trunk)
    return trunk


def initialise(layers: nn.Module) -> None:
    """Set convolutions to He's normal initialisation and BatchNorm to identity, as torchvision's own trunks do."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def seeded(seed: int, build: Callable[[], _Model]) -> _Model:
    """Build a model from a seed without touching torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _torchvisions(weights: models.WeightsEnum | None) -> dict[str, Pretrained]:
    if weights is None:
        return {}
    download = partial(weights.get_state_dict, progress=False, check_hash=True, weights_only=True)
    return {"imagenet": Pretrained(url=weights.url, download=download)}


def _resnet_entry(
    name: str,
    units: Sequence[int],
    receptive_field: int,
    top_from: str,
    *,
    block: type[BasicBlock | Bottleneck] = BasicBlock,
    weights: models.WeightsEnum | None = None,
) -> Backbone:
    inner = tuple(f"layer{stage}.{unit}" for stage, count in enumerate(units, start=1) for unit in range(count))
    return Backbone(
        name=name,
        family="Resnet",
        channels=512 * block.expansion,
        receptive_field=receptive_field,
        build=partial(_resnet, block, units),
        stages=("conv1", "bn1", "relu", "maxpool", *inner),
        top_from=top_from,
        pretrained=_torchvisions(weights),
    )


def _vgg_entry(
    name: str,
    widths: Sequence[int | str],
    receptive_field: int,
    top_from: str,
    *,
    batch_norm: bool = False,
    weights: models.WeightsEnum | None = None,
) -> Backbone:
    per_conv = 3 if batch_norm else 2
    layers = sum(1 if width == "M" else per_conv for width in widths)
    return Backbone(
        name=name,
        family="VGG",
        channels=int(widths[-2]),
        receptive_field=receptive_field,
        build=partial(_vgg, widths, batch_norm),
        stages=tuple(str(index) for index in range(layers)),
        top_from=top_from,
        pretrained=_torchvisions(weights),
    )


_VGG16: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_VGG11: tuple[int | str, ...] = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_VGG9_NARROW: tuple[int | str, ...] = (16, "M", 32, "M", 48, 48, "M", 96, 96, "M", 128, 128, "M")
_RESNET10_NARROW = (32, 64, 128, 256)

_ENTRIES = (
    _resnet_entry(
        "resnet50",
        (3, 4, 6, 3),
        427,
        "layer2.1",
        block=Bottleneck,
        weights=models.ResNet50_Weights.IMAGENET1K_V1,
    ),
    _resnet_entry("resnet18", (2, 2, 2, 2), 435, "layer2.1", weights=models.ResNet18_Weights.IMAGENET1K_V1),
    _resnet_entry("resnet10", (1, 1, 1, 1), 195, "layer3.0"),
    Backbone(
        name="resnet10_narrow",
        family="Resnet",
        channels=_RESNET10_NARROW[-1],
        receptive_field=195,
        build=partial(_narrow_resnet, _RESNET10_NARROW),
        stages=("conv1", "bn1", "relu", "maxpool", "layer1.0", "layer2.0", "layer3.0", "layer4.0"),
        top_from="layer3.0",
    ),
    _vgg_entry("vgg16", _VGG16, 212, "17", weights=models.VGG16_Weights.IMAGENET1K_V1),
    _vgg_entry("vgg16_bn", _VGG16, 212, "24", batch_norm=True, weights=models.VGG16_BN_Weights.IMAGENET1K_V1),
    _vgg_entry("vgg11", _VGG11, 150, "11", weights=models.VGG11_Weights.IMAGENET1K_V1),
    _vgg_entry("vgg9_bn_narrow", _VGG9_NARROW, 150, "15", batch_norm=True),
)

BACKBONES: Mapping[str, Backbone] = {entry.name: entry for entry in _ENTRIES}
"""Every trunk by name. The two narrow ones are for CPUs: about 1 M weights, trained from scratch."""


def find(name: str) -> Backbone:
    """Return the backbone of that name: one of `BACKBONES`, or `timm:<name>` where timm is installed.

    Raises:
        ConfigError: unknown; names the known. A net of timm that is no trunk, or timm is not installed.
    """
    if timm_trunks.is_timm(name):
        return _of_timm(name)
    if name not in BACKBONES:
        raise ConfigError(
            f"backbone is {name!r}, but must be one of {', '.join(BACKBONES)}, or timm:<name> of a convolutional net "
            "of stride 32"
        )
    return BACKBONES[name]


@cache  # it builds the net
def _of_timm(name: str) -> Backbone:
    facts = timm_trunks.look_up(name)
    download = partial(timm_trunks.download, name)
    return Backbone(
        name=name,
        family=facts.family,
        channels=facts.layout.channels,
        receptive_field=None,
        build=partial(timm_trunks.build, name),
        stages=facts.layout.stages,
        top_from=facts.layout.top_from,
        pretrained={"imagenet": Pretrained(url=facts.url, download=download)} if facts.url else {},
        grey_std=facts.grey_std,
    )


def slug(name: str) -> str:
    """Return a backbone's name as it stands in names of files, folders and runs: without the colon of timm's."""
    return name.replace(":", "-")


BN_MOMENTUM = 0.01
"""Weight of a new batch in BatchNorm's running statistics: Keras' default .99, the reference's, in torch's terms.

torch's own .1 follows the last ten batches only; with small batches of films, much of them air, models that fit well
then fail as soon as they are evaluated.
"""


def slow_statistics(layers: nn.Module) -> None:
    """Make every BatchNorm below average over about a hundred batches."""
    for layer in layers.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = BN_MOMENTUM


class Trunk(nn.Module):
    """A backbone's layers with the scaling of their input: grey values in, feature map out.

    Layers that are not trained stay in eval mode whatever `train()` is told, so that their BatchNorm keeps the
    statistics it was trained with (the reference's frozen layers drifted, at batch size 2).
    """

    def __init__(self, backbone: Backbone, mean_grey: float, scale: float) -> None:
        """Build the layers with random weights; all of them are trained.

        Args:
            backbone: entry of the registry.
            mean_grey: mean of the whole-image training set [0-255].
            scale: divisor after the mean's subtraction.
        """
        super().__init__()
        self.backbone = backbone
        self.mean_grey = mean_grey
        self.scale = scale
        self.layers = backbone.build()
        slow_statistics(self.layers)
        self.checkpointing = False
        """Recompute activations in the backward pass to save memory (checkpointing.py); changes no number."""
        self._frozen: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W), float, grey values 0-255, to features (N, C, h, w), in the weights' precision."""
        precision = next((parameter.dtype for parameter in self.layers.parameters()), images.dtype)
        scaled = ((images - self.mean_grey) / self.scale).to(precision)
        if self.checkpointing and torch.is_grad_enabled():
            return checkpointing.run(self.layers, self.backbone.stages, scaled)
        features: Tensor = self.layers(scaled)
        return features

    def set_trained(self, trained: Trained) -> None:
        """Choose the layers that learn: none for `last`, those from `top_from` on for `top`, or `all`."""
        stages = self.backbone.stages
        first = {"last": len(stages), "top": stages.index(self.backbone.top_from), "all": 0}[trained]
        self._frozen = stages[:first]
        for number, stage in enumerate(stages):
            self.layers.get_submodule(stage).requires_grad_(number >= first)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Trunk":
        """Switch between training and evaluation; frozen layers always evaluate."""
        super().train(mode)
        for stage in self._frozen:
            self.layers.get_submodule(stage).eval()
        return self


@cache  # it builds the trunk's layers
def feature_size(backbone: Backbone, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the trunk's output for images of this size, without computing anything.

    Raises:
        ConfigError: the image is too small for the trunk.

    Source: 1152x896 gives 36x28 (paper, methods).
    """
    with torch.device("meta"):
        layers = backbone.build().to("meta").eval()
        try:
            h, w = layers(torch.empty(1, 3, height, width)).shape[-2:]
        except RuntimeError as error:
            raise ConfigError(
                f"images of {height}x{width} px are too small for {backbone.name}; its stride is 32, "
                "so give at least 32x32"
            ) from error
    return h, w
