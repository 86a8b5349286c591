"""Sampling patches of set S10: how fast around lesions of hard shape, and how even, against the reference's rejection.

    python tests/bench/bench_patches.py        # ten seconds, one core

The reference draws centres in the lesion's bounding box until enough patches overlap it, and lowers the overlap it asks
for by 0.05 after 1,000 misses. Here its rule is written anew, at its best: the lesion's area is counted once, not at
every draw. Each lesion is timed by both in turn, warm; a lesion's time is the median of five rounds.

Prints one JSON line a figure. `shapes` holds each lesion's own value.
"""

import json
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from scipy.stats import chisquare

from mammoflow.config import PatchConfig
from mammoflow.data import patches

HEIGHT, WIDTH = 1152, 896
CONFIG = PatchConfig()
ROUNDS = 5
MISSES, STEP = 1000, 0.05
DRAWS = 40_000
Sampler = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def lines(*ends: tuple[int, int, int, int], thick: int = 3) -> np.ndarray:
    """Draw line segments, each from (x, y) to (x, y)."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x, y, to_x, to_y in ends:
        cv2.line(canvas, (x, y), (to_x, to_y), 1, thick)
    return canvas > 0


def discs(*of: tuple[int, int, int]) -> np.ndarray:
    """Draw discs, each by the (x, y) of its centre and its radius."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x, y, radius in of:
        cv2.circle(canvas, (x, y), radius, 1, -1)
    return canvas > 0


def arc(radius: int, start: int, end: int, thick: int) -> np.ndarray:
    """Draw an arc about the middle, angles in degrees."""
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(canvas, (450, 560), (radius, radius), 0, start, end, 1, thick)
    return canvas > 0


def specks(count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Draw a cluster of specks of 3 px."""
    at = np.random.default_rng(seed).normal((450, 560), spread, (count, 2)).round().astype(int)
    return discs(*((int(x), int(y), 1) for x, y in at))


def hard_shapes() -> dict[str, np.ndarray]:
    """Return lesions that a patch covers in few places of their bounding box, or in none."""
    rays = [(450, 560, 450 + round(115 * np.cos(a)), 560 + round(115 * np.sin(a))) for a in np.arange(0, 6.28, 0.7)]
    return {
        "diagonal line": lines((330, 440, 480, 590)),
        "long diagonal line": lines((200, 200, 600, 700)),
        "ring": arc(100, 0, 360, 6),
        "wide ring": arc(180, 0, 360, 6),
        "C": arc(108, 40, 320, 8),
        "L": lines((300, 300, 300, 505), (300, 505, 505, 505), thick=8),
        "long L": lines((300, 300, 300, 700), (300, 700, 620, 700), thick=8),
        "cluster of specks": specks(30, 40),
        "scattered specks": specks(40, 90),
        "two far blobs": discs((250, 300, 30), (600, 800, 30)),
        "two near blobs": discs((400, 500, 20), (560, 660, 20)),
        "star": lines(*rays, thick=4),
        "at the edge": discs((10, 300, 40)) | lines((2, 300, 2, 505), thick=5),
    }


def rejection(lesion_HW: np.ndarray, rng: np.random.Generator, *, wanted: int, least: float) -> np.ndarray:
    """Return (N, 2) corners by the reference's rule: sum a slice of the mask at each draw."""
    top, left, height, width, area = box(lesion_HW)
    half, side = CONFIG.side // 2, CONFIG.side
    kept: list[tuple[int, int]] = []
    misses = 0
    while len(kept) < wanted:
        row = int(rng.integers(top, top + height)) - half
        column = int(rng.integers(left, left + width)) - half
        inside = lesion_HW[max(0, row) : row + side, max(0, column) : column + side].sum()
        if inside / area > least or inside / side**2 > least:
            kept.append((row, column))
            misses = 0
            continue
        misses += 1
        if misses == MISSES:
            least, misses = least - STEP, 0
    return np.array(kept)


def rejection_by_table(lesion_HW: np.ndarray, rng: np.random.Generator, *, wanted: int, least: float) -> np.ndarray:
    """Return the same by a faster way that the reference has not: a summed-area table, and 1,000 draws at once."""
    top, left, height, width, area = box(lesion_HW)
    half, side = CONFIG.side // 2, CONFIG.side
    table = cv2.integral(lesion_HW.view(np.uint8))
    kept = np.empty((0, 2), np.int64)
    while len(kept) < wanted:
        corners_N2 = rng.integers((top, left), (top + height, left + width), (MISSES, 2)) - half
        (r0, c0), (r1, c1) = np.clip(corners_N2, 0, None).T, np.minimum(corners_N2 + side, lesion_HW.shape).T
        inside = table[r1, c1] - table[r0, c1] - table[r1, c0] + table[r0, c0]
        found = corners_N2[(inside / area > least) | (inside / side**2 > least)]
        kept = np.concatenate([kept, found])
        least -= 0 if len(found) else STEP
    return kept[:wanted]


def box(lesion_HW: np.ndarray) -> tuple[int, int, int, int, int]:
    """Return top, left, height and width of the bounding box, and the lesion's area."""
    left, top, width, height = cv2.boundingRect(lesion_HW.view(np.uint8))
    return top, left, height, width, int(np.count_nonzero(lesion_HW))


def ours(lesion_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the corners that mammoflow draws."""
    return patches.lesion_corners(lesion_HW, CONFIG, rng).corners


def by_reference(sampler: Callable[..., np.ndarray]) -> Sampler:
    """Ask a rejection sampler for what the config asks."""
    return lambda lesion_HW, rng: sampler(lesion_HW, rng, wanted=CONFIG.per_lesion, least=CONFIG.min_overlap)


def timed(samplers: dict[str, Sampler], lesion_HW: np.ndarray) -> dict[str, float]:
    """Return each sampler's median time [ms] over rounds in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    for turn in range(ROUNDS + 1):
        for name, sampler in samplers.items():
            rng = np.random.default_rng(turn)
            started = time.perf_counter()
            sampler(lesion_HW, rng)
            taken[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(times[1:]) for name, times in taken.items()}  # the first one warms up


def evenness(corners_N2: np.ndarray, allowed_RC: np.ndarray) -> float:
    """Return the chi-square p-value of draws over the allowed corners, in cells of about 100 draws; 0 if all miss."""
    rank_RC = np.cumsum(allowed_RC).reshape(allowed_RC.shape) - 1  # row-major rank of each allowed corner
    cells = min(int(allowed_RC.sum()), len(corners_N2) // 100)
    cell_RC = rank_RC * cells // int(allowed_RC.sum())
    inside_N = ((corners_N2 >= 0) & (corners_N2 < allowed_RC.shape)).all(axis=1)
    corners_N2 = corners_N2[inside_N]
    corners_N2 = corners_N2[allowed_RC[tuple(corners_N2.T)]]  # of the rejection rule; ours are all allowed
    if not len(corners_N2):
        return 0.0
    drawn = np.bincount(cell_RC[tuple(corners_N2.T)], minlength=cells)
    held = np.bincount(cell_RC[allowed_RC], minlength=cells)
    return float(chisquare(drawn, held * drawn.sum() / held.sum()).pvalue)


def show(figure: str, value: float, unit: str, goal: str, against: str, shapes: dict[str, float]) -> None:
    """Print one figure."""
    line = {"figure": figure, "value": value, "unit": unit, "goal": goal, "against": against, "shapes": shapes}
    print(json.dumps(line), flush=True)


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Round to three significant digits."""
    return {name: float(f"{value:.3g}") for name, value in values.items()}


def measure_speed(shapes: dict[str, np.ndarray]) -> None:
    """Time the samplers over the hard shapes, and the whole cut of an image."""
    samplers = {"ours": ours, "rule": by_reference(rejection), "table": by_reference(rejection_by_table)}
    times = {shape: timed(samplers, lesion_HW) for shape, lesion_HW in shapes.items()}
    total = {name: sum(taken[name] for taken in times.values()) for name in samplers}
    for figure, name, goal, against in (
        ("s10_vs_rejection", "rule", ">= 10", "the reference's rule, a slice sum of the mask at each draw"),
        ("s10_vs_rejection_by_table", "table", "none; what the reference could be", "the rule by table, 1,000 at once"),
    ):
        ratios = {shape: taken[name] / taken["ours"] for shape, taken in times.items()}
        value, whole = statistics.geometric_mean(ratios.values()), total[name] / total["ours"]
        unit = f"times as fast, geometric mean of the shapes ({whole:.1f} by the time of all together)"
        show(figure, round(value, 1), unit, goal, against, rounded(ratios))
    each = rounded({shape: taken["ours"] for shape, taken in times.items()})
    show("s10_lesion_ms", round(total["ours"] / len(times), 2), "ms a lesion", "none", "", each)
    tissue = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint16), (0, 576), 800, 30000, -1)
    lesions = {
        shape: patches.Lesion(lesion_id=shape, kind="mass", pathology="benign", mask=lesion_HW)
        for shape, lesion_HW in shapes.items()
    }
    images = {
        shape: timed({"cut": lambda _, rng, one=lesion: patches.cut(tissue, [one], CONFIG, rng)}, tissue)["cut"]
        for shape, lesion in lesions.items()
    }
    unit = "ms an image with one lesion, its breast found and background drawn"
    show("s10_cut_ms", round(statistics.mean(images.values()), 1), unit, "none", "", rounded(images))


def measure_evenness(shapes: dict[str, np.ndarray]) -> None:
    """Test how even many draws are over all corners that qualify, wherever any does."""
    many = PatchConfig(per_lesion=DRAWS)
    mine, theirs, reached = {}, {}, {}
    for shape, lesion_HW in shapes.items():
        area = min(CONFIG.side**2, int(lesion_HW.sum()))
        allowed_RC = patches.window_sums(lesion_HW, CONFIG.side) >= CONFIG.min_overlap * area
        if not allowed_RC.any():
            continue
        mine[shape] = evenness(patches.lesion_corners(lesion_HW, many, np.random.default_rng(0)).corners, allowed_RC)
        drawn_N2 = rejection_by_table(lesion_HW, np.random.default_rng(0), wanted=DRAWS, least=CONFIG.min_overlap)
        theirs[shape] = evenness(drawn_N2, allowed_RC)
        top, left, height, width, _ = box(lesion_HW)
        rows, columns = (np.arange(n) + CONFIG.side // 2 for n in allowed_RC.shape)
        within_RC = ((rows >= top) & (rows < top + height))[:, None] & ((columns >= left) & (columns < left + width))
        reached[shape] = float((allowed_RC & within_RC).sum() / allowed_RC.sum())
    least = 1 - (1 - 0.001) ** len(mine)
    show(
        "s10_uniformity_p",
        round(min(mine.values()), 3),
        f"smallest chi-square p-value of {len(mine)} shapes, {DRAWS} draws each",
        "> 0.001",
        f"even over every corner that qualifies (by chance alone below 0.001 in {least:.1%} of runs)",
        rounded(mine),
    )
    show(
        "s10_uniformity_p_rejection",
        round(min(theirs.values()), 3),
        "smallest chi-square p-value of as many draws by the reference's rule",
        "none; for contrast",
        "even over the same corners; 0 where it reaches none of them, or not all",
        rounded(theirs),
    )
    show(
        "s10_reach_rejection",
        round(statistics.mean(reached.values()), 3),
        "share of the corners that qualify which the reference's rule can draw",
        "none; ours is 1",
        "the same corners",
        rounded(reached),
    )


if __name__ == "__main__":
    hard = hard_shapes()
    measure_speed(hard)
    measure_evenness(hard)
