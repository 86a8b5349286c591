"""Find lesion outlines among mask files by their pixels, or fill them from vertices; stored as 1-bit PNG. No Ray.

Shape letters: h, w rows and columns of the film [px]; H, W of the reduced image; V vertices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.config import ImageConfig
from mammoflow.data import image_files
from mammoflow.errors import DecodeError, naming

ASPECT_TOLERANCE = 0.03
"""Largest relative difference between the aspect ratios of a mask and its film."""
LARGEST_RESIZE = 1.5
"""Largest ratio between the sides of a mask and its film, either way."""

LOSSY = (".jpg", ".jpeg")
"""Masks in these formats have intermediate values around the outline."""
LOSSY_SLACK, LOSSY_SHARE = 32, 0.99
"""All but a hundredth of such a mask's pixels must be this close to black or white [of 255]."""

_AS_STORED = ImageConfig(intensity="full_range")
_SUBPIXEL_BITS = 4
_SUBPIXEL = 2**_SUBPIXEL_BITS


@dataclass(frozen=True, slots=True)
class Outline:
    """A lesion's outline on its film."""

    mask: NDArray[np.bool_]
    """(h, w) of the film, True on the lesion."""
    note: str | None
    """How it was changed, if it was."""


def load_mask(candidates: list[str], height: int, width: int) -> Outline:
    """Find a lesion's outline among files that may hold it, by their pixels alone.

    A mask holds two values and has the film's shape; one of nearly that shape is resized, with a note. A crop of the
    film fails both tests.

    Args:
        candidates: local paths or URLs, most likely first.
        height: rows of the film [px].
        width: columns of the film [px].

    Raises:
        DecodeError: no candidate is a mask of this film; the message gives each one's reason.
    """
    reasons = []
    resized: list[tuple[float, NDArray[np.bool_]]] = []
    for path in candidates:
        try:
            with naming(path):
                mask = _read_mask(path)
                off = _misfit(mask, height, width)
        except DecodeError as error:
            reasons.append(str(error))
            continue
        if mask.shape == (height, width):
            return Outline(mask, None)
        resized.append((off, mask))
    if not resized:
        raise DecodeError(f"no outline of this lesion: {'; '.join(reasons) or 'the release names no file'}")
    mask = min(resized, key=lambda pair: pair[0])[1]
    fitted = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    if not fitted.any():
        raise DecodeError("no outline of this lesion: it vanishes when resized to the film")
    return Outline(fitted, f"outline of {_size(mask)} resized to its film's {height}x{width}")


def draw_outline(vertices: Sequence[Sequence[float]], height: int, width: int, *, from_bottom: bool) -> Outline:
    """Fill a lesion's outline given by its vertices, clipped at the film's edges.

    Args:
        vertices: (row, column) in the film's pixels.
        height: rows of the film [px].
        width: columns of the film [px].
        from_bottom: rows are counted from the lower edge.

    Raises:
        DecodeError: it lies entirely outside the film.
    """
    points_V2 = np.array(vertices, np.float64)
    if from_bottom:
        points_V2[:, 0] = height - 1 - points_V2[:, 0]
    inside = np.clip(points_V2, -1, [height, width])
    note = None if np.array_equal(inside, points_V2) else "outline clipped at the film's edge"
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(inside[:, ::-1] * _SUBPIXEL).astype(np.int32)], 1, shift=_SUBPIXEL_BITS)
    if not mask.any():
        raise DecodeError(f"no outline of this lesion: its vertices lie outside the film of {height}x{width}")
    return Outline(mask.astype(np.bool_), note)


def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """Return a mask as 1-bit PNG, the lake's format."""
    _, data = cv2.imencode(".png", mask_HW.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return bytes(data.tobytes())


def decode_mask(png: bytes) -> NDArray[np.bool_]:
    """Return a 1-bit PNG as bool (H, W)."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DecodeError("an outline in the lake is not a PNG; remove the artefact and decode again")
    return np.asarray(image > 0, np.bool_)


def _size(pixels: NDArray[Any]) -> str:
    return "x".join(str(side) for side in pixels.shape)


def _read_mask(path: str) -> NDArray[np.bool_]:
    """Read a file of exactly two values as a mask, True at the larger one."""
    pixels_hw = image_files.read(path, _AS_STORED).pixels
    if path.lower().endswith(LOSSY):
        pixels_hw = _without_loss(pixels_hw)
    lowest, highest = pixels_hw.min(), pixels_hw.max()
    if lowest == highest or not ((pixels_hw == lowest) | (pixels_hw == highest)).all():
        raise DecodeError("not a mask, which holds exactly two values")
    return np.asarray(pixels_hw == highest, np.bool_)


def _without_loss(pixels_hw: NDArray[Any]) -> NDArray[Any]:
    """Return the black and white of a mask before lossy compression."""
    near = (pixels_hw <= LOSSY_SLACK) | (pixels_hw >= 255 - LOSSY_SLACK)
    if near.mean() < LOSSY_SHARE:
        raise DecodeError("not a mask, which is black and white")
    return (pixels_hw > 127).astype(np.uint8)


def _misfit(mask: NDArray[np.bool_], height: int, width: int) -> float:
    """Return how far a mask's shape is from its film's, 0 if equal; refuse a mask of another film."""
    by_rows, by_columns = mask.shape[0] / height, mask.shape[1] / width
    aspect = max(by_rows / by_columns, by_columns / by_rows) - 1
    resize = max(by_rows, 1 / by_rows, by_columns, 1 / by_columns)
    if aspect > ASPECT_TOLERANCE:
        raise DecodeError(
            f"a mask of {_size(mask)} for a film of {height}x{width}, an aspect off by {aspect:.0%} where "
            f"{ASPECT_TOLERANCE:.0%} is allowed; it belongs to another film"
        )
    if resize > LARGEST_RESIZE:
        raise DecodeError(
            f"a mask of {_size(mask)} for a film of {height}x{width}, {resize:.1f} times off where "
            f"{LARGEST_RESIZE} is allowed; it belongs to another film"
        )
    return float(aspect + resize - 1)
