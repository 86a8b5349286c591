"""Turn the stored values of a DICOM image into grey values: unsigned, air dark. No files, no codecs.

Shape letters: h, w rows and columns of the image [px].

Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2 (padding).
"""

from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from mammoflow.config import ImageConfig
from mammoflow.errors import DecodeError

FULL = 65535
"""The largest 16-bit grey value."""


def grey(tags: pydicom.Dataset, stored_hw: NDArray[Any], images: ImageConfig) -> tuple[NDArray[Any], int]:
    """Return grey values, uint8 or uint16 with air dark and padding 0, and the largest value they may take.

    Raises:
        DecodeError: the intensity policy is `window`, and the file lacks that window or it is empty.
    """
    if images.intensity == "window":
        pixels_hw, largest = _windowed(tags, stored_hw, images.window)
    else:
        pixels_hw, largest = _unsigned(tags, stored_hw)
    if "PixelPaddingValue" in tags and (padded_hw := _padding(tags, stored_hw)).any():
        pixels_hw = pixels_hw * ~padded_hw
    return pixels_hw, largest


def padding_is_air(tags: pydicom.Dataset) -> bool:
    """Tell whether padding, if any, already has the darkest value, so that nothing need be done about it."""
    dark = tags.PhotometricInterpretation == "MONOCHROME2" and not tags.PixelRepresentation
    return "PixelPaddingValue" not in tags or (
        dark and not _inverted(tags) and tags.PixelPaddingValue == 0 and "PixelPaddingRangeLimit" not in tags
    )


def _inverted(tags: pydicom.Dataset) -> bool:
    return bool((tags.PhotometricInterpretation == "MONOCHROME1") != (float(tags.get("RescaleSlope") or 1) < 0))


def _unsigned(tags: pydicom.Dataset, stored_hw: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return stored values shifted to 0 and up, air dark, and the largest value that the stored bits can hold."""
    bits = int(tags.BitsStored)
    largest = 2**bits - 1  # the bits above those stored are cleared
    if tags.PixelRepresentation:
        narrow = stored_hw.dtype.itemsize <= 2
        unsigned_hw = stored_hw.view(stored_hw.dtype.str.replace("i", "u")) if narrow else stored_hw.astype(np.int64)
        # the sum wraps around on purpose: -1 becomes the value just below the middle
        stored_hw = unsigned_hw + unsigned_hw.dtype.type(2 ** (bits - 1))
        if narrow:
            stored_hw &= stored_hw.dtype.type(largest)
    pixels_hw = stored_hw.astype(np.uint8 if bits <= 8 else np.uint16, copy=False)
    return (largest - pixels_hw if _inverted(tags) else pixels_hw), largest


def _windowed(tags: pydicom.Dataset, stored_hw: NDArray[Any], which: int) -> tuple[NDArray[Any], int]:
    """Return the values a viewer shows, scaled to the full range: modality LUT, then VOI LUT or window."""
    luts, windows = tags.get("VOILUTSequence") or (), np.atleast_1d(tags.get("WindowCenter", []))
    offered = len(luts) or len(windows)
    if which >= offered:
        raise DecodeError(
            f"window {which} is asked for, but it has {offered}; use --images.intensity full_range or percentile, "
            "or a smaller --images.window"
        )
    values_hw = apply_modality_lut(stored_hw, tags)
    if len(luts):
        shown_hw = _looked_up(luts[which], values_hw)
        lowest, highest = 0.0, float(2 ** int(luts[which].LUTDescriptor[2]) - 1)
    else:
        shown_hw = np.asarray(apply_voi_lut(values_hw, tags, index=which, prefer_lut=False), np.float64)
        lowest, highest = _window_range(tags, values_hw, which)
    if not (np.isfinite([lowest, highest]).all() and highest > lowest and np.isfinite(shown_hw).all()):
        raise DecodeError(f"its window {which} shows no range of grey values; use another --images.intensity")
    shares_hw = np.clip((shown_hw - lowest) / (highest - lowest), 0, 1)
    if tags.PhotometricInterpretation == "MONOCHROME1":
        shares_hw = 1 - shares_hw
    return np.rint(shares_hw * FULL).astype(np.uint16), FULL


def _looked_up(lut: pydicom.Dataset, values_hw: NDArray[Any]) -> NDArray[np.float64]:
    """Apply a VOI LUT; values beyond its ends get its first or last entry. Source: PS3.3 C.11.2.1.1.

    pydicom 3.0.1 wraps the index at the width of the entries, so an 8-bit LUT maps values 256 apart to the same grey.
    """
    table = np.asarray(lut.LUTData, np.float64)
    entries = np.clip(np.rint(values_hw).astype(np.int64) - int(lut.LUTDescriptor[1]), 0, len(table) - 1)
    return np.asarray(table[entries], np.float64)


def _window_range(tags: pydicom.Dataset, values_hw: NDArray[Any], which: int) -> tuple[float, float]:
    """Return the smallest and largest output of the window: what values far outside it become."""
    far = float(np.abs(values_hw).max()) + 1e6
    with np.errstate(over="ignore"):
        ends = apply_voi_lut(np.array([[-far, far]]), tags, index=which)
    return float(ends[0, 0]), float(ends[0, 1])


def _padding(tags: pydicom.Dataset, stored_hw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels that hold the padding value, or one of its range. Source: PS3.3 C.7.5.1.1.2."""
    value = int(tags.PixelPaddingValue)
    first, last = sorted((value, int(tags.get("PixelPaddingRangeLimit", value))))
    return np.asarray((stored_hw >= first) & (stored_hw <= last), np.bool_)
