"""What the training images look like, and whether a new one is of their kind. No torch, no Ray, no files.

A model's scores mean little on images unlike those that it was trained on: another vendor, another digitiser, another
way of processing. A profile keeps what ranges a few figures of the breast's grey values have in the training set.

Shape letters: N images, F figures, H W rows and columns of an image [px].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mammoflow.data.patches import tissue_mask

FIGURES = ("breast", "darkest", "lower", "median", "upper", "brightest", "spread")
"""Share of the image that is breast; 2%, 25%, 50%, 75% and 98% points of its grey values, and the middle half's width;
all 0-1."""

_POINTS = (2, 25, 50, 75, 98)
_OUTER = 0.01  # share of training images beyond each end of a figure's inner range
_MARGIN = 0.25  # added to both ends, of the range's width


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Ranges of training images' figures, and their vendors."""

    low: tuple[float, ...]
    """Lower end of each figure, in the order of `FIGURES`."""
    high: tuple[float, ...]
    """Upper end of each figure."""
    vendors: tuple[str, ...]
    """Vendors of their machines, as far as files say; empty where none does."""
    images: int
    """Images that it was made from."""


def figures(pixels_HW: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Return an image's figures (F,) [0-1], as `FIGURES` names them.

    Args:
        pixels_HW: uint16 (H, W), full range, air dark.
    """
    breast_HW = tissue_mask(pixels_HW)
    inside = pixels_HW[breast_HW] if breast_HW.any() else pixels_HW.ravel()
    points = np.percentile(inside, _POINTS) / 65535
    return np.array([breast_HW.mean(), *points, points[3] - points[1]])


def fit(figures_NF: npt.NDArray[np.float64], vendors: Sequence[str | None]) -> Profile:
    """Return the profile of the training images.

    Args:
        figures_NF: of each training image, (N, F); N at least 1.
        vendors: of each, None where its file doesn't say.
    """
    low_F, high_F = np.quantile(figures_NF, (_OUTER, 1 - _OUTER), axis=0)
    margin_F = _MARGIN * (high_F - low_F) + 0.01
    named = sorted({vendor for vendor in vendors if vendor})
    return Profile(
        low=tuple((low_F - margin_F).tolist()),
        high=tuple((high_F + margin_F).tolist()),
        vendors=tuple(named),
        images=len(figures_NF),
    )


def warnings(profile: Profile, pixels_HW: npt.NDArray[np.uint16], vendor: str | None) -> list[str]:
    """Return how an image differs from the training set, in words; empty where it does not.

    Args:
        profile: of the training set.
        pixels_HW: uint16 (H, W), full range, air dark.
        vendor: of its machine, or None where the file doesn't say; only held against training images that do.
    """
    differences = []
    if vendor and profile.vendors and vendor not in profile.vendors:
        differences.append(f"vendor {vendor}, trained on {', '.join(profile.vendors)}")
    for name, value, low, high in zip(FIGURES, figures(pixels_HW), profile.low, profile.high, strict=True):
        if not low <= value <= high:
            differences.append(f"{name} {value:.2f}, trained on {max(low, 0):.2f}-{min(high, 1):.2f}")
    return differences
