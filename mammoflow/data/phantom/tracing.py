"""Trace a drawn lesion as a radiologist would: with a polygon, box or circle. NumPy and OpenCV only; no files.

Shape letters: H, W film rows, columns [px]; V vertices. Points here are (x, y) [px], as releases write them.
"""

import cv2
import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


def polygon(mask_HW: BoolArray) -> npt.NDArray[np.int64]:
    """Return the vertices (x, y) of the lesion's largest part, int64 (V, 2), within half a pixel of its border."""
    contours, _ = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    border = max(contours, key=len)
    return np.asarray(cv2.approxPolyDP(border, 0.5, True).reshape(-1, 2), np.int64)


def box(mask_HW: BoolArray) -> tuple[int, int, int, int]:
    """Return the lesion's bounding box as inclusive pixels: left, top, right, bottom."""
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def circle(mask_HW: BoolArray) -> tuple[float, float, float]:
    """Return the smallest circle around the lesion's largest part: x, y and radius."""
    (x, y), radius = cv2.minEnclosingCircle(polygon(mask_HW).astype(np.float32))
    return float(x), float(y), float(radius)
