"""Exchange part of an image's patches for those that a classifier is most likely to get wrong. NumPy: no Ray, no files.

Source: the wish that Shen et al. end with (discussion): sample the patches that are likely to be misclassified, rather
than ever more of them. So the number of patches of each lesion, and of background, stays what it was.

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
"""Least distance of two hard patches of one lesion, or of background, along rows or columns [px]: neighbours show the
same, and are hard together."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a patch classifier says all over one image."""

    corners: NDArray[np.int64]
    """(M, 2), (row, column) [px]; the patches lie within the image."""
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
    """Put the hardest patches of the scan in the place of some that were drawn at random.

    A hard patch qualifies as any other does: it covers enough of its lesion, or is background with enough tissue.
    Hardest is the lowest probability of the class that it shows. Where too few qualify, more of the drawn ones stay.
    Background that may show a lesion of unknown outline is left as drawn: that lesion is what would be found.

    Args:
        chosen: patches of the image, as `patches.cut` returns them.
        pixels_HW: the image, uint16.
        lesions: all of the image.
        scan: scores of the classifier.
        share: of each lesion's patches, and of background's, to exchange [0-1].
        config: P, least overlap and tissue.

    Returns:
        As many patches, in the same order of lesions.
    """
    masks = {lesion.lesion_id: lesion.mask for lesion in lesions}
    changed: list[Patch] = []
    for lesion_id, group in groupby(chosen, key=lambda patch: patch.lesion_id):
        own = list(group)
        if own[0].unverified:
            changed += own
            continue
        mask_HW = None if lesion_id is None else masks[lesion_id]
        if mask_HW is None:
            shares_M = _tissue_shares(pixels_HW, masks.values(), scan, config.side)
            least = config.min_tissue
        else:
            full = min(config.side**2, int(np.count_nonzero(mask_HW)))
            shares_M, least = _inside(mask_HW, scan, config.side) / full, config.min_overlap
        wanted = int(share * len(own) + 0.5)
        hard = _hardest(scan, own[0].label, shares_M >= max(least - 1e-9, 1e-9), wanted)
        changed += own[: len(own) - len(hard)]
        changed += [_patch(own[0], scan.corners[place], shares_M[place]) for place in hard]
    return changed


def _inside(mask_HW: NDArray[np.bool_], scan: Scan, side: int) -> NDArray[np.int32]:
    """Return how many True pixels the patch at each position holds: (M,)."""
    rows, columns = scan.corners.T
    return np.asarray(window_sums(mask_HW, side)[rows, columns], np.int32)


def _tissue_shares(
    pixels_HW: NDArray[np.uint16], masks: Iterable[NDArray[np.bool_] | None], scan: Scan, side: int
) -> NDArray[np.float64]:
    """Return the share of tissue of the patch at each position, 0 where it holds a pixel of any lesion: (M,)."""
    shares_M = _inside(tissue_mask(pixels_HW), scan, side) / side**2
    for mask_HW in masks:
        if mask_HW is not None:
            shares_M[_inside(mask_HW, scan, side) > 0] = 0
    return shares_M


def _hardest(scan: Scan, label: int, qualifies_M: NDArray[np.bool_], wanted: int) -> list[int]:
    """Return up to `wanted` places of the scan, hardest first, none within `APART` of another."""
    places = np.flatnonzero(qualifies_M)
    taken: list[int] = []
    for place in places[np.argsort(scan.scores[places, label], kind="stable")]:
        if len(taken) == wanted:
            break
        away = np.abs(scan.corners[taken] - scan.corners[place]).max(axis=1)
        if (away >= APART).all():
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
