"""Convolutional nets of the optional package timm as trunks: built without head, and measured rather than looked up.

Plain PyTorch and timm, which is imported where it is first needed; no Ray, no files.
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mammoflow.errors import ConfigError
from mammoflow.models import STRIDE

PREFIX = "timm:"
"""What the name of a backbone of timm begins with."""

_HEIGHT, _WIDTH = 256, 192
_CHANCES = ("drop_prob", "drop_rate", "drop_path_rate", "attn_drop_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a trunk's layers are, as a pass through them shows."""

    channels: int
    """C, channels of the last feature map."""
    stages: tuple[str, ...]
    """Names of the layers that hold weights, in the order in which they run; containers are opened one level."""
    top_from: str
    """The first of them that is given a map of stride 8: res3b of Resnet50, block4_conv1 of VGG16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What timm and the net itself say of a trunk."""

    layout: Layout
    family: str
    """The net's class, such as `EfficientNet`."""
    grey_std: float
    """Divisor of grey values 0-255 that its weights expect (the mean of three channels)."""
    url: str | None
    """Where timm's weights are published; None where there are none."""


def is_timm(backbone: str) -> bool:
    """Tell whether a backbone's name is one of timm's."""
    return backbone.startswith(PREFIX)


def sync_batch_norm(layers: nn.Module) -> None:
    """Replace every BatchNorm, in place, by one over all workers; timm's own holds the activation after it."""
    importlib.import_module("timm.layers").convert_sync_batchnorm(layers)


def look_up(backbone: str) -> Facts:
    """Return what is known of a net of timm; builds it on the meta device, so that nothing is computed.

    Args:
        backbone: `timm:` and a name of timm's, such as `timm:tf_efficientnet_lite0`, with or without a tag.

    Raises:
        ConfigError: timm is not installed, knows no such name, or the net is no trunk: no map of stride 32.
    """
    name = backbone.removeprefix(PREFIX)
    _check_name(name)
    try:
        with torch.device("meta"):
            net = build(backbone).to("meta").eval()
            layout = measure(net)
    except Exception as error:  # timm's nets refuse what they can't do, such as another size, with errors of any kind
        reason = str(error).rstrip(".") or type(error).__name__
        raise ConfigError(
            f"backbone {backbone} can't be a trunk: {reason}; choose a convolutional net "
            f"of stride {STRIDE}, such as {PREFIX}resnet50"
        ) from error
    about: Any = net.pretrained_cfg
    hub = about.get("hf_hub_id")
    return Facts(
        layout=layout,
        family={"ResNet": "Resnet"}.get(type(net).__name__, type(net).__name__),  # one word for one kind
        grey_std=255 * sum(about["std"]) / len(about["std"]),
        url=f"https://huggingface.co/{hub}" if hub else about.get("url"),
    )


def build(backbone: str) -> nn.Module:
    """Return the net without pooling and classifier, randomly initialised; nothing in it is left to chance later.

    Buffers that no file of weights holds, such as a blur's filter, are real even on the meta device.
    """
    net = _create(backbone, pretrained=False)
    if any(buffer.is_meta for _, _, buffer in _computed_buffers(net)):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            real = {f"{path}.{name}": buffer for path, name, buffer in _computed_buffers(_create(backbone))}
        for path, name, _ in list(_computed_buffers(net)):
            net.get_submodule(path).register_buffer(name, real[f"{path}.{name}"], persistent=False)
    return net


def download(backbone: str) -> Mapping[str, Tensor]:
    """Return the weights that timm publishes for a net, downloaded once to its own cache; no code of a pickle is run.

    Raises:
        OSError, RuntimeError: no network, no space.
    """
    state: Mapping[str, Tensor] = _create(backbone, pretrained=True).state_dict()
    return state


def measure(net: nn.Module) -> Layout:
    """Send an image through a net that lies on the meta device, and see what it makes of it.

    Raises:
        ValueError: its output is no map of stride 32, or layers that hold weights are not run one after another.
    """
    rows: dict[str, int] = {}
    hooks = [layer.register_forward_pre_hook(partial(_note, rows, name)) for name, layer in _layers(net)]
    try:
        features = net(torch.empty(1, 3, _HEIGHT, _WIDTH, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    shape = tuple(features.shape)
    h, w = _HEIGHT // STRIDE, _WIDTH // STRIDE
    if len(shape) != 4 or shape[2:] != (h, w):
        raise ValueError(f"of an image of {_HEIGHT}x{_WIDTH} px it makes {shape}, not a map of (1, C, {h}, {w})")
    starts = tuple(f"{name}." for name in rows)
    idle = [name for name, _ in net.named_parameters() if not name.startswith(starts)]
    if idle:
        raise ValueError(f"{len(idle)} of its weights, the first {idle[0]}, are in no layer that it runs by itself")
    first = next((name for name, height in rows.items() if height * 8 <= _HEIGHT), list(rows)[-1])
    return Layout(channels=shape[1], stages=tuple(rows), top_from=first)


def _note(rows: dict[str, int], name: str, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Keep the rows of what a layer is given first; nets of several branches hand on lists."""
    first: Any = inputs
    while not isinstance(first, Tensor):
        first = first[0]
    rows.setdefault(name, first.shape[-2])


def _layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers that hold weights, by name; containers are opened one level."""
    for name, child in net.named_children():
        inner = isinstance(child, nn.Sequential | nn.ModuleList)
        parts = [(f"{name}.{part}", layer) for part, layer in child.named_children()] if inner else [(name, child)]
        yield from ((part, layer) for part, layer in parts if next(layer.parameters(), None) is not None)


def _computed_buffers(net: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield the buffers that are not part of the net's weights: layer's name, own name, values."""
    kept = net.state_dict().keys()
    for name, buffer in net.named_buffers():
        if name not in kept:
            path, _, own = name.rpartition(".")
            yield path, own, buffer


def _create(backbone: str, *, pretrained: bool = False) -> nn.Module:
    name = backbone.removeprefix(PREFIX)
    net: nn.Module = _timm(backbone).create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    if hasattr(net, "pre_logits"):  # VGG's FC layers, as a 7x7 convolution
        net.pre_logits = nn.Identity()
    for layer in net.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        for chance in _CHANCES:
            if isinstance(getattr(layer, chance, None), float):
                setattr(layer, chance, 0.0)
    return net


def _timm(backbone: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"backbone {backbone} needs the package timm ({error}); pip install 'mammoflow[timm]', on every node"
        ) from error
    return timm


def _check_name(name: str) -> None:
    timm = _timm(PREFIX + name)
    known = {*timm.list_models(include_tags=False), *timm.list_models(include_tags=True)}
    if name not in known:
        near = ", ".join(PREFIX + other for other in difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.0))
        raise ConfigError(
            f"backbone is {PREFIX + name!r}, but timm {timm.__version__} has no {name!r}; it has {len(known)} names, "
            f"such as {near}"
        )
