"""Draw lesions as small stamps: the attenuation they add, and their outlines. NumPy and OpenCV only.

`Lesion.look` moves a mass from smooth and sharp to irregular, ill-defined and spiculated, and a cluster from few
coarse, round specks to many fine, pleomorphic ones. Shape letter: S stamp side [px], odd, the lesion at its centre.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mammoflow.data.phantom.cases import Lesion
from mammoflow.data.phantom.marginals import MASS

FloatArray = npt.NDArray[np.float32]

MASS_CONTRAST, SPECK_CONTRAST = 0.17, 0.21
"""Attenuation at the centre of a mass of medium subtlety, and of a speck; fat alone has about 0.25."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """One lesion, to be added to a film."""

    signal: FloatArray
    """float32 (S, S): attenuation that the lesion adds."""
    mask: npt.NDArray[np.bool_]
    """(S, S): True inside the outline, drawn slightly wide, as radiologists do."""


def stamp(lesion: Lesion, height: int, contrast: float, rng: np.random.Generator) -> Stamp:
    """Draw one lesion for a film of `height` rows [px]; `contrast` multiplies its attenuation."""
    strength = contrast * (0.7 + 0.1 * lesion.subtlety)
    drawn = _mass(lesion, height, rng) if lesion.kind == MASS else _cluster(lesion, height, rng)
    return Stamp(signal=(drawn.signal * strength).astype(np.float32), mask=drawn.mask)


def _grid(half: int) -> tuple[FloatArray, FloatArray]:
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    return rows, columns


def _mass(lesion: Lesion, height: int, rng: np.random.Generator) -> Stamp:
    look = np.float32(lesion.look)
    radius = np.float32(lesion.diameter * height / 2)
    rows, columns = _grid(int(radius * 2.1) + 2)
    turn, aspect = rng.uniform(0, np.pi), rng.uniform(0.72, 1.0)
    along = columns * np.cos(turn) + rows * np.sin(turn)
    across = (rows * np.cos(turn) - columns * np.sin(turn)) / aspect
    r = np.hypot(along, across).astype(np.float32)
    angle = np.arctan2(across, along)
    border = radius * _boundary(angle, lesion.look, rng)
    edge = radius * (0.06 + 0.22 * look)
    core = 1 / (1 + np.exp(np.clip((r - border) / (0.5 * edge), -20, 20)))
    dome = 0.65 + 0.35 * np.sqrt(np.maximum(1 - (r / border) ** 2, 0))
    signal = MASS_CONTRAST * core * dome
    signal += MASS_CONTRAST * _spicules(rows, columns, float(radius), lesion.look, rng)
    return Stamp(signal=signal, mask=r < border * (1.08 + 0.15 * look))


def _boundary(angle: FloatArray, look: float, rng: np.random.Generator) -> FloatArray:
    """Return the relative radius at each angle, around 1; a higher look adds more and finer waves."""
    border = np.ones_like(angle)
    for order in range(2, 9):
        size = (0.05 if order < 4 else 0.0) + 0.17 * look**1.5 / np.sqrt(order - 1)
        border += np.float32(size * rng.normal() * 0.8) * np.cos(order * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.clip(border, 0.55, 1.5)


def _spicules(
    rows: FloatArray, columns: FloatArray, radius: float, look: float, rng: np.random.Generator
) -> FloatArray:
    """Draw fine lines that leave the centre and taper off, from a look of 0.35 up."""
    total = np.zeros_like(rows)
    for _ in range(round(max(look - 0.35, 0) * 26)):
        direction, reach, width = rng.uniform([0, 1.3, 0.05], [2 * np.pi, 2.05, 0.09])
        bend = rng.normal(0, 0.10) / radius
        along = columns * np.float32(np.cos(direction)) + rows * np.float32(np.sin(direction))
        across = rows * np.float32(np.cos(direction)) - columns * np.float32(np.sin(direction))
        across += np.float32(bend) * along * along
        taper = np.clip(1 - along / (reach * radius), 0, 1) * np.clip(along / (0.5 * radius), 0, 1)
        line = np.exp(-0.5 * (across / (width * radius)) ** 2) * taper * rng.uniform(0.4, 1)
        np.maximum(total, line.astype(np.float32), out=total)
    return total * np.float32(0.5 + 0.7 * look)


def _cluster(lesion: Lesion, height: int, rng: np.random.Generator) -> Stamp:
    look = lesion.look
    radius = lesion.diameter * height / 2
    half = int(radius * 1.15 + 0.02 * height) + 2
    count = max(3, round(rng.normal(4 + 16 * look, 1.5)))
    signal = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    mask = np.zeros(signal.shape, np.uint8)
    places = _scatter(count, radius, rng)
    size = height * (0.0105 - 0.006 * look)
    for place in places:
        # benign specks are alike and round; malignant ones differ in size, brightness and shape
        long = size * float(np.exp(rng.normal(0, 0.10 + 0.35 * look)))
        strength = SPECK_CONTRAST * float(np.clip(rng.normal(1, 0.1 + 0.3 * look), 0.35, 1.7))
        aspect = 1 + abs(rng.normal(0, 0.1 + 0.9 * look))
        hollow = look < 0.3 and rng.random() < 0.35
        add_speck(signal, place + half, (long, long / aspect), strength, rng.uniform(0, np.pi), hollow)
        cv2.circle(mask, (round(place[1] + half), round(place[0] + half)), round(0.015 * height), 1, -1)
    hull = cv2.convexHull(cv2.findNonZero(mask))
    cv2.fillConvexPoly(mask, hull, 1)
    return Stamp(signal=signal, mask=mask.astype(bool))


def _scatter(count: int, radius: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (count, 2) offsets from the centre [px] within an ellipse of this radius."""
    turn, aspect = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
    r, angle = radius * np.sqrt(rng.random(count)) * 0.95, rng.uniform(0, 2 * np.pi, count)
    along, across = r * np.cos(angle), aspect * r * np.sin(angle)
    return np.stack(
        [along * np.sin(turn) + across * np.cos(turn), along * np.cos(turn) - across * np.sin(turn)], axis=1
    )


def add_speck(
    signal: FloatArray,
    centre: npt.NDArray[np.float64],
    axes: tuple[float, float],
    strength: float,
    turn: float,
    hollow: bool,
) -> None:
    """Add one soft-edged ellipse, or a ring if `hollow`, of these diameters [px] to the stamp."""
    reach = int(max(axes) * 1.2) + 2
    top, left = (max(int(c) - reach, 0) for c in centre)
    part = signal[top : int(centre[0]) + reach + 1, left : int(centre[1]) + reach + 1]
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    rows -= np.float32(centre[0] - top)
    columns -= np.float32(centre[1] - left)
    along = (columns * np.cos(turn) + rows * np.sin(turn)) * 2 / axes[0]
    across = (rows * np.cos(turn) - columns * np.sin(turn)) * 2 / axes[1]
    squared = along**2 + across**2
    speck = np.exp(-0.69 * squared**2)  # half strength on the ellipse
    if hollow:
        speck *= 1 - 0.75 * np.exp(-3 * squared)
    np.maximum(part, (strength * speck).astype(np.float32), out=part)
