"""Random generators that depend on names, not on order: same seed and names, same numbers. NumPy only."""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one stage of one thing, e.g. `generator(0, "P_00001_LEFT_CC", "grain")`.

    What else is drawn, how much of it and in which order never changes its numbers.
    """
    text = "\x1f".join([str(seed), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def spread(seed: int, name: str, index: int) -> float:
    """Return member `index` of an evenly spread sequence in [0, 1), whose start depends on seed and name.

    Any run of consecutive members covers the interval evenly, so ten women already hold both pathologies, and
    a woman's own draw depends on her index alone. Source: additive recurrence with the golden ratio.
    """
    start = generator(seed, name).random()
    return float((start + index * 0.6180339887498949) % 1.0)
