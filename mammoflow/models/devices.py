"""Where and how a process computes: the GPU that Ray gave it, or the CPU; fp32 or bf16. Plain PyTorch."""

import os
from typing import Literal

import torch

from mammoflow.errors import PreflightError

Precision = Literal["fp32", "bf16"]
"""Arithmetic of a forward pass."""

STAND_IN = "MAMMOFLOW_GPU_STAND_IN"
"""Where this variable is set and torch sees no GPU, a CPU stands in for one: to try on machines without, in which order
a cluster places work and grows. Nodes must be started with it, and with --num-gpus."""


def find(gpu: bool) -> torch.device:
    """Return the device to compute on.

    Args:
        gpu: whether Ray was asked for one.

    Raises:
        PreflightError: torch sees no GPU.
    """
    if not gpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get(STAND_IN):
        return torch.device("cpu")
    raise PreflightError(
        f"Ray gave this process a GPU, but torch {torch.__version__} sees none; see nvidia-smi on that node: the "
        "driver may be too old for torch's CUDA, or torch be built for CPUs"
    )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which a forward pass runs on a device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
