"""From a film's file to its reduced image: what each codec costs, what is spent besides, and what `reduced` gains.

    python tests/bench/bench_decode.py       # a minute on one core

Phantoms of 3328x2560 px and 16 bits, reduced to 1152x896. Times are medians of 5, warm, of runs that alternate between
what is compared. JPEG-LS and HTJ2K are missing: nothing at hand writes them at that size. The difference of pixels is
over all of them, in grey levels of 65535; the largest stand at hard edges, such as those of labels.

Prints one JSON line a figure.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import pixel_array

from mammoflow.config import ImageConfig, PhantomConfig
from mammoflow.data import decode
from mammoflow.data.dicom import stored_values
from mammoflow.data.phantom import dicom, film, release

HEIGHT, WIDTH, FILMS, REPEATS = 3328, 2560, 4, 5
MEGAPIXELS = HEIGHT * WIDTH / 1e6
FULL, REDUCED = ImageConfig(), ImageConfig(reduced=True)
LARGEST_OVERHEAD = 25.0
"""Milliseconds a film."""


def show(figure: str, value: float, unit: str, goal: str, against: str) -> None:
    """Print one figure."""
    print(
        json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, "goal": goal, "against": against}),
        flush=True,
    )


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def alternating(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each call, after a first one that counts for nothing."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in taken.items()}


def drawn() -> list[np.ndarray]:
    """Return the pixels of some films."""
    config = PhantomConfig(patients=FILMS, height=HEIGHT, width=WIDTH)
    patients = release.plan(config, 0)
    return [film.draw(patient.films[0], patient, config, 0).pixels for patient in patients[:FILMS]]


def codec_figures(codec: str, data: bytes, folder: Path) -> None:
    """Print what decoders take for a syntax, and what loading takes beyond the one chosen."""
    tags = pydicom.dcmread(BytesIO(data))
    plugins = get_decoder(tags.file_meta.TransferSyntaxUID).available_plugins or ("",)
    (folder / "a.dcm").write_bytes(data)
    calls: dict[str, Callable[[], object]] = {
        plugin or "pydicom": partial(pixel_array, tags, decoding_plugin=plugin) for plugin in plugins
    }
    calls["mammoflow's choice"] = lambda: stored_values.decode(pydicom.dcmread(BytesIO(data)), None)
    calls["load_image"] = lambda: decode.load_image(str(folder / "a.dcm"), FULL)
    taken = alternating(calls)
    whole, chosen = taken.pop("load_image"), taken["mammoflow's choice"]
    for name, took in taken.items():
        show(f"decode {codec}, {name}", took / MEGAPIXELS, "s/Mpx", "none; the codec's limit", "other decoders")
    goal = f"below {LARGEST_OVERHEAD}"
    show(f"load_image beyond decoding, {codec}", 1000 * (whole - chosen), "ms/film", goal, "the decoder alone")


def reduced(films: list[bytes], folder: Path) -> None:
    """Print what decoding at a reduced resolution gains and changes."""
    path = str(folder / "a.dcm")
    calls = {name: partial(decode.load_image, path, config) for name, config in (("full", FULL), ("reduced", REDUCED))}
    ratios, means, largest = [], [], []
    for data in films:
        Path(path).write_bytes(data)
        taken = alternating(calls)
        ratios.append(taken["full"] / taken["reduced"])
        difference = np.abs(calls["reduced"]().pixels.astype(int) - calls["full"]().pixels)
        means.append(difference.mean())
        largest.append(difference.max())
    against = "full decoding and area reduction"
    show("j2k_reduced_speedup", statistics.median(ratios), "times", "at least 2", against)
    show("j2k_reduced_mean_difference", float(np.mean(means)), "grey levels of 65535", "none; documented", against)
    show("j2k_reduced_max_difference", float(max(largest)), "grey levels of 65535", "none; documented", against)


def main() -> None:
    """Draw films, encode them, and print every figure."""
    cv2.setNumThreads(1)
    films = drawn()
    identity = dicom.Identity(patient="bench", description="bench", study="1.2", series="1.3", instance="1.4")
    with tempfile.TemporaryDirectory() as folder:
        for codec in dicom.SYNTAXES:
            codec_figures(codec, dicom.encode(films[0], codec, identity), Path(folder))
        reduced([dicom.encode(pixels, "jpeg2000", identity) for pixels in films], Path(folder))


if __name__ == "__main__":
    main()
