"""One image file -> pixels and what they mean; one code path for training and for scoring. No Ray.

Shape letters: h, w rows and columns of the file [px]; H, W rows and columns of the reduced image [px].
Pixels are uint16 over the full range: 0 is air (dark), 65535 the largest value that the stored bits can hold.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.config import ImageConfig
from mammoflow.data import image_files
from mammoflow.data.dicom.reader import FULL, Identity
from mammoflow.data.fit import Fit, plan_fit
from mammoflow.errors import DecodeError

PERCENTILES = (0.5, 99.5)
"""Grey values of a film that become 0 and the full range under the policy `percentile` [%]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One image as the models see it, and what its file says of it."""

    pixels: NDArray[np.uint16]
    """(H, W), full range, air dark."""
    fit: Fit
    """How the file's pixels became these; lesion outlines follow the same map."""
    identity: Identity
    """What the file says of whom and what it shows."""

    @property
    def source_height(self) -> int:
        """Rows of the file [px]."""
        return self.fit.source_height

    @property
    def source_width(self) -> int:
        """Columns of the file [px]."""
        return self.fit.source_width


def load_image(path: str, images: ImageConfig) -> Decoded:
    """Read, decode and reduce one image file; see `decode_bytes`.

    Args:
        path: local path or URL.
        images: the target size and fit.

    Raises:
        DecodeError: the file is absent or can't be read, or as in `decode_bytes`.
    """
    return decode_bytes(path, image_files.fetch(path), images)


def decode_bytes(path: str, data: bytes, images: ImageConfig) -> Decoded:
    """Decode and reduce the bytes of one image file: DICOM, PNG, TIFF, PGM or JPEG, of 8 to 16 bits.

    Args:
        path: what errors call it.
        data: the file's bytes.
        images: the target size and fit.

    Raises:
        DecodeError: the file is damaged, of another format, in colour, of several frames, without pixels, too large, or
            constant.

    Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 8 (encoding); paper, methods (reduction to 1152x896).
    """
    raw = image_files.parse(path, data, images)
    pixels_hw, largest = raw.pixels, raw.largest
    lowest, highest = int(pixels_hw.min()), int(pixels_hw.max())
    if lowest == highest:
        raise DecodeError(f"{path}: every pixel is {lowest}, so it shows nothing; fetch the file again")
    if images.intensity == "percentile":
        darkest, brightest = _percentiles(pixels_hw)
        pixels_hw, largest = np.clip(pixels_hw, darkest, brightest) - pixels_hw.dtype.type(darkest), brightest - darkest
    mirrored = images.face == "right" and (
        raw.identity.faces == "left" if raw.identity.faces else _faces_left(pixels_hw)
    )
    fit = plan_fit(raw.height, raw.width, images, mirrored=mirrored)
    spare = 16 - largest.bit_length()  # filled, so that averages keep their fractions until the range is full
    reduced_HW = fit.apply(pixels_hw.astype(np.uint16, copy=False) << spare if spare else pixels_hw)
    if largest << spare != FULL:
        reduced_HW = np.rint(reduced_HW * (FULL / (largest << spare))).astype(np.uint16)
    return Decoded(pixels=reduced_HW, fit=fit, identity=raw.identity)


def _percentiles(pixels_hw: NDArray[Any]) -> tuple[int, int]:
    """Return the grey values between which all but the darkest and brightest pixels lie, at least 1 apart."""
    shares = np.cumsum(np.bincount(pixels_hw.ravel())) / pixels_hw.size
    darkest, brightest = (int(np.searchsorted(shares, percent / 100)) for percent in PERCENTILES)
    return darkest, max(brightest, darkest + 1)


def _faces_left(pixels_hw: NDArray[Any]) -> bool:
    """Tell whether the breast points left: its tissue, the brighter half of the film, lies at the right edge."""
    half = pixels_hw.shape[1] // 2
    left, right = (cv2.sumElems(part)[0] for part in (pixels_hw[:, :half], pixels_hw[:, -half:]))
    return bool(right > left)
