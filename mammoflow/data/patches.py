"""Choose labelled square patches of one decoded mammogram, set S1 or S10. NumPy and OpenCV only: no Ray, no files.

Every draw is uniform over the exact set of positions that qualify. Summed-area tables give this set for all positions
at once, so there is no retry loop.

Shape letters: H, W image rows, columns [px]; P patch side [px]; R, C top-left corners of all windows, H-P+1 rows and
W-P+1 columns; N patches. A position is the (row, column) of a patch's top-left corner.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.config import PatchConfig
from mammoflow.errors import ConfigError, PatchError

OTHER = "other"
"""Kind of a lesion that is neither mass nor calcification."""

TISSUE_SIDE = 448
"""Size to which the smaller side is reduced before separating tissue from air [px]. At 896 it takes six times as long
and changes 0.3% of the breast's area on real films."""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """A lesion of one image."""

    lesion_id: str
    kind: str
    """mass | calcification | other; `other` gives no patches, but background avoids it."""
    pathology: str
    """malignant | benign."""
    mask: BoolArray | None
    """(H, W), True on the lesion; None if its outline is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Position and label of a patch; its pixels are `image[row : row + P, column : column + P]`."""

    label: int
    """Index into the class list."""
    lesion_id: str | None
    """None for background."""
    row: int
    column: int
    overlap: float
    """Overlap with its lesion; for background, the share of tissue [0-1]."""
    below_min: bool
    """No position reached the required overlap or tissue; this is the best one."""
    unverified: bool
    """Background of an image with a lesion of unknown outline, which it may show."""
    mined: bool = False
    """A hard example (hard_patches.py)."""


@dataclass(frozen=True, slots=True)
class CornerDraw:
    """Corners drawn from one set of positions."""

    corners: NDArray[np.int64]
    """(N, 2), (row, column) [px]."""
    shares: NDArray[np.float64]
    """(N,), overlap or share of tissue at each [0-1]."""
    below_min: bool
    """No position qualified; all are the best one."""


def cut(
    pixels_HW: NDArray[np.uint16], lesions: list[Lesion], config: PatchConfig, rng: np.random.Generator
) -> list[Patch]:
    """Choose the patches of one image: some for each lesion, and the same number of background.

    S1 takes one patch centred on each lesion; S10 draws `per_lesion` around each. For a lesion without an outline there
    is only background, and any background of the image is `unverified`. An image without lesions gives no patches.

    Args:
        pixels_HW: uint16 (H, W), air dark.
        lesions: all lesions of the film.
        config: the set, P, least overlap and tissue, class list.
        rng: seeded by the caller from (run seed, image id, stage).

    Returns:
        Patches in the order of lesions, then background, if any position is free of lesions and shows tissue.

    Raises:
        PatchError: the image is smaller than a patch, or a mask is empty or of another shape.
        ConfigError: a lesion's class is not in the class list.

    Source: paper, 3.1.1 (sets S1 and S10).
    """
    named = [lesion for lesion in lesions if lesion.kind != OTHER]
    labels = [class_label(lesion, config) for lesion in named]
    outlines = [lesion.mask for lesion in lesions if lesion.mask is not None]
    for mask_HW in outlines:
        if mask_HW.shape != pixels_HW.shape:
            raise PatchError(
                f"an outline is {mask_HW.shape}, but its image {pixels_HW.shape}; decode both with the same size"
            )
    patches = []
    for lesion, label in zip(named, labels, strict=True):
        if lesion.mask is None:
            continue
        draw = lesion_corners(lesion.mask, config, rng)
        patches += _patches(draw, label, lesion.lesion_id, unverified=False)
    count = len(named) * (1 if config.set == "S1" else config.per_lesion)
    if count:
        any_lesion_HW = np.logical_or.reduce(outlines) if outlines else np.zeros(pixels_HW.shape, np.bool_)
        background = background_corners(any_lesion_HW, tissue_mask(pixels_HW), count, config, rng)
        patches += _patches(background, 0, None, unverified=len(outlines) < len(lesions))
    return patches


def class_label(lesion: Lesion, config: PatchConfig) -> int:
    """Return the index of a lesion's class, `<pathology>_<kind>`, in the class list.

    Raises:
        ConfigError: the list lacks it.
    """
    name = f"{lesion.pathology}_{lesion.kind}"
    if name not in config.classes:
        raise ConfigError(
            f"lesion {lesion.lesion_id} is a {name}, but the classes are {', '.join(config.classes)}; "
            "add it to --patches.classes"
        )
    return config.classes.index(name)


def lesion_corners(lesion_HW: BoolArray, config: PatchConfig, rng: np.random.Generator) -> CornerDraw:
    """Draw top-left corners of patches that cover enough of one lesion.

    The overlap is lesion pixels inside / min(P * P, lesion area).
    S1: the patch centred on the lesion's bounding box, moved inside the image.
    S10: `per_lesion` draws with replacement, uniform over all positions that qualify; if none does, the first of the
    best positions.

    Args:
        lesion_HW: bool (H, W), True on the pixels of this lesion only.
        config: the set, P, `per_lesion`, and the least overlap.
        rng: the image's generator.

    Raises:
        PatchError: the image is smaller than one patch, or the mask is empty.

    Source: paper, 3.1.1; the overlap is the reference's rule `inter / ROI > c or inter / patch > c`.
    """
    _check_fits(lesion_HW, config.side)
    left, top, width, height = cv2.boundingRect(lesion_HW.view(np.uint8))
    box_HW = lesion_HW[top : top + height, left : left + width]
    area = int(np.count_nonzero(box_HW))
    if area == 0:
        raise PatchError("a lesion's outline is empty; decode its mask again")
    full = min(config.side**2, area)
    if config.set == "S10":
        # Only windows that touch the bounding box can qualify, so only those are summed.
        row, column = max(0, top - config.side + 1), max(0, left - config.side + 1)
        near_HW = lesion_HW[row : top + height + config.side - 1, column : left + width + config.side - 1]
        draw = _draw(window_sums(near_HW, config.side), full, config.min_overlap, config.per_lesion, rng)
        return CornerDraw(draw.corners + np.array((row, column)), draw.shares, draw.below_min)
    row, column = _centred(box_HW.shape, (top, left), lesion_HW.shape, config.side)
    overlap = np.count_nonzero(lesion_HW[row : row + config.side, column : column + config.side]) / full
    return CornerDraw(np.array([(row, column)]), np.array([overlap]), bool(overlap < config.min_overlap))


def background_corners(
    lesions_HW: BoolArray, tissue_HW: BoolArray, count: int, config: PatchConfig, rng: np.random.Generator
) -> CornerDraw:
    """Draw top-left corners of patches on breast tissue without a pixel of any lesion.

    Draws are with replacement, uniform over all positions with at least `min_tissue` tissue. If there are none, the
    position with most tissue is taken; if all positions without lesions are air, none.

    Args:
        lesions_HW: bool (H, W), the union of the image's lesions.
        tissue_HW: bool (H, W), from `tissue_mask`.
        count: N.
        config: P and the least share of tissue.
        rng: the image's generator.

    Raises:
        PatchError: the image is smaller than one patch.
    """
    tissue_RC = window_sums(tissue_HW, config.side)
    tissue_RC[window_sums(lesions_HW, config.side) > 0] = 0
    if not tissue_RC.any():
        return CornerDraw(np.empty((0, 2), np.int64), np.empty(0), False)
    return _draw(tissue_RC, config.side**2, config.min_tissue, count, rng)


def window_sums(mask_HW: BoolArray, side: int) -> NDArray[np.int32]:
    """Return the number of True pixels in each P x P window, for all corners (R, C), from one summed-area table.

    Raises:
        PatchError: the image is smaller than one patch.
    """
    _check_fits(mask_HW, side)
    table = cv2.integral(mask_HW.view(np.uint8))
    strips = table[side:] - table[:-side]
    return np.asarray(strips[:, side:] - strips[:, :-side], np.int32)


def _check_fits(mask_HW: BoolArray, side: int) -> None:
    if min(mask_HW.shape) < side:
        raise PatchError(
            f"the image is {mask_HW.shape[0]}x{mask_HW.shape[1]}, smaller than a patch of {side}x{side}; "
            "cut smaller patches (--patches.side)"
        )


def tissue_mask(pixels_HW: NDArray[np.uint16]) -> BoolArray:
    """Segment the breast, including visible muscle: bool (H, W), without air, letters, markers and film borders.

    The threshold lies a third of the way from the grey of air (the most frequent below Otsu's threshold) to Otsu's
    threshold, which alone would cut off fatty tissue and skin. Morphological opening removes structures as thin as
    letters and film borders; of the rest, the largest component with its holes filled is the breast. Images of twice
    TISSUE_SIDE or more are segmented at a reduced size.
    """
    height, width = pixels_HW.shape
    times = max(1, min(height, width) // TISSUE_SIDE)
    if times == 1:
        return _breast(pixels_HW)
    small_HW = cv2.resize(pixels_HW, (width // times, height // times), interpolation=cv2.INTER_AREA)
    breast_HW = _breast(np.asarray(small_HW, np.uint16)).view(np.uint8)
    return np.asarray(cv2.resize(breast_HW, (width, height), interpolation=cv2.INTER_NEAREST), np.bool_)


def _breast(pixels_HW: NDArray[np.uint16]) -> BoolArray:
    grey_HW = (pixels_HW >> 8).astype(np.uint8)
    smaller = min(grey_HW.shape)
    smooth_HW = cv2.GaussianBlur(grey_HW, (0, 0), max(0.5, smaller / 300))
    otsu, _ = cv2.threshold(smooth_HW, 0, 255, cv2.THRESH_OTSU)
    air = int(np.bincount(smooth_HW.ravel(), minlength=256)[: int(otsu) + 1].argmax())
    bright_HW = (smooth_HW > air + (otsu - air) / 3).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, smaller // 25) | 1,) * 2)
    opened_HW = cv2.morphologyEx(bright_HW, cv2.MORPH_OPEN, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    count, components_HW, stats, _ = cv2.connectedComponentsWithStats(opened_HW)
    if count == 1:
        return np.zeros(grey_HW.shape, np.bool_)
    breast_HW = (components_HW == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    contours, _ = cv2.findContours(breast_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(breast_HW, contours, -1, 1, cv2.FILLED) > 0, np.bool_)


def _draw(sums_RC: NDArray[np.int32], full: int, least: float, count: int, rng: np.random.Generator) -> CornerDraw:
    """Draw from the positions whose sum is at least `least` of `full`; if there are none, repeat the best one."""
    needed = max(1, math.ceil(least * full - 1e-9))  # tolerance, since products of floats may exceed the integer
    flat = np.flatnonzero(sums_RC >= needed)
    below_min = not len(flat)
    chosen_N = np.full(count, sums_RC.argmax()) if below_min else rng.choice(flat, size=count)
    corners_N2 = np.stack(np.unravel_index(chosen_N, sums_RC.shape), axis=1)
    return CornerDraw(corners_N2, sums_RC.ravel()[chosen_N] / full, below_min)


def _centred(box: tuple[int, ...], at: tuple[int, int], image: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the corner of the patch centred on a box (height, width), moved inside the image."""
    row, column = (
        min(max((2 * start + length - side) // 2, 0), limit - side)
        for start, length, limit in zip(at, box, image, strict=True)
    )
    return row, column


def _patches(draw: CornerDraw, label: int, lesion_id: str | None, *, unverified: bool) -> list[Patch]:
    return [
        Patch(
            label=label,
            lesion_id=lesion_id,
            row=int(row),
            column=int(column),
            overlap=float(share),
            below_min=draw.below_min,
            unverified=unverified,
        )
        for (row, column), share in zip(draw.corners, draw.shares, strict=True)
    ]
