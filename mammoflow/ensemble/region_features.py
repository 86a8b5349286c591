"""Figures of the regions of a heatmap, for the two-step baseline. NumPy and scikit-image; no torch, no Ray, no files.

Shape letters: u v rows and columns of a heatmap, C classes (background first), F figures.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from skimage.measure import label, regionprops

FloatArray = npt.NDArray[np.float64]

OF_MAP = ("regions", "area")
"""Figures of a binary map: how many regions it has, and how many cells they cover."""

OF_REGION = (
    "area",
    "area/convex",
    "area/filled",
    "eccentricity",
    "equivalent diameter",
    "Euler number",
    "extent",
    "inertia 1",
    "inertia 2",
    "major axis",
    "minor axis",
    "maximum",
    "mean",
    "orientation",
    "perimeter",
    "solidity",
)
"""Figures of a region; lengths and areas in cells, orientation in radians, `maximum` and `mean` of its probability.

Source: those that the paper's method names, by scikit-image's regionprops.
"""


def names(classes: Sequence[str], cutoffs: Sequence[float], regions: int) -> list[str]:
    """Return the names of the figures (F,) that `features` gives, e.g. `malignant_mass > 0.5, region 1: area`."""
    found = []
    for name in classes[1:]:
        found.append(f"{name}: maximum")
        for cutoff in cutoffs:
            found += [f"{name} > {cutoff}: {figure}" for figure in OF_MAP]
            numbers = range(1, regions + 1)
            found += [f"{name} > {cutoff}, region {n}: {figure}" for n in numbers for figure in OF_REGION]
    return found


def features(heatmap_uvC: npt.NDArray[np.float32], cutoffs: Sequence[float], regions: int) -> FloatArray:
    """Return the figures of one image.

    Args:
        heatmap_uvC: probabilities of the classes (u, v, C) [0-1], background first, as `classifiers.heatmap` gives it.
        cutoffs: at each of which every other class's map is cut to a binary one: above it.
        regions: of each binary map so many, the largest first; where there are fewer, zeros stand for the rest. Cells
            that touch at a corner belong together.

    Returns:
        float64 (F,), in the order of `names`.

    Source: paper, methods (two-step approach).
    """
    found: list[float] = []
    for map_uv in np.moveaxis(heatmap_uvC[..., 1:], -1, 0):
        found.append(float(map_uv.max()))
        for cutoff in cutoffs:
            found += _of_binary(map_uv, map_uv > cutoff, regions)
    return np.array(found)


def _of_binary(map_uv: npt.NDArray[np.float32], above_uv: npt.NDArray[np.bool_], regions: int) -> list[float]:
    """Return the figures of one binary map; of regions of equal area the more probable comes first."""
    numbered_uv = label(above_uv, connectivity=2)
    largest = sorted(
        regionprops(numbered_uv, intensity_image=map_uv),
        key=lambda region: (-region.area, -region.intensity_mean, region.bbox),
    )
    found = [float(len(largest)), float(above_uv.sum())]
    for region in largest[:regions]:
        inertia = region.inertia_tensor_eigvals
        found += [
            float(region.area),
            float(region.area / region.area_convex),
            float(region.area / region.area_filled),
            float(region.eccentricity),
            float(region.equivalent_diameter_area),
            float(region.euler_number),
            float(region.extent),
            float(inertia[0]),
            float(inertia[1]),
            float(region.axis_major_length),
            float(region.axis_minor_length),
            float(region.intensity_max),
            float(region.intensity_mean),
            float(region.orientation),
            float(region.perimeter),
            float(region.solidity),
        ]
    missing = regions - min(regions, len(largest))
    return found + [0.0] * (missing * len(OF_REGION))
