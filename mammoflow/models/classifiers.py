"""Patch and whole-image classifiers, the change of one into the other, and what they say of images.

Plain PyTorch; no Ray, no files.

Shape letters: N images, H W rows and columns [px], C classes of patches, u v rows and columns of a
heatmap. Images are grey values 0-255, repeated to 3 channels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mammoflow.config import ImageConfig
from mammoflow.errors import ConfigError
from mammoflow.models import backbones, weights
from mammoflow.models.backbones import Trunk, seeded
from mammoflow.models.devices import Precision
from mammoflow.models.dropout import Dropout
from mammoflow.models.top_layers import Ground, TopLayers
from mammoflow.models.top_spec import TopSpec, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSpec:
    """All that makes a patch classifier, but its weights."""

    backbone: str
    classes: tuple[str, ...]
    mean_grey: float
    """Mean of the training images [0-255], subtracted from the input."""
    side: int
    """P, side of the patches it was trained on [px]."""
    weights: str | None
    """What the trunk was initialised with; decides the input scale."""
    precision: Precision
    """Arithmetic of the forward pass that it was trained and is judged in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """All that makes a whole-image classifier, but its weights."""

    backbone: str
    top_layers: TopSpec
    classes: tuple[str, ...]
    """Of the patch classifier that it was made from."""
    side: int
    """P, side of that one's patches [px]."""
    mean_grey: float
    """Mean of the training images [0-255], subtracted from the input."""
    height: int
    """Rows of the images it was trained on [px]."""
    width: int
    """Columns of the images it was trained on [px]."""
    fit: Literal["stretch", "pad"]
    """How films are brought to that size."""
    weights: str | None
    """What the trunk was initialised with; decides the input scale."""
    precision: Precision
    """Arithmetic of the forward pass that it was trained and is judged in."""


def _trunk(spec: PatchSpec | ImageSpec) -> Trunk:
    backbone = backbones.find(spec.backbone)
    return Trunk(backbone, spec.mean_grey, backbone.scale(spec.weights))


class PatchClassifier(nn.Module):
    """A trunk, global average pooling and a FC over the patch classes."""

    def __init__(self, spec: PatchSpec) -> None:
        """Build it with random weights from torch's global generator.

        Raises:
            ConfigError: unknown backbone or weights, or patches too small for the trunk.
        """
        super().__init__()
        self.spec = spec
        self.trunk = _trunk(spec)
        backbones.feature_size(self.trunk.backbone, spec.side, spec.side)
        self.dropout = Dropout()
        self.top = nn.Linear(self.trunk.backbone.channels, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map patches (N, 3, P, P), float 0-255, to logits (N, C)."""
        logits: Tensor = self.top(self.dropout(self.trunk(images).mean(dim=(2, 3))))
        return logits


class WholeImageClassifier(nn.Module):
    """A patch classifier's trunk with top layers that decide over the whole image."""

    def __init__(self, spec: ImageSpec) -> None:
        """Build it with random weights from torch's global generator.

        Raises:
            ConfigError: unknown backbone or weights, or images too small for the trunk.
            SpecError: top layers that shrink the map below 1x1.
        """
        super().__init__()
        self.spec = spec
        self.trunk = _trunk(spec)
        self.top = TopLayers(spec.top_layers, ground_of(spec))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W), float 0-255, to logits (N, 2): benign, malignant."""
        logits: Tensor = self.top(self.trunk(images))
        return logits


Classifier = PatchClassifier | WholeImageClassifier


@cache  # it builds the trunk's layers, and a search asks for the same ground for every candidate
def ground(backbone: str, images: ImageConfig, side: int, classes: int) -> Ground:
    """Return what top layers stand on: the feature maps of an image and of a patch.

    Args:
        backbone: of the trunk.
        images: their size.
        side: P, of patches [px].
        classes: how many the patch classifier tells apart.

    Raises:
        ConfigError: unknown backbone, or images or patches too small for it.
    """
    found = backbones.find(backbone)
    return Ground(
        channels=found.channels,
        features=backbones.feature_size(found, images.height, images.width),
        kernel=backbones.feature_size(found, side, side),
        classes=classes,
    )


def ground_of(spec: ImageSpec) -> Ground:
    """Return what the top layers of a whole-image classifier stand on."""
    images = ImageConfig(height=spec.height, width=spec.width)
    return ground(spec.backbone, images, spec.side, len(spec.classes))


def patch_classifier(spec: PatchSpec, seed: int) -> PatchClassifier:
    """Return a patch classifier to be trained: seeded random weights, or a pretrained trunk if the spec says so.

    Raises:
        ConfigError: unknown backbone or weights.
        TrainingError: the weights can't be downloaded or read, or don't fit.
    """
    model = seeded(seed, partial(PatchClassifier, spec))
    if spec.weights is not None:
        weights.load(model.trunk, spec.weights)
    return model


@dataclass(frozen=True, slots=True)
class Conversion:
    """A whole-image classifier made from a patch classifier, and what of the weights moved over by name."""

    model: WholeImageClassifier
    moved: int
    """Tensors taken over."""
    new: tuple[str, ...]
    """Names of the tensors that are new: the top layers."""
    left: tuple[str, ...]
    """Names of the patch classifier's tensors that found no place: its FC, unless its heatmap is kept."""


def whole_image(
    patches: PatchClassifier, top_layers: TopSpec, images: ImageConfig, seed: int, precision: Precision
) -> Conversion:
    """Cut a patch classifier after its last feature map and put new top layers on it.

    Args:
        patches: trained patch classifier; it is copied, not changed.
        top_layers: the new ones.
        images: size of the images, and how films are brought to it.
        seed: with the candidate's name, decides the new layers' weights.
        precision: of the new classifier.

    Raises:
        SpecError: `top_layers` shrink the map below 1x1.

    Source: paper, methods; 1152x896 -> 36x28 x C -> top layers.
    """
    name = candidate_name(patches.spec.backbone, top_layers)
    shared = candidates(patches, {name: top_layers}, images, seed, precision)[name]
    with torch.device("meta"):
        model = WholeImageClassifier(shared.spec)
    model.top = shared.top
    old, new = patches.state_dict(), model.state_dict()
    trunk = {name: value.clone() for name, value in old.items() if name.startswith("trunk.") and name in new}
    model.load_state_dict(trunk, strict=False, assign=True)
    heatmap = {f"top.{part}": f"top.heatmap.fc.{part}" for part in ("weight", "bias")}
    moved = {name: name for name in trunk} | {one: other for one, other in heatmap.items() if other in new}
    return Conversion(
        model,
        moved=len(moved),
        new=tuple(name for name in new if name not in moved.values()),
        left=tuple(name for name in old if name not in moved),
    )


def candidates(
    patches: PatchClassifier, top_layers: Mapping[str, TopSpec], images: ImageConfig, seed: int, precision: Precision
) -> dict[str, WholeImageClassifier]:
    """Return new whole-image classifiers by name that share the patch classifier's own trunk.

    Args:
        patches: trained patch classifier.
        top_layers: by the candidate's name.
        images: size of the images, and how films are brought to it.
        seed: with the name, decides the new layers' weights, whatever the other candidates.
        precision: of the new classifiers.

    Raises:
        SpecError: top layers that shrink the map below 1x1.
    """
    trained, models = patches.spec, {}
    for name, layers in top_layers.items():
        spec = ImageSpec(
            backbone=trained.backbone,
            top_layers=layers,
            classes=trained.classes,
            side=trained.side,
            mean_grey=trained.mean_grey,
            height=images.height,
            width=images.width,
            fit=images.fit,
            weights=trained.weights,
            precision=precision,
        )
        top_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1
        top = seeded(top_seed, partial(TopLayers, layers, ground_of(spec)))
        if top.heatmap is not None:
            top.heatmap.take(patches.top)
        models[name] = assemble(spec, patches.trunk, top)
    return models


def adapted(spec: ImageSpec, images: ImageConfig, mean_grey: float) -> ImageSpec:
    """Return what a whole-image classifier is on images of another data set: their size, fit and mean.

    Raises:
        ConfigError: images too small for the trunk, or its top layers belong to images of the old size.
        SpecError: top layers that shrink the map below 1x1.

    Source: paper, 2.4 (fine-tuning on INbreast); the reference subtracts the new data's mean.
    """
    new = replace(spec, height=images.height, width=images.width, fit=images.fit, mean_grey=mean_grey)
    with torch.device("meta"):
        old_state, new_state = (WholeImageClassifier(one).state_dict() for one in (spec, new))
    wrong = [name for name, value in new_state.items() if value.shape != old_state[name].shape]
    if wrong:
        raise ConfigError(
            f"{spec.top_layers} was trained on images of {spec.height}x{spec.width}, and {wrong[0]} has no meaning at "
            f"{images.height}x{images.width}; keep --images.height {spec.height} --images.width {spec.width}"
        )
    return new


def adapt(
    model: WholeImageClassifier, images: ImageConfig, mean_grey: float, precision: Precision
) -> WholeImageClassifier:
    """Return a whole-image classifier with its own weights on images of another data set; see `adapted`."""
    with torch.device("meta"):
        new = WholeImageClassifier(replace(adapted(model.spec, images, mean_grey), precision=precision))
    new.load_state_dict(model.state_dict(), assign=True)
    return new.train(model.training)


def assemble(spec: ImageSpec, trunk: Trunk, top: TopLayers) -> WholeImageClassifier:
    """Return a whole-image classifier that shares these layers with whoever holds them, copying nothing."""
    with torch.device("meta"):
        model = WholeImageClassifier(spec)
    model.trunk, model.top = trunk, top
    return model


def candidate_name(backbone: str, top_layers: TopSpec) -> str:
    """Return a candidate's name, such as `resnet50-512-512-1024x2-512-512-1024x2` or `vgg16-256x1-128x1`."""
    return f"{backbones.slug(backbone)}-{slug(top_layers)}"


def candidate_kind(backbone: str, top_layers: TopSpec) -> str:
    """Return trunk family - top family, such as `Resnet-VGG`.

    Raises:
        ConfigError: unknown backbone.
    """
    return f"{backbones.find(backbone).family}-{top_layers.family}"


def to_input(pixels_NHW: Tensor) -> Tensor:
    """Map uint16 pixels (N, H, W) over their full range to float32 (N, 3, H, W), 0-255; the channels share memory."""
    return to_grey(pixels_NHW)[:, None].expand(-1, 3, -1, -1)


def to_grey(pixels_NHW: Tensor) -> Tensor:
    """Map uint16 pixels (N, H, W) over their full range to float32 grey values 0-255."""
    return pixels_NHW.to(torch.float32) * (255 / 65535)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@torch.inference_mode()
def flip_averaged(model: WholeImageClassifier, pixels_NHW: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score images as they are, and averaged over flips. The model must be in eval mode.

    Args:
        model: on any device.
        pixels_NHW: uint16 (N, H, W), on any device.

    Returns:
        score_N, score_tta_N: float64 (N,), probability of malignant [0-1]: plain, and the mean over the identity,
        horizontal, vertical and both flips.

    Source: paper, methods (augmented prediction).
    """
    images = to_input(pixels_NHW.to(_device(model)))
    flips = ((), (3,), (2,), (2, 3))
    logits = torch.stack([model(images.flip(dims) if dims else images) for dims in flips])
    scores = logits.double().softmax(dim=-1)[..., 1].cpu().numpy()
    return scores[0], scores.mean(axis=0)


def evidence(model: WholeImageClassifier, pixels_NHW: Tensor) -> NDArray[np.float32]:
    """Say where in an image a score comes from: features of the trunk times what they do to the decision.

    Args:
        model: in eval mode, on any device.
        pixels_NHW: uint16 (N, H, W), on any device.

    Returns:
        float32 (N, u, v), what each place of the trunk's map adds to the malignant logit over the benign one, to first
        order; negative where it speaks for benign. Cell (i, j) covers the 32 px from (32 i, 32 j) on.

    Source: Draelos and Carin 2020 (HiResCAM).
    """
    with torch.inference_mode():
        trunk = model.trunk(to_input(pixels_NHW.to(_device(model))))
    features = trunk.clone().requires_grad_()
    with torch.enable_grad():
        logits = model.top(features).double()
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), features)
    evidence_Nuv: NDArray[np.float32] = (features.detach().float() * gradient.float()).sum(dim=1).cpu().numpy()
    return evidence_Nuv


@torch.inference_mode()
def heatmap(model: PatchClassifier, pixels_HW: Tensor) -> NDArray[np.float32]:
    """Run a patch classifier over a whole image at once. The model must be in eval mode.

    Cell (i, j) stands for the patch whose top-left corner is at (32 i, 32 j) px, but sees the image around that patch,
    where the patch alone is padded with zeros; so the two scores are near, not equal.

    Args:
        model: on any device.
        pixels_HW: uint16 (H, W), no smaller than a patch.

    Returns:
        float32 (u, v, C), probabilities of the classes; 30x22x5 for 1152x896 and patches of 224.

    Source: paper, methods (heatmap variant): stride-1 average pooling over a patch's map, FC as 1x1 convolution.
    """
    features = model.trunk(to_input(pixels_HW[None].to(_device(model))))
    kernel = backbones.feature_size(model.trunk.backbone, model.spec.side, model.spec.side)
    pooled = avg_pool2d(features, kernel, stride=1)
    logits = model.top(pooled[0].permute(1, 2, 0))
    probabilities: NDArray[np.float32] = logits.float().softmax(dim=-1).cpu().numpy()
    return probabilities
