"""Draw one breast as a film shows it, without lesions: outline, muscle, fat, glandular tissue, vessels. No files.

NumPy and OpenCV only. A left breast is drawn, with the chest wall at column 0; film.py mirrors it for the right side.
Lengths are shares of the film's height unless marked [px]. Shape letters: H, W film rows, columns [px].
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SLOPE = 3.1
"""Exponent of the tissue's power spectrum, P ~ f^-SLOPE; real films measured with the same code give 2.9 to 3.4."""

_GLANDULAR = {1: 0.15, 2: 0.30, 3: 0.46, 4: 0.60}
"""Attenuation that glandular tissue adds to fat's, by BI-RADS density."""

_EXTENT = {1: 0.55, 2: 0.75, 3: 0.9, 4: 1.1}
"""Relative extent of the glandular zone, by BI-RADS density."""

_FAT, _MUSCLE = 0.27, 0.40


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportions:
    """Density and sizes that all films of a patient share."""

    density: int
    """BI-RADS density 1-4."""
    reach: float
    """Distance from chest wall to nipple in the CC view."""
    spread: float
    """Half the extent of the breast along the chest wall in the CC view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breast:
    """One breast in one view."""

    inside: BoolArray
    """(H, W): whether a pixel is breast or muscle."""
    skin: FloatArray
    """(H, W): depth below the skin, 0 outside [px]."""
    muscle: FloatArray
    """(H, W): share of pectoral muscle [0-1]."""
    outline: FloatArray
    """(H,): column of the skin in each row, 0 where there is no breast [px]."""


def proportions(density: int, rng: np.random.Generator) -> Proportions:
    """Draw the sizes that all films of a patient share."""
    reach, spread = rng.random(2)
    return Proportions(density=density, reach=0.38 + 0.2 * reach, spread=0.31 + 0.11 * spread)


def outline(view: str, sizes: Proportions, shape: tuple[int, int], rng: np.random.Generator) -> Breast:
    """Draw skin and muscle.

    Args:
        view: CC or MLO.
        sizes: the patient's.
        shape: (H, W) [px].
        rng: seeded by the caller from (seed, film id, "outline").
    """
    height, width = shape
    rows = np.arange(height, dtype=np.float32) / np.float32(height)
    skin = _cc_skin(rows, sizes, rng) if view == "CC" else _mlo_skin(rows, sizes, rng)
    outline_H = np.minimum(skin * height, width * 0.97).astype(np.float32)
    columns = np.arange(width, dtype=np.float32)
    inside = columns[None] < outline_H[:, None]
    skin_HW = np.asarray(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    muscle = np.zeros(shape, np.float32) if view == "CC" else _muscle(rows, columns / np.float32(height), rng)
    return Breast(inside=inside, skin=skin_HW, muscle=muscle * inside, outline=outline_H)


def _cc_skin(rows: FloatArray, sizes: Proportions, rng: np.random.Generator) -> FloatArray:
    centre, power, point, tilt = rng.uniform([0.44, 1.8, 0.55, -0.15], [0.54, 2.2, 0.85, 0.15])
    t = np.abs((rows - centre) / sizes.spread - tilt * (1 - ((rows - centre) / sizes.spread) ** 2))
    skin = sizes.reach * np.maximum(1 - t**power, 0) ** point
    return _with_nipple(skin, rows, rng)


def _mlo_skin(rows: FloatArray, sizes: Proportions, rng: np.random.Generator) -> FloatArray:
    axilla, waist, nipple, fold, end = rng.uniform([0.26, 0.29, 0.54, 0.78, 0.92], [0.34, 0.36, 0.66, 0.84, 1.00])
    reach = sizes.reach * 0.98
    at = [0.0, 0.22, (0.22 + nipple) / 2, nipple, (nipple + fold) / 2, fold, (fold + end) / 2, end, 1.01]
    skin = [axilla, waist, (waist + reach) / 2 + 0.03, reach, reach * 0.88, reach * 0.6, reach * 0.27, 0.06, 0.0]
    corners = np.interp(rows, at, skin)[:, None]
    line = cv2.GaussianBlur(corners, (1, 0), 0, sigmaY=0.035 * len(rows), borderType=cv2.BORDER_REPLICATE)
    return _with_nipple(np.asarray(line[:, 0], np.float32), rows, rng)


def _with_nipple(skin: FloatArray, rows: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add a small bump at the foremost point."""
    size = rng.uniform(0.005, 0.02)
    return np.asarray(skin + size * np.exp(-(((rows - rows[skin.argmax()]) / 0.014) ** 2)) * (skin > 0), np.float32)


def _muscle(rows: FloatArray, columns: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the share of pectoral muscle: a triangle at the upper chest wall with a soft, slightly bulging edge."""
    top, bottom, bulge, soft = rng.uniform([0.17, 0.45, -0.01, 0.006], [0.27, 0.75, 0.03, 0.015])
    edge = top * (1 - rows / bottom) + bulge * np.sin(np.pi * rows / bottom)
    return np.asarray(1 / (1 + np.exp(np.clip((columns[None] - edge[:, None]) / soft, -20, 20))), np.float32)


def attenuation(breast: Breast, view: str, sizes: Proportions, rng: np.random.Generator) -> FloatArray:
    """Draw the X-ray attenuation of a breast without lesions.

    Returns:
        float32 (H, W), 0 in air, about 0.25 in fat, 0.5 to 0.8 in glandular tissue, falling off smoothly at the rim,
        where the breast is thinner. Its texture has a power spectrum P ~ f^-SLOPE.

    Source: Burgess 1999 for the power law of mammographic backgrounds.
    """
    height = breast.inside.shape[0]
    lumps_HW, strands_HW = _towards_nipple(fields(breast.inside.shape, rng), breast)
    zone_HW = _glandular_zone(breast, view, sizes, lumps_HW, rng)
    gland = _GLANDULAR[sizes.density] * rng.uniform(0.9, 1.1)
    ridges_HW = _ridges(strands_HW)
    tissue = _FAT + zone_HW * gland * (0.62 + 0.17 * lumps_HW + 0.40 * ridges_HW)
    tissue += 0.022 * lumps_HW + 0.055 * ridges_HW
    tissue += 0.05 * _vessels(breast, rng)
    thicker = 1.2 - 0.6 * np.linspace(0, 1, height, dtype=np.float32)[:, None]  # towards the armpit
    tissue += breast.muscle * (_MUSCLE * rng.uniform(0.8, 1.1) * thicker - (tissue - _FAT) * 0.75)
    # a compressed breast has uniform thickness except at the rim, where it falls to 0
    depth = np.minimum(breast.skin / (0.15 * height), 1)
    thickness = 1 - (1 - depth) ** 1.8
    skin_line = 0.03 * np.exp(-((breast.skin / (0.008 * height) - 1) ** 2))
    return np.asarray((np.maximum(tissue, 0.05) * thickness + skin_line) * breast.inside, np.float32)


def fields(shape: tuple[int, int], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draw two independent Gaussian random fields, float32 (H, W), mean 0, deviation 1, with P ~ f^-SLOPE.

    Structures larger than a quarter of the height are suppressed: they belong to the anatomy, not the texture.
    """
    rows, columns = (cv2.getOptimalDFTSize(side) for side in shape)
    f_rows = np.fft.fftfreq(rows).astype(np.float32)[:, None] * shape[0]
    f_columns = np.fft.fftfreq(columns).astype(np.float32)[None] * shape[0]
    # tissue runs towards the nipple, so structures are longer across the film than along the chest wall
    squared = (0.75 * f_rows) ** 2 + (1.3 * f_columns) ** 2
    amplitude = (squared + np.float32(16.0)) ** np.float32(-SLOPE / 4)
    noise = rng.standard_normal((rows, columns, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise *= amplitude
    noise[0, 0] = 0
    both = np.fft.ifft2(noise)[: shape[0], : shape[1]]
    scale = np.float32(np.sqrt(np.mean(amplitude**2) / (rows * columns)))
    return np.ascontiguousarray(both.real / scale), np.ascontiguousarray(both.imag / scale)


def _towards_nipple(textures: tuple[FloatArray, FloatArray], breast: Breast) -> tuple[FloatArray, FloatArray]:
    """Warp two textures, float32 (H, W), so that structures from the chest wall converge on the nipple."""
    height, width = breast.inside.shape
    nipple = np.float32(breast.outline.argmax())
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.tile(np.arange(width, dtype=np.float32), (height, 1))
    squeeze = 1 + 0.8 * np.minimum(columns / breast.outline.max(), 1) ** 2
    source = nipple + (rows - nipple) * squeeze
    lumps, strands = (
        cv2.remap(texture, columns, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT) for texture in textures
    )
    return np.asarray(lumps, np.float32), np.asarray(strands, np.float32)


def _ridges(strands_HW: FloatArray) -> FloatArray:
    """Return ligaments and ducts, float32 (H, W) [0-1]: coarse and fine lines along the field's zero crossings."""
    height = strands_HW.shape[0]
    total = np.zeros_like(strands_HW)
    for size, weight in ((0.012, 0.6), (0.004, 0.4)):
        smooth = _smooth(strands_HW, size * height)
        detail = smooth - cv2.blur(smooth, (round(10 * size * height) | 1,) * 2)
        total += weight * np.exp(-np.abs(detail) * np.float32(1.6 / detail.std()))
    return total


def _smooth(image_HW: FloatArray, sigma: float) -> FloatArray:
    """Blur with a Gaussian of `sigma` [px], on a coarser grid for large sigma, so that the cost stays constant."""
    height, width = image_HW.shape
    step = max(1, int(sigma / 3))
    coarse = cv2.resize(image_HW, (width // step, height // step), interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma / step)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _glandular_zone(
    breast: Breast, view: str, sizes: Proportions, lumps_HW: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return the share of glandular tissue [0-1], float32 (H, W): a disc behind the nipple with a ragged edge."""
    height, width = breast.inside.shape
    nipple_row = float(breast.outline.argmax()) / height
    reach = float(breast.outline.max()) / height
    y = np.arange(height, dtype=np.float32)[:, None] / height
    x = np.arange(width, dtype=np.float32)[None] / height
    rise, depth, along = rng.uniform([-0.04, 0.42, 0.6], [0.04, 0.52, 0.75])
    size = _EXTENT[sizes.density]
    centre = nipple_row + rise - (0.05 if view == "MLO" else 0.0)
    far = ((x - depth * reach) / (0.48 * reach * size)) ** 2 + ((y - centre) / (along * sizes.spread * size)) ** 2
    skin_gap = breast.skin / np.float32(0.05 * height) - 0.8  # a layer of fat lies under the skin
    soft_HW = _smooth(lumps_HW, 0.012 * height)
    ragged = np.minimum(1.1 - far, skin_gap) + 0.75 * soft_HW
    return np.asarray(1 / (1 + np.exp(np.clip(-3.2 * ragged, -20, 20))), np.float32)


def _vessels(breast: Breast, rng: np.random.Generator) -> FloatArray:
    """Draw a few long thin winding lines from the chest wall to the nipple, float32 (H, W) [0-1]."""
    height, width = breast.inside.shape
    canvas = np.zeros((height, width), np.uint8)
    rows = np.flatnonzero(breast.outline > 0.1 * height)
    nipple = np.array([breast.outline.argmax(), breast.outline.max() * 0.9])
    for _ in range(int(rng.integers(4, 10))):
        start = np.array([rng.choice(rows), rng.uniform(0, 0.1) * height])
        end = start + (nipple - start) * rng.uniform(0.4, 0.95)
        t = np.linspace(0, 1, 24)[:, None]
        bend = np.sin(np.pi * t * rng.uniform(0.8, 3)) * rng.uniform(-0.06, 0.06) * height
        wobble = np.cumsum(rng.normal(0, 0.002 * height, (24, 2)), axis=0)
        path = start + (end - start) * t + bend * [1.0, 0.3] + wobble
        thick = max(1, round(height * rng.uniform(0.002, 0.005)))
        points = np.round(path[:, ::-1] * 8).astype(np.int32)
        cv2.polylines(canvas, [points], False, float(rng.uniform(110, 255)), thick, cv2.LINE_AA, shift=3)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), max(0.6, height / 700)), np.float32) / np.float32(255)
