"""Turn attenuation into a digitised film: exposure, grain, letters, borders, dust. NumPy and OpenCV only; no files.

Grey values are shares of full scale, air dark. Shape letters: H, W film rows, columns [px].
"""

import cv2
import numpy as np

from mammoflow.data.phantom.anatomy import BoolArray, FloatArray

_GRAIN = 0.006
"""Standard deviation of the film's grain [share of full scale]."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def expose(tissue_HW: FloatArray, inside_HW: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Return the grey values of a film, float32 (H, W), with saturation, grain and air at 0."""
    gain = rng.uniform(1.35, 1.75)
    grey_HW = 1 - np.exp(-np.float32(gain) * tissue_HW)
    grey_HW += _GRAIN * rng.standard_normal(grey_HW.shape, dtype=np.float32)
    return np.asarray(grey_HW * inside_HW, np.float32)


def mark(grey_HW: FloatArray, side: str, view: str, rng: np.random.Generator) -> None:
    """Add letters, white borders, scratches and dust to a film in place."""
    _letters(grey_HW, side, view, rng)
    _dust(grey_HW, rng)
    if rng.random() < 0.5:
        _borders(grey_HW, rng)


def _letters(grey_HW: FloatArray, side: str, view: str, rng: np.random.Generator) -> None:
    """Write side and view in lead letters in the upper corner opposite the chest wall."""
    height, width = grey_HW.shape
    canvas = np.zeros((height, width), np.uint8)
    text = side[0] + view
    scale = height / 768 * rng.uniform(1.1, 1.4)
    thick = max(1, round(5 * scale))
    (wide, high), _ = cv2.getTextSize(text, _FONT, scale, thick)
    across = rng.uniform(0.74, 0.92) * width
    column = across if side == "LEFT" else width - across
    row = rng.uniform(0.07, 0.14) * height
    cv2.putText(canvas, text, (round(column - wide / 2), round(row + high / 2)), _FONT, scale, 255, thick, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((column, row), float(rng.uniform(-50, 50)), 1.0)
    canvas = np.asarray(cv2.warpAffine(canvas, turn, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < 0.25:  # a number at the film's edge, cut off by it
        edge = width - 20 * scale if side == "LEFT" else -8 * scale
        number = str(rng.integers(1, 40))
        cv2.putText(canvas, number, (round(edge), round(30 * scale)), _FONT, 0.7 * scale, 255, thick, cv2.LINE_AA)
    top = int(0.3 * height)  # letters reach no further down
    part = grey_HW[:top]
    np.maximum(part, canvas[:top] * np.float32(rng.uniform(0.45, 0.9) / 255), out=part)


def _dust(grey_HW: FloatArray, rng: np.random.Generator) -> None:
    """Add a few bright grains, and sometimes a faint scratch, anywhere on the film."""
    height, width = grey_HW.shape
    radius = max(1, round(height * 0.0012))
    for row, column in zip(rng.integers(0, height, 3), rng.integers(0, width, 3), strict=True):
        cv2.circle(grey_HW, (int(column), int(row)), radius, float(rng.uniform(0.3, 0.9)), -1)
    if rng.random() < 0.3:
        canvas = np.zeros((height, width), np.uint8)
        (x0, x1), (y0, y1) = rng.uniform(0, width, 2), rng.uniform(0, height, 2)
        cv2.line(canvas, (int(x0), int(y0)), (int(x1), int(y1)), 255, max(1, round(height / 1500)), cv2.LINE_AA)
        grey_HW += canvas * np.float32(rng.uniform(0.01, 0.04) / 255)


def _borders(grey_HW: FloatArray, rng: np.random.Generator) -> None:
    """Whiten some edges, where the scanner saw past the film, whose corners are rounded."""
    height, width = grey_HW.shape
    top, bottom, left, right = (rng.uniform(0.002, 0.012, 4) * height * (rng.random(4) < 0.4)).round().astype(int)
    film = np.zeros((height, width), np.uint8)
    round_off = round(0.012 * height)
    x0, y0, x1, y1 = left, top, width - 1 - right, height - 1 - bottom
    cv2.rectangle(film, (int(x0 + round_off), int(y0)), (int(x1 - round_off), int(y1)), 255, -1)
    cv2.rectangle(film, (int(x0), int(y0 + round_off)), (int(x1), int(y1 - round_off)), 255, -1)
    for column in (x0 + round_off, x1 - round_off):
        for row in (y0 + round_off, y1 - round_off):
            cv2.circle(film, (int(column), int(row)), round_off, 255, -1, cv2.LINE_AA)
    seen = np.asarray(cv2.GaussianBlur(film, (0, 0), max(0.5, height / 1000)), np.float32) / 255
    np.maximum(grey_HW, (1 - seen) * np.float32(rng.uniform(0.8, 1.0)), out=grey_HW)
