"""Map films and the outlines on them to the reduced image. OpenCV only.

Shape letters: h, w rows and columns of the film [px]; H, W of the reduced image [px].
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.config import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The map from a file's pixels to the reduced image: mirror, resize to (height, width), pad with air."""

    source_height: int
    source_width: int
    height: int
    width: int
    top: int
    left: int
    bottom: int
    right: int
    mirrored: bool = False

    def apply(self, pixels_hw: NDArray[Any]) -> NDArray[Any]:
        """Mirror, resize by area (linear if a side grows) and pad with zeros; keep the dtype.

        Args:
            pixels_hw: at full size, or at a reduced resolution.
        """
        if self.mirrored:
            pixels_hw = cv2.flip(pixels_hw, 1)
        inner = cv2.resize(pixels_hw, (self.width, self.height), interpolation=self._how)
        return np.pad(inner, ((self.top, self.bottom), (self.left, self.right)))

    def apply_mask(self, mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Reduce an outline to the pixels at least half covered by it, or else to the one covered most."""
        flipped_hw = mask_hw.view(np.uint8)
        if self.mirrored:
            flipped_hw = np.asarray(cv2.flip(flipped_hw, 1), np.uint8)
        rows = slice(0, self.source_height), slice(0, self.height)
        columns = slice(0, self.source_width), slice(0, self.width)
        if self._how == cv2.INTER_AREA:  # a lesion is small, so only its surroundings are resized
            left, top, wide, high = cv2.boundingRect(flipped_hw)
            rows = _whole_cells(top, top + high, self.source_height, self.height)
            columns = _whole_cells(left, left + wide, self.source_width, self.width)
        size = columns[1].stop - columns[1].start, rows[1].stop - rows[1].start
        near_hw = flipped_hw[rows[0], columns[0]].astype(np.float32)
        cover_HW = cv2.resize(near_hw, size, interpolation=self._how)
        reduced_HW = cover_HW >= 0.5
        if not reduced_HW.any():
            reduced_HW = (cover_HW == cover_HW.max()) & (cover_HW > 0)
        whole_HW = np.zeros((self.height, self.width), np.bool_)
        whole_HW[rows[1], columns[1]] = reduced_HW
        return np.pad(whole_HW, ((self.top, self.bottom), (self.left, self.right)))

    @property
    def _how(self) -> int:
        """Return OpenCV's interpolation: by area, or linear if a side grows."""
        shrinks = self.height <= self.source_height and self.width <= self.source_width
        return int(cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _whole_cells(first: int, last: int, source: int, target: int) -> tuple[slice, slice]:
    """Return the shortest range of source pixels around [first, last) that maps to whole target cells, and the cells.

    For a shrinking side only. Borders of pixels and cells coincide gcd(source, target) times along the side.
    """
    parts = math.gcd(source, target)
    pixels, cells = source // parts, target // parts
    start, stop = first // pixels, max(-(-last // pixels), first // pixels + 1)
    return slice(start * pixels, stop * pixels), slice(start * cells, stop * cells)


def plan_fit(source_height: int, source_width: int, images: ImageConfig, *, mirrored: bool = False) -> Fit:
    """Return the map for a film of this size: `stretch` fills (H, W); `pad` keeps the aspect ratio and centres."""
    height, width = images.height, images.width
    if images.fit == "pad":
        scale = min(images.height / source_height, images.width / source_width)
        height = max(1, min(images.height, round(source_height * scale)))
        width = max(1, min(images.width, round(source_width * scale)))
    top, left = (images.height - height) // 2, (images.width - width) // 2
    return Fit(
        source_height=source_height,
        source_width=source_width,
        height=height,
        width=width,
        top=top,
        left=left,
        bottom=images.height - height - top,
        right=images.width - width - left,
        mirrored=mirrored,
    )
