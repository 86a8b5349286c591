"""The map from a film to its reduced image: how both films and the outlines on them are made smaller. OpenCV only.

Shape letters: h, w rows and columns of the film [px]; H, W of the reduced image [px].
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.config import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The map from a file's pixels to the reduced image: mirrored or not, a resize to (height, width), air around."""

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
        """Mirror, resize by area (linear where a side grows) and pad with zeros; the dtype stays.

        Args:
            pixels_hw: of the file's size, or of a reduced resolution of it.
        """
        if self.mirrored:
            pixels_hw = cv2.flip(pixels_hw, 1)
        shrinks = self.height <= self.source_height and self.width <= self.source_width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        inner = cv2.resize(pixels_hw, (self.width, self.height), interpolation=how)
        return np.pad(inner, ((self.top, self.bottom), (self.left, self.right)))

    def apply_mask(self, mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Reduce an outline: the cells it covers by half, or, where there is none, the cell it covers most."""
        most = 255  # 8 bits hold a cell's cover well enough to tell a half, and take a quarter of the time of floats
        reduced_HW = self.apply(mask_hw.view(np.uint8) * np.uint8(most)) > most // 2
        if not reduced_HW.any():
            cover_HW = self.apply(mask_hw.astype(np.float32))
            reduced_HW = (cover_HW == cover_HW.max()) & (cover_HW > 0)
        return np.asarray(reduced_HW, np.bool_)


def plan_fit(source_height: int, source_width: int, images: ImageConfig, *, mirrored: bool = False) -> Fit:
    """Return the map of a film of this size: `stretch` fills (H, W); `pad` keeps the aspect and centres it in air."""
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
