"""Dropout whose masks follow from what an image is, not from its neighbours, as augmentations do. Plain PyTorch.

torch's own draws from one generator for all: a candidate trained beside others, or on more workers, would see other
masks than alone.

Shape letters: N images, C features.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets a share of the features to 0 in training, and scales the rest up."""

    def __init__(self) -> None:
        """Drop nothing until told to."""
        super().__init__()
        self._share = 0.0
        self._keys: tuple[str, ...] = ()

    def prepare(self, share: float, keys: Sequence[str]) -> None:
        """Choose the share [0-1) and the masks of the next batch.

        Args:
            share: of the features that are dropped.
            keys: what each image's mask follows from: seed, model, epoch and image id.
        """
        self._share, self._keys = share, tuple(keys)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, C) to features of the same mean; unchanged in evaluation."""
        if not self.training or self._share == 0:
            return features
        keep = torch.from_numpy(np.stack([_uniform(key, features.shape[1]) >= self._share for key in self._keys]))
        return features * keep.to(features) / (1 - self._share)


def _uniform(key: str, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return float64 (C,) in [0, 1)."""
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())).random(width)
