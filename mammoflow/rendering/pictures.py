"""Pixels of the report: films with outlined lesions, sheets of patches, heatmaps. OpenCV and NumPy; no files.

Every picture is JPEG with a strip below that names the kind of data, where there is a `mark`. Of a film only the breast
is shown: letters and stickers beside it may name a patient.

Shape letters: H W rows and columns of an image [px], P patch side [px], u v rows and columns of a heatmap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mammoflow.data.outlines import decode_mask
from mammoflow.data.patches import tissue_mask
from mammoflow.models import STRIDE

Bgr = npt.NDArray[np.uint8]
GreyImage = npt.NDArray[np.uint16]

MALIGNANT_BGR, BENIGN_BGR = (0, 94, 213), (178, 114, 0)  # vermilion and blue, as in the curves
BACKGROUND_BGR, LESION_BGR = (96, 190, 96), (80, 215, 240)  # frames of patches: green and yellow
_LEAST_SIDE = 320  # smaller images are enlarged, so that outlines and letters stay thin and sharp
_CASE_HEIGHT = 480  # of the cases of a report, of which there are many [px]
_STRIP = 24
_CLOSEUP = 300  # longer side of a close-up [px]
_MASK_SIDE = 256  # the breast is sought in a thumbnail of about as many pixels along the film's shorter side
_MARGIN = 0.05  # kept around the breast, of the film's shorter side: skin and nipple, which the tissue mask may cut off
_TILE = (480, 384)  # rows and columns of a film on a contact sheet [px]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """The outline of one lesion in the reduced image."""

    mask: npt.NDArray[np.bool_]
    """(H, W), True on the lesion."""
    malignant: bool
    """Its pathology, which decides its colour."""


def lesions_of(row: dict[str, Any]) -> list[Lesion]:
    """Return the lesions of a row of schema.images that have an outline."""
    known = [lesion for lesion in row["lesions"] or [] if lesion["mask_png"]]
    return [
        Lesion(mask=decode_mask(lesion["mask_png"]), malignant=lesion["pathology"] == "malignant") for lesion in known
    ]


def film(pixels_HW: GreyImage, lesions: Sequence[Lesion], mark: str) -> bytes:
    """Draw an image with its lesions outlined, malignant and benign in their colours; returns JPEG."""
    return _jpeg(_outlined(_bgr(pixels_HW), lesions), mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Probability of malignant tissue over an image; cell (i, j) stands for the patch with corner (32 i, 32 j) px."""

    values: npt.NDArray[np.float32]
    """(u, v) [0-1]."""
    side: int
    """P, side of a patch [px]."""


def heatmaps(pixels_HW: GreyImage, lesions: Sequence[Lesion], maps: Sequence[Heatmap], mark: str) -> bytes:
    """Draw an image with its lesions outlined, and beside it the image under each heatmap; returns JPEG."""
    base = _bgr(pixels_HW)
    under = (_under(base, _spread(heatmap, pixels_HW.shape, base.shape)) for heatmap in maps)
    panels = [_outlined(base.copy(), lesions), *under]
    gap = np.full((base.shape[0], 6, 3), 255, np.uint8)
    row = [part for panel in panels for part in (gap, panel)][1:]
    return _jpeg(np.concatenate(row, axis=1), mark)


def overlay(pixels_HW: GreyImage, evidence_uv: npt.NDArray[np.float32], caption: str, mark: str) -> Bgr:
    """Draw an image and, beside it, the image under the map that says where its score comes from.

    Args:
        pixels_HW: uint16 (H, W), full range, air dark.
        evidence_uv: (u, v) [0-1]; cell (i, j) covers the 32 px from (32 i, 32 j) on.
        caption: written below.
        mark: kind of data, written below that.
    """
    base = _bgr(pixels_HW)
    panel = _under(base, _spread(Heatmap(values=evidence_uv, side=STRIDE), pixels_HW.shape, base.shape))
    gap = np.full((base.shape[0], 6, 3), 255, np.uint8)
    picture = _captioned(np.concatenate([base, gap, panel], axis=1), caption)
    return _captioned(picture, mark) if mark else picture


def case(pixels_HW: GreyImage, lesions: Sequence[Lesion], evidence_uv: npt.NDArray[np.float32], mark: str) -> bytes:
    """Draw an image with its lesions outlined and, beside it, under the map of its score, small; returns JPEG."""
    base = _bgr(pixels_HW)
    panel = _under(base, _spread(Heatmap(values=evidence_uv, side=STRIDE), pixels_HW.shape, base.shape))
    gap = np.full((base.shape[0], 6, 3), 255, np.uint8)
    picture = np.concatenate([_outlined(base.copy(), lesions), gap, panel], axis=1)
    factor = _CASE_HEIGHT / picture.shape[0]
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return _jpeg(np.asarray(picture, np.uint8), mark)


def png(picture: Bgr) -> bytes:
    """Return a picture as a PNG file."""
    _, data = cv2.imencode(".png", picture)
    return bytes(data.tobytes())


def _under(base: Bgr, shown_HW: npt.NDArray[np.float32]) -> Bgr:
    """Lay a map [0-1] over a picture: the more it says, the less is seen through."""
    colours = cv2.applyColorMap((shown_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = 0.75 * shown_HW[..., None]
    return np.asarray(base * (1 - weight) + colours * weight, np.uint8)


def _spread(heatmap: Heatmap, image: Sequence[int], shown: Sequence[int]) -> npt.NDArray[np.float32]:
    """Lay a heatmap over the picture so that each cell's value stands at the middle of its patch."""
    cells = [
        ((np.arange(shown[axis]) + 0.5) * image[axis] / shown[axis] - heatmap.side / 2) / STRIDE for axis in (0, 1)
    ]
    rows_HW, columns_HW = np.meshgrid(*(axis.astype(np.float32) for axis in cells), indexing="ij")
    spread = cv2.remap(heatmap.values, columns_HW, rows_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(spread, 0, 1), np.float32)


def sheet(patches: Sequence[GreyImage], columns: int, mark: str) -> bytes:
    """Draw patches (P, P) side by side, `columns` to a row; returns JPEG."""
    side = max(96, patches[0].shape[0] // 2)
    tiles = [cv2.resize(_grey(patch), (side, side), interpolation=cv2.INTER_AREA) for patch in patches]
    tiles += [np.full((side, side), 255, np.uint8)] * (-len(tiles) % columns)
    framed = [np.pad(tile, 2, constant_values=255) for tile in tiles]
    rows = [np.concatenate(framed[start : start + columns], axis=1) for start in range(0, len(framed), columns)]
    return _jpeg(np.repeat(np.concatenate(rows)[..., None], 3, axis=2), mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a patch was cut from an image."""

    row: int
    """Its first row [px]."""
    column: int
    """Its first column [px]."""
    side: int
    """P [px]."""
    background: bool
    """Whether it shows tissue without a lesion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """An image of a contact sheet."""

    pixels: GreyImage
    """(H, W)."""
    lesions: Sequence[Lesion]
    """Outlined in the colour of their pathology."""
    frames: Sequence[Frame]
    """Of its patches: background green, around lesions yellow."""
    caption: str
    """Written below."""


def contact_sheet(films: Sequence[Framed], columns: int, mark: str) -> bytes:
    """Draw films side by side, `columns` to a row, each with outlines, frames and caption; returns JPEG."""
    tiles = [_framed(film) for film in films]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return _jpeg(np.concatenate(rows), mark)


def closeup(pixels_HW: GreyImage, lesions: Sequence[Lesion], frame: Frame) -> bytes:
    """Draw a patch's frame with half a patch of its film around, lesions outlined; returns JPEG."""
    base = _bgr(pixels_HW)
    factor = base.shape[0] // pixels_HW.shape[0]
    _outlined(base, lesions)
    _draw_frame(base, frame, factor)
    height, width = pixels_HW.shape
    top, left = max(0, frame.row - frame.side // 2), max(0, frame.column - frame.side // 2)
    bottom, right = (min(end, at + 2 * frame.side) for end, at in ((height, top), (width, left)))
    crop = base[top * factor : bottom * factor, left * factor : right * factor]
    scale = _CLOSEUP / max(crop.shape)
    size = (round(crop.shape[1] * scale), round(crop.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return _jpeg(np.asarray(cv2.resize(crop, size, interpolation=how), np.uint8), "")


def _draw_frame(base: Bgr, frame: Frame, factor: float) -> None:
    corner = (round(frame.column * factor), round(frame.row * factor))
    end = (round((frame.column + frame.side) * factor), round((frame.row + frame.side) * factor))
    cv2.rectangle(base, corner, end, BACKGROUND_BGR if frame.background else LESION_BGR, 2)


def _framed(film: Framed) -> Bgr:
    """Draw a film at the size of a tile."""
    base = _bgr(film.pixels)
    factor = base.shape[0] / film.pixels.shape[0]
    for frame in film.frames:
        _draw_frame(base, frame, factor)
    small = cv2.resize(_outlined(base, film.lesions), (_TILE[1], _TILE[0]), interpolation=cv2.INTER_AREA)
    return np.pad(_captioned(np.asarray(small, np.uint8), film.caption), ((2, 2), (2, 2), (0, 0)), constant_values=255)


def _grey(pixels: GreyImage) -> npt.NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8)


def _without_surround(pixels_HW: GreyImage) -> npt.NDArray[np.uint8]:
    """Return a film's grey values [0-255], air (the middle grey there) in place of all that lies outside the breast.

    A film in which no breast is found comes out as air alone.
    """
    grey_HW = _grey(pixels_HW)
    step = max(1, min(grey_HW.shape) // _MASK_SIDE)
    size = (grey_HW.shape[1] // step, grey_HW.shape[0] // step)
    breast_hw = tissue_mask(np.asarray(cv2.resize(pixels_HW, size, interpolation=cv2.INTER_AREA), np.uint16))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(_MARGIN * min(size)) + 1,) * 2)
    kept_hw = cv2.dilate(breast_hw.astype(np.uint8), disc)
    kept_HW = cv2.resize(kept_hw, grey_HW.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    air = int(np.median(grey_HW[~kept_HW])) if not kept_HW.all() else 0
    return np.where(kept_HW, grey_HW, np.uint8(air))


def _bgr(pixels_HW: GreyImage) -> Bgr:
    grey = _without_surround(pixels_HW)
    factor = max(1, -(-_LEAST_SIDE // min(grey.shape)))
    size = (grey.shape[1] * factor, grey.shape[0] * factor)
    return np.asarray(cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR), np.uint8)


def _outlined(base: Bgr, lesions: Sequence[Lesion]) -> Bgr:
    """Draw outlines a little outside the lesions, so that what they hold stays visible."""
    for lesion in lesions:
        mask = cv2.resize(lesion.mask.astype(np.uint8), base.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        grown = cv2.dilate(mask, np.ones((9, 9), np.uint8))
        contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(base, contours, -1, MALIGNANT_BGR if lesion.malignant else BENIGN_BGR, 2, cv2.LINE_AA)
    return base


def _captioned(picture: Bgr, text: str) -> Bgr:
    """Add a strip below with a text, in letters that fit the picture's width."""
    wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)[0][0]
    scale = min(0.6, (picture.shape[1] - 8) / wide)
    strip = np.full((_STRIP, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, _STRIP - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (60, 50, 40), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def _jpeg(picture: Bgr, mark: str) -> bytes:
    """Add the mark's strip, if any, and encode."""
    if mark:
        picture = _captioned(picture, mark)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return bytes(data.tobytes())
