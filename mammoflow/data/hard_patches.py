"""Hard-example mining: replace part of an image's patches by those a classifier is most likely to misclassify.

NumPy only: no Ray, no files. The number of patches per lesion, and of background, stays the same.

Source: Shen et al. 2019, discussion: it proposes sampling patches that are likely to be misclassified, instead of more.

Shape letters: H, W image rows, columns [px]; M scored positions; C classes. A position is the (row, column) of a
patch's top-left corner.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mammoflow.config import PatchConfig
from mammoflow.data.patches import Lesion, Patch, tissue_mask, window_sums

APART = 32
"""Least distance between two hard patches of one lesion, or of background, along rows or columns [px]. Close neighbours
show the same and are hard together."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A patch classifier's scores all over one image."""

    corners: NDArray[np.int64]
    """(M, 2), (row, column) [px], of patches inside the image."""
    scores: NDArray[np.float32]
    """(M, C), probabilities of the classes."""


def exchange(
    chosen: list[Patch],
    pixels_HW: NDArray[np.uint16],
    lesions: list[Lesion],
    scan: Scan,
    share: float,
    config: PatchConfig,
) -> list[Patch]:
    """Replace some randomly drawn patches by the hardest ones of the scan.

    A hard patch must qualify like any other: it covers enough of its lesion, or is background with enough tissue. The
    hardest has the lowest probability of its true class. If too few qualify, more random ones stay. Background that may
    show a lesion of unknown outline is not replaced: mining would pick exactly that lesion.

    Args:
        chosen: patches of the image from `patches.cut`.
        pixels_HW: the image, uint16.
        lesions: all lesions of the image.
        scan: the classifier's scores.
        share: share of patches to replace, of each lesion and of background [0-1].
        config: P, least overlap and tissue.

    Returns:
        The same number of patches, in the same order of lesions.
    """
    masks = {lesion.lesion_id: lesion.mask for lesion in lesions}
    changed: list[Patch] = []
    for lesion_id, group in groupby(chosen, key=lambda patch: patch.lesion_id):
        drawn = list(group)
        if drawn[0].unverified:
            changed += drawn
            continue
        mask_HW = None if lesion_id is None else masks[lesion_id]
        if mask_HW is None:
            shares_M = _tissue_shares(pixels_HW, masks.values(), scan, config.side)
            least = config.min_tissue
        else:
            full = min(config.side**2, int(np.count_nonzero(mask_HW)))
            shares_M, least = _inside(mask_HW, scan, config.side) / full, config.min_overlap
        count = int(share * len(drawn) + 0.5)
        hard = _hardest(scan, drawn[0].label, shares_M >= max(least - 1e-9, 1e-9), count)
        changed += drawn[: len(drawn) - len(hard)]
        changed += [_patch(drawn[0], scan.corners[place], shares_M[place]) for place in hard]
    return changed


def _inside(mask_HW: NDArray[np.bool_], scan: Scan, side: int) -> NDArray[np.int32]:
    """Return the number of True pixels in the patch at each position: (M,)."""
    rows, columns = scan.corners.T
    return np.asarray(window_sums(mask_HW, side)[rows, columns], np.int32)


def _tissue_shares(
    pixels_HW: NDArray[np.uint16], masks: Iterable[NDArray[np.bool_] | None], scan: Scan, side: int
) -> NDArray[np.float64]:
    """Return the share of tissue in the patch at each position, 0 if it touches a lesion: (M,)."""
    shares_M = _inside(tissue_mask(pixels_HW), scan, side) / side**2
    for mask_HW in masks:
        if mask_HW is not None:
            shares_M[_inside(mask_HW, scan, side) > 0] = 0
    return shares_M


def _hardest(scan: Scan, label: int, qualifies_M: NDArray[np.bool_], count: int) -> list[int]:
    """Return up to `count` positions of the scan, hardest first, at least `APART` from each other."""
    places = np.flatnonzero(qualifies_M)
    taken: list[int] = []
    for place in places[np.argsort(scan.scores[places, label], kind="stable")]:
        if len(taken) == count:
            break
        distances = np.abs(scan.corners[taken] - scan.corners[place]).max(axis=1)
        if (distances >= APART).all():
            taken.append(int(place))
    return taken


def _patch(like: Patch, corner: NDArray[np.int64], share: float) -> Patch:
    return Patch(
        label=like.label,
        lesion_id=like.lesion_id,
        row=int(corner[0]),
        column=int(corner[1]),
        overlap=float(share),
        below_min=False,
        unverified=False,
        mined=True,
    )
