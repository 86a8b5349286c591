"""Draw one film: a breast with its lesions and with distractors that merely resemble them. No files, no DICOM.

NumPy and OpenCV only. Shape letters: H, W film rows, columns [px].
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import anatomy, digitise, lesions
from mammoflow.data.phantom.anatomy import BoolArray, Breast, FloatArray
from mammoflow.data.phantom.cases import Film, Lesion, Patient
from mammoflow.data.phantom.seeds import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFilm:
    """The pixels of one film and the outlines of its lesions."""

    pixels: npt.NDArray[np.uint16]
    """(H, W): grey values over the full range, air dark (MONOCHROME2)."""
    masks: dict[tuple[str, int], BoolArray]
    """Outline of each lesion, bool (H, W), by kind and abnormality id."""


def draw(film: Film, patient: Patient, config: PhantomConfig, seed: int, *, digitised: bool = True) -> DrawnFilm:
    """Draw one film of `config.height` x `config.width` [px].

    Every random draw is seeded by (seed, patient or film id, stage), so the breast beneath a lesion does not depend on
    the contrast. Only `digitised` films have letters, borders and dust.
    """
    sizes = anatomy.proportions(patient.density, generator(seed, patient.patient_id, "woman"))
    shape = (config.height, config.width)
    breast = anatomy.outline(film.view, sizes, shape, generator(seed, film.film_id, "outline"))
    tissue_HW = anatomy.attenuation(breast, film.view, sizes, generator(seed, film.film_id, "tissue"))
    _distract(tissue_HW, breast, generator(seed, film.film_id, "distractors"))
    masks: dict[tuple[str, int], BoolArray] = {}
    taken_HW = np.zeros(shape, np.uint8)
    for lesion in film.lesions:
        rng = generator(seed, film.film_id, f"{lesion.kind} {lesion.number}")
        mark = lesions.stamp(lesion, config.height, config.contrast, rng)
        place = _place(lesion, breast, taken_HW, rng)
        _add(tissue_HW, mark.signal, place)
        mask_HW = np.zeros(shape, np.float32)
        _add(mask_HW, mark.mask.astype(np.float32), place)
        masks[lesion.kind, lesion.number] = (mask_HW > 0) & breast.inside
        taken_HW |= masks[lesion.kind, lesion.number].astype(np.uint8)
    grey_HW = digitise.expose(tissue_HW, breast.inside, generator(seed, film.film_id, "exposure"))
    if film.side == "RIGHT":
        grey_HW = np.ascontiguousarray(grey_HW[:, ::-1])
        masks = {key: np.ascontiguousarray(mask_HW[:, ::-1]) for key, mask_HW in masks.items()}
    if digitised:
        digitise.mark(grey_HW, film.side, film.view, generator(seed, film.film_id, "marks"))
    return DrawnFilm(pixels=np.round(np.clip(grey_HW, 0, 1) * 65535).astype(np.uint16), masks=masks)


def _place(
    lesion: Lesion, breast: Breast, taken_HW: npt.NDArray[np.uint8], rng: np.random.Generator
) -> tuple[int, int]:
    """Return the lesion's centre (row, column) [px]: its planned place, moved to the nearest place where it fits.

    Both views of a breast show it at about the same depth and height.
    """
    height = breast.inside.shape[0]
    radius = lesion.diameter * height / 2
    step = max(1, height // 128)
    inside = breast.outline > 0.15 * height
    first, last = np.flatnonzero(inside)[[0, -1]]
    row = first + (lesion.across + rng.normal(0, 0.03)) * (last - first)
    column = (lesion.depth + rng.normal(0, 0.03)) * breast.outline[int(np.clip(row, first, last))]
    skin = breast.skin[::step, ::step]
    free = cv2.distanceTransform(1 - taken_HW, cv2.DIST_L2, 3)[::step, ::step]
    rows, columns = np.mgrid[: skin.shape[0], : skin.shape[1]].astype(np.float32) * step
    fits = (skin > radius + 0.03 * height) & (columns > 0.9 * radius) & (breast.muscle[::step, ::step] < 0.2)
    fits &= (rows > 0.9 * radius) & (rows < height - 0.9 * radius)
    for allowed in (fits & (free > 1.1 * radius), fits, skin >= skin.max()):
        if allowed.any():
            far = np.where(allowed, (rows - row) ** 2 + (columns - column) ** 2, np.inf)
            best = np.unravel_index(int(far.argmin()), far.shape)
            break
    return int(best[0]) * step, int(best[1]) * step


def _add(image_HW: FloatArray, stamp_SS: FloatArray, centre: tuple[int, int]) -> None:
    """Add a stamp to an image in place, clipped at the borders."""
    half = stamp_SS.shape[0] // 2
    top, left = centre[0] - half, centre[1] - half
    rows = slice(max(top, 0), min(top + stamp_SS.shape[0], image_HW.shape[0]))
    columns = slice(max(left, 0), min(left + stamp_SS.shape[1], image_HW.shape[1]))
    image_HW[rows, columns] += stamp_SS[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _distract(tissue_HW: FloatArray, breast: Breast, rng: np.random.Generator) -> None:
    """Add distractors without outlines: dense lumps and isolated specks."""
    height = tissue_HW.shape[0]
    deep = np.argwhere(breast.skin[::4, ::4] > 0.05 * height) * 4
    if not len(deep):
        return
    for _ in range(int(rng.integers(3, 9))):
        long, wide, strength = rng.uniform([0.012, 0.5, 0.03], [0.035, 0.9, 0.085])
        half = int(3 * long * height) + 1
        rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        turn = rng.uniform(0, np.pi)
        along = (columns * np.cos(turn) + rows * np.sin(turn)) / (long * height)
        across = (rows * np.cos(turn) - columns * np.sin(turn)) / (long * wide * height)
        lump = strength * np.exp(-0.5 * (along**2 + across**2))
        _add(tissue_HW, lump.astype(np.float32), tuple(rng.choice(deep)))
    for _ in range(int(rng.poisson(1.5))):
        size = height * rng.uniform(0.004, 0.011)
        half = int(1.5 * size) + 2
        speck = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
        strength = lesions.SPECK_CONTRAST * rng.uniform(0.6, 1.2)
        lesions.add_speck(speck, np.array([half, half]), (size, size * rng.uniform(0.7, 1)), strength, 0.0, False)
        _add(tissue_HW, speck, tuple(rng.choice(deep)))
