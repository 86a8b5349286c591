"""Decode and reduce one image file: a single code path for training and scoring. No Ray.

Shape letters: h, w rows and columns of the file [px]; H, W rows and columns of the reduced image [px].
Pixels are uint16 over the full range: 0 is air (dark), 65535 the largest value the stored bits can hold.
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
from mammoflow.errors import DecodeError, naming

PERCENTILES = (0.5, 99.5)
"""Grey values that become 0 and 65535 under the intensity policy `percentile` [%]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One image as the models see it, and its identity."""

    pixels: NDArray[np.uint16]
    """(H, W), full range, air dark."""
    fit: Fit
    """The map from the file's pixels to these, which lesion outlines follow too."""
    identity: Identity


def load_image(path: str, images: ImageConfig) -> Decoded:
    """Read, decode and reduce one image file; see `decode_bytes`.

    Args:
        path: local path or URL.
        images: the target size and fit.

    Raises:
        DecodeError: the file is absent or can't be read, or as in `decode_bytes`; it names the path.
    """
    with naming(path):
        return decode_bytes(image_files.fetch(path), images)


def decode_bytes(data: bytes, images: ImageConfig) -> Decoded:
    """Decode and reduce the bytes of one image file: DICOM, PNG, TIFF, PGM or JPEG, 8 to 16 bits.

    Args:
        data: the whole file.
        images: the target size and fit.

    Raises:
        DecodeError: the file is damaged, of another format, in colour, of several frames, without pixels, too large, or
            constant.

    Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 8 (encoding); paper, methods (reduction to 1152x896).
    """
    raw = image_files.parse(data, images)
    pixels_hw, largest = raw.pixels, raw.largest
    lowest, highest = int(pixels_hw.min()), int(pixels_hw.max())
    if lowest == highest:
        raise DecodeError(f"every pixel is {lowest}, so it shows nothing; fetch the file again")
    if images.intensity == "percentile":
        darkest, brightest = _percentiles(pixels_hw)
        pixels_hw, largest = np.clip(pixels_hw, darkest, brightest) - pixels_hw.dtype.type(darkest), brightest - darkest
    mirrored = images.face == "right" and (
        raw.identity.faces == "left" if raw.identity.faces else _faces_left(pixels_hw)
    )
    fit = plan_fit(raw.height, raw.width, images, mirrored=mirrored)
    spare = 16 - largest.bit_length()  # unused bits, filled so that averaging keeps fractions before the final rounding
    reduced_HW = fit.apply(pixels_hw.astype(np.uint16, copy=False) << spare if spare else pixels_hw)
    if largest << spare != FULL:
        reduced_HW = np.rint(reduced_HW * (FULL / (largest << spare))).astype(np.uint16)
    return Decoded(pixels=reduced_HW, fit=fit, identity=raw.identity)


def _percentiles(pixels_hw: NDArray[Any]) -> tuple[int, int]:
    """Return the grey values at PERCENTILES, at least 1 apart."""
    shares = np.cumsum(np.bincount(pixels_hw.ravel())) / pixels_hw.size
    darkest, brightest = (int(np.searchsorted(shares, percent / 100)) for percent in PERCENTILES)
    return darkest, max(brightest, darkest + 1)


def _faces_left(pixels_hw: NDArray[Any]) -> bool:
    """Tell whether the breast points left: then its tissue makes the right half of the film the brighter one."""
    half = pixels_hw.shape[1] // 2
    left, right = (cv2.sumElems(part)[0] for part in (pixels_hw[:, :half], pixels_hw[:, -half:]))
    return bool(right > left)
