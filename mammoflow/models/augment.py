"""The paper's augmentations on whole batches, on the batch's own device: one affine per image, then grey shifts.

Plain PyTorch; no Ray, no files. What happens to an image follows from (seed, epoch, stage, image id) alone, not from
its neighbours in the batch, the number of workers or the order of reading.

Shape letters: N images, H W rows and columns [px]. Positions are (row, column).
Source: Shen et al. 2019, methods.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mammoflow.config import AugmentConfig

_NUMBERS = 9  # per image: two flips, rotation, shear, two zooms, three shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is done to each image of a batch, on the CPU."""

    affine: Tensor
    """float64 (N, 2, 2): offset (row, column) from the centre in the result -> offset in the image [px]."""
    shift: Tensor
    """float64 (N, 3): added to each channel's grey values [of 255]."""


def draw(augment: AugmentConfig, seed: int, epoch: int, stage: int, ids: Sequence[str]) -> Changes:
    """Draw the changes of a batch of images, each from a hash of its own id.

    Every value is uniform in its range of the config. As in the reference, the result is rotated, sheared and zoomed
    about the centre and then flipped; a zoom factor above 1 shows more of the image.
    """
    u_N9 = torch.from_numpy(_uniform(seed, epoch, stage, ids))
    flip_N2 = 1.0 - 2.0 * (u_N9[:, 0:2] < (0.5 if augment.flips else 0.0)).double()
    angle_N = (2 * u_N9[:, 2] - 1) * np.deg2rad(augment.rotation)
    shear_N = (2 * u_N9[:, 3] - 1) * augment.shear
    zoom_N2 = 1 + (2 * u_N9[:, 4:6] - 1) * augment.zoom
    shift_N3 = (2 * u_N9[:, 6:9] - 1) * augment.channel_shift

    rotation_N22 = _matrices(torch.cos(angle_N), -torch.sin(angle_N), torch.sin(angle_N), torch.cos(angle_N))
    shear_N22 = _matrices(torch.ones_like(shear_N), -torch.sin(shear_N), torch.zeros_like(shear_N), torch.cos(shear_N))
    scale_N22 = torch.diag_embed(zoom_N2 * flip_N2)  # a flip of the result comes first on the way back to the image
    return Changes(affine=rotation_N22 @ shear_N22 @ scale_N22, shift=shift_N3)


def _uniform(
    seed: int, epoch: int, stage: int, ids: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return float64 (N, 9) in [0, 1): the digits of a hash are as good as a generator's, and need no state."""
    digests = [
        hashlib.blake2b(f"{seed}/{epoch}/{stage}/{name}".encode(), digest_size=4 * _NUMBERS).digest() for name in ids
    ]
    words = np.frombuffer(b"".join(digests), dtype="<u4").reshape(len(ids), _NUMBERS)
    return words / np.float64(2**32)


def _matrices(a_N: Tensor, b_N: Tensor, c_N: Tensor, d_N: Tensor) -> Tensor:
    """Return [[a, b], [c, d]] for every image: (N, 2, 2)."""
    return torch.stack([torch.stack([a_N, b_N], dim=1), torch.stack([c_N, d_N], dim=1)], dim=1)


def apply(grey_NHW: Tensor, changes: Changes) -> Tensor:
    """Change a batch of images: bilinear, nearest fill outside, grey values kept within 0-255.

    Args:
        grey_NHW: float (N, H, W), grey values 0-255, on any device.
        changes: of `draw`, for the same N images.

    Returns:
        float (N, 3, H, W), channels last in memory, on the same device.
    """
    grid = _grid(changes.affine.to(grey_NHW), *grey_NHW.shape[1:])
    warped_N1HW = grid_sample(grey_NHW[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    shape = (len(grey_NHW), 3, *grey_NHW.shape[1:])
    shifted_N3HW = torch.empty(shape, dtype=grey_NHW.dtype, device=grey_NHW.device, memory_format=torch.channels_last)
    torch.add(warped_N1HW, changes.shift.to(grey_NHW)[:, :, None, None], out=shifted_N3HW)
    return shifted_N3HW.clamp_(0, 255)


def _grid(affine_N22: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel of the results comes from: (N, H, W, 2), (column, row), the image's sides -1 to 1.

    torch's own `affine_grid` multiplies matrices for every pixel, which takes seven times as long.
    """
    rows_H, columns_W = (
        torch.arange(side, dtype=affine_N22.dtype, device=affine_N22.device) + (1 - side) / 2
        for side in (height, width)
    )
    rows_H1 = rows_H[:, None]
    weights = affine_N22[..., None, None]
    grid = affine_N22.new_empty(len(affine_N22), height, width, 2)
    torch.add(weights[:, 1, 0] * rows_H1, weights[:, 1, 1] * columns_W, out=grid[..., 0]).mul_(2 / width)
    torch.add(weights[:, 0, 0] * rows_H1, weights[:, 0, 1] * columns_W, out=grid[..., 1]).mul_(2 / height)
    return grid
