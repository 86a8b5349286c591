"""Weights that a trunk begins with: published ones by name, or a file of the user's. No Ray.

Only tensors are ever read from a file: no code that a pickle may hold is run.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from mammoflow import lake
from mammoflow.errors import LakeError, TrainingError
from mammoflow.models.backbones import GREY_STD, Backbone, Trunk, is_file
from mammoflow.models.timm_trunks import is_timm

_NESTS = ("state_dict", "model", "model_state_dict")
"""Keys under which checkpoints keep the weights beside other things."""


def load(trunk: Trunk, weights: str) -> None:
    """Fill a trunk with published weights, downloaded once to torch's or Hugging Face's cache, or with those of a file.

    Names in the file are those of torchvision's or timm's model, or of a model of ours, or any behind a common prefix.

    Args:
        trunk: to be filled.
        weights: a name of the registry's entry; or a path or URL that ends in .safetensors, .pth or .pt.

    Raises:
        ConfigError: the backbone has no weights of that name.
        TrainingError: they can't be downloaded or read, or don't fit; says which and how many.
    """
    trunk.backbone.scale(weights)  # names the known where there are none of this name
    state = _of_file(weights) if is_file(weights) else _published(trunk.backbone, weights)
    wanted = trunk.layers.state_dict()
    found = _without_prefix(state, wanted)
    wrong = sorted(name for name in wanted if name not in found or found[name].shape != wanted[name].shape)
    if wrong:
        first = wrong[0]
        shape = "x".join(str(side) for side in wanted[first].shape)
        has = "x".join(str(side) for side in found[first].shape) if first in found else "nothing"
        raise TrainingError(
            f"{weights}: {len(wrong)} of {len(wanted)} weights of {trunk.backbone.name} are missing or of another "
            f"shape, the first {first} ({has} where {shape} is wanted); give weights of this backbone"
        )
    trunk.layers.load_state_dict({name: found[name] for name in wanted})


def check(backbone: Backbone, weights: str | None) -> None:
    """Refuse weights that the backbone does not know, or a file that can't be read or does not fit it.

    Raises:
        ConfigError, TrainingError: as `load`.
    """
    backbone.scale(weights)
    if weights is not None and is_file(weights):
        load(Trunk(backbone, 0.0, GREY_STD), weights)


def _published(backbone: Backbone, weights: str) -> Mapping[str, Tensor]:
    entry = backbone.pretrained[weights]
    try:
        return entry.download()
    except (OSError, RuntimeError) as error:  # no network, no space; a download cut short
        place = "" if is_timm(backbone.name) else f"put the file into {torch.hub.get_dir()}/checkpoints, "
        raise TrainingError(
            f"can't download {entry.url} ({error}); let this machine reach it once, {place}give a file, or train from "
            "random weights with `weights=None`"
        ) from error


def _of_file(url: str) -> Mapping[str, Tensor]:
    try:
        data = lake.read_bytes(url)
    except LakeError as error:
        raise TrainingError(f"can't read the weights {url} ({error.__cause__}); give a file that is there") from error
    try:
        state: Any = (
            load_tensors(data)
            if url.endswith(".safetensors")
            else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{url} holds no weights that can be read safely ({error}); save a state dict of tensors alone"
        ) from error
    for nest in _NESTS:
        if isinstance(state, Mapping) and isinstance(state.get(nest), Mapping):
            state = state[nest]
    if not isinstance(state, Mapping):
        raise TrainingError(f"{url} holds a {type(state).__name__}, no names with weights; save a state dict")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what stands before the trunk's own names: of all prefixes there are, the one that most names have."""
    last = list(wanted)[-1]
    prefixes = {"", *(name.removesuffix(last) for name in state if name.endswith(last))}
    stripped = [
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for prefix in sorted(prefixes)
    ]
    return max(stripped, key=lambda names: len(names.keys() & wanted.keys()))
