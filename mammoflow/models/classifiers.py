"""Patch and whole-image classifiers, the bank of candidates on one trunk, and the change of one into the other.

Plain PyTorch; no Ray, no files: a model folder is a dict of file names and bytes, never a pickle.

Shape letters: N images, H W rows and columns [px], C classes of patches, K candidate heads, h w rows and columns of
the trunk's map, u v rows and columns of a heatmap. Images are grey values 0-255, repeated to 3 channels.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mammoflow.errors import LakeError
from mammoflow.models import backbones, top_layers
from mammoflow.models.backbones import Trunk
from mammoflow.models.top_layers import TopLayers

SPEC_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"
_FORMAT = 1  # of model.json


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """All that makes a whole-image classifier, but its weights."""

    backbone: str
    top_layers: str
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
        self.top = nn.Linear(self.trunk.backbone.channels, len(spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map patches (N, 3, P, P), float 0-255, to logits (N, C)."""
        logits: Tensor = self.top(self.trunk(images).mean(dim=(2, 3)))
        return logits


class WholeImageClassifier(nn.Module):
    """A patch classifier's trunk with top layers that decide over the whole image."""

    def __init__(self, spec: ImageSpec) -> None:
        """Build it with random weights from torch's global generator.

        Raises:
            ConfigError: unknown backbone or weights, or images too small for the trunk.
            SpecError: top layers that can't be read, or shrink the map below 1x1.
        """
        super().__init__()
        self.spec = spec
        self.trunk = _trunk(spec)
        self.top = TopLayers(spec.top_layers, self.trunk.backbone.channels)
        _check_fit(spec)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W), float 0-255, to logits (N, 2): benign, malignant."""
        logits: Tensor = self.top(self.trunk(images))
        return logits


Classifier = PatchClassifier | WholeImageClassifier
_Model = TypeVar("_Model", bound=nn.Module)


def _check_fit(spec: ImageSpec) -> None:
    h, w = backbones.feature_size(backbones.find(spec.backbone), spec.height, spec.width)
    top_layers.map_sizes(spec.top_layers, h, w)


def _seeded(seed: int, build: Callable[[], _Model]) -> _Model:
    """Build a model from a seed without touching torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def patch_classifier(spec: PatchSpec, seed: int) -> PatchClassifier:
    """Return a patch classifier to be trained: seeded random weights, and the trunk's pretrained ones if `spec` says so.

    Raises:
        ConfigError: unknown backbone or weights.
        TrainingError: the weights can't be downloaded.
    """
    model = _seeded(seed, lambda: PatchClassifier(spec))
    if spec.weights is not None:
        backbones.load_pretrained(model.trunk, spec.weights)
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
    """Names of the patch classifier's tensors that found no place: its FC."""


def whole_image(
    patches: PatchClassifier, top_spec: str, height: int, width: int, fit: Literal["stretch", "pad"], seed: int
) -> Conversion:
    """Cut a patch classifier after its last feature map and put new top layers on it.

    Args:
        patches: trained patch classifier; it is copied, not changed.
        top_spec: top layers, such as `256x1,128x1`.
        height: rows of the images [px].
        width: columns of the images [px].
        fit: how films are brought to that size.
        seed: of the top layers' weights; a candidate of a bank with the same seed has the same.

    Raises:
        SpecError: `top_spec` can't be read, or shrinks the map below 1x1.

    Source: paper, methods; 1152x896 -> 36x28 x C -> top layers.
    """
    spec = _image_spec(patches.spec, top_spec, height, width, fit)
    model = WholeImageClassifier(spec)
    model.top = _seeded(seed, lambda: TopLayers(top_spec, model.trunk.backbone.channels))
    old, new = patches.state_dict(), model.state_dict()
    moved = {name: value for name, value in old.items() if name.startswith("trunk.") and name in new}
    model.load_state_dict(moved, strict=False)
    return Conversion(
        model,
        moved=len(moved),
        new=tuple(name for name in new if name not in moved),
        left=tuple(name for name in old if name not in moved),
    )


def _image_spec(spec: PatchSpec, top_spec: str, height: int, width: int, fit: Literal["stretch", "pad"]) -> ImageSpec:
    return ImageSpec(
        backbone=spec.backbone,
        top_layers=top_spec,
        mean_grey=spec.mean_grey,
        height=height,
        width=width,
        fit=fit,
        weights=spec.weights,
    )


def assemble(spec: ImageSpec, trunk: Trunk, top: TopLayers) -> WholeImageClassifier:
    """Return a whole-image classifier that shares these layers with whoever holds them, copying nothing."""
    with torch.device("meta"):
        model = WholeImageClassifier(spec)
    model.trunk, model.top = trunk, top
    return model


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


def new_bank(trunk: Trunk, top_specs: Sequence[str], seeds: Sequence[int]) -> TopLayerBank:
    """Return a bank of new heads, one seed each.

    Raises:
        SpecError: one of them can't be read.
    """
    channels = trunk.backbone.channels
    heads = [
        _seeded(seed, lambda spec=spec: TopLayers(spec, channels))  # type: ignore[misc]
        for spec, seed in zip(top_specs, seeds, strict=True)
    ]
    return TopLayerBank(heads)


def candidate_name(backbone: str, top_spec: str) -> str:
    """Return a candidate's name, such as `resnet50-512-512-1024x2-512-512-1024x2` or `vgg16-256x1-128x1`."""
    slug = top_spec.replace("[", "").replace("]", "").replace(" ", "").replace(",", "-")
    return f"{backbone}-{slug}"


def candidate_kind(backbone: str, top_spec: str) -> str:
    """Return trunk family - top family, such as `Resnet-VGG`; blocks of both kinds are `Mixed`.

    Raises:
        ConfigError: unknown backbone.
        SpecError: the top layers can't be read.
    """
    return f"{backbones.find(backbone).family}-{top_layers.family(top_spec)}"


def to_input(pixels_NHW: Tensor) -> Tensor:
    """Map uint16 pixels (N, H, W) over their full range to float32 (N, 3, H, W), 0-255; the channels share memory."""
    return to_grey(pixels_NHW)[:, None].expand(-1, 3, -1, -1)


def to_grey(pixels_NHW: Tensor) -> Tensor:
    """Map uint16 pixels (N, H, W) over their full range to float32 grey values 0-255."""
    return pixels_NHW.to(torch.float32) * (255 / 65535)


def to_files(model: Classifier, state: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
    """Return a model folder: its spec as JSON and its weights as safetensors.

    Args:
        model: whose spec it is.
        state: weights to write instead of the model's own, all of them.
    """
    kind = "patch" if isinstance(model, PatchClassifier) else "image"
    about = {"format": _FORMAT, "kind": kind, **asdict(model.spec)}
    weights = model.state_dict() if state is None else state
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    return {SPEC_FILE: (json.dumps(about, indent=1) + "\n").encode(), WEIGHTS_FILE: save_tensors(tensors)}


def from_files(files: Mapping[str, bytes]) -> Classifier:
    """Return the model of a model folder, in eval mode on the CPU.

    Raises:
        LakeError: a file is missing or damaged, or the weights don't fit the spec; says which and how many.
    """
    for name in (SPEC_FILE, WEIGHTS_FILE):
        if name not in files:
            raise LakeError(f"a model folder needs {SPEC_FILE} and {WEIGHTS_FILE}; {name} is missing")
    model = _from_spec(files[SPEC_FILE])
    try:
        state = load_tensors(files[WEIGHTS_FILE])
    except SafetensorError as error:
        raise LakeError(f"{WEIGHTS_FILE} is damaged ({error}); train the model again or restore the file") from error
    wanted = model.state_dict()
    wrong = sorted(name for name in wanted.keys() | state.keys() if not _same_shape(wanted.get(name), state.get(name)))
    if wrong:
        raise LakeError(
            f"{len(wrong)} of {len(wanted)} weights in {WEIGHTS_FILE} don't fit {SPEC_FILE}, the first {wrong[0]}; "
            "the two files are not of one model"
        )
    model.load_state_dict(state, assign=True)
    return model.eval()


def _same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape


def _from_spec(data: bytes) -> Classifier:
    """Build the model on the meta device: its weights come from the file."""
    try:
        about = json.loads(data)
        kind = about["kind"]
        form = {"patch": PatchSpec, "image": ImageSpec}[kind]
        values = {field.name: about[field.name] for field in fields(form)}
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{SPEC_FILE} is damaged ({error!r}); train the model again or restore the file") from error
    if about.get("format") != _FORMAT:
        raise LakeError(
            f"{SPEC_FILE} has format {about.get('format')}; this version reads {_FORMAT}: use a matching version"
        )
    with torch.device("meta"):
        if kind == "patch":
            return PatchClassifier(PatchSpec(**{**values, "classes": tuple(values["classes"])}))
        return WholeImageClassifier(ImageSpec(**values))


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
    return logits.float().softmax(dim=-1).cpu().numpy()
