"""Random generators seeded by names instead of order: the same names give the same numbers. NumPy only."""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one stage of one object, e.g. `generator(0, "P_00001_LEFT_CC", "grain")`.

    Its numbers do not depend on what else is drawn, or in which order.
    """
    text = "\x1f".join([str(seed), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def spread(seed: int, name: str, index: int) -> float:
    """Return element `index` of a low-discrepancy sequence in [0, 1) that starts at a point given by seed and name.

    Consecutive elements cover the interval evenly, so even ten patients include both pathologies; each element depends
    on its index alone. Source: additive recurrence with the golden ratio.
    """
    start = generator(seed, name).random()
    return float((start + index * 0.6180339887498949) % 1.0)
