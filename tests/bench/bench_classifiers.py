"""What a fully convolutional classifier saves: a patch classifier on a whole image at once, against patch by patch.

    python tests/bench/bench_classifiers.py           # five minutes on 2 cores
    python tests/bench/bench_classifiers.py --backbone resnet18 --images 2

Images of 1152x896, patches of 224, the same 30x22 positions 32 px apart. Times are medians, warm, of runs that
alternate between what is compared. The two heatmaps are not equal: in the whole image a patch sees its neighbours,
alone it sees zeros around it. How far they agree is given as the rank correlation of their scores of malignancy over
the cells of breast tissue, and as the mean difference of scores.

Prints one JSON line a figure.
"""

import argparse
import json
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mammoflow.config import CLASSES, PhantomConfig
from mammoflow.data import patches
from mammoflow.data.phantom import cases, film
from mammoflow.models import classifiers
from mammoflow.models.classifiers import ImageSpec, PatchClassifier, PatchSpec, WholeImageClassifier
from mammoflow.training import distributed

HEIGHT, WIDTH, SIDE, STRIDE = 1152, 896, 224, 32
ROUNDS = 5
BATCH = 33
"""Patches classified at once, one by one being slower."""


def show(figure: str, value: float, unit: str, goal: str, against: str, **more: object) -> None:
    """Print one figure."""
    line = {"figure": figure, "value": round(value, 4), "unit": unit, "goal": goal, "against": against, **more}
    print(json.dumps(line), flush=True)


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def films(count: int) -> list[NDArray[np.uint16]]:
    """Draw phantoms of the paper's size."""
    config = PhantomConfig(patients=count, height=2 * HEIGHT, width=2 * WIDTH)
    drawn = [(woman, one) for woman in cases.plan(config, 0) for one in woman.films][:count]
    whole = [film.draw(one, woman, config, 0).pixels.astype(np.uint16) for woman, one in drawn]
    return [cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for pixels in whole]


def trained_enough(backbone: str, images: list[NDArray[np.uint16]]) -> PatchClassifier:
    """Return a classifier of random weights whose BatchNorm knows these images, so that its scores differ."""
    spec = PatchSpec(precision="fp32", backbone=backbone, classes=CLASSES, mean_grey=50.0, side=SIDE, weights=None)
    model = classifiers.patch_classifier(spec, seed=0).train()
    crops = np.stack([cut for image in images for cut in _patches(image)[::40]])
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        for start in range(0, len(crops), BATCH):
            model(classifiers.to_input(torch.from_numpy(crops[start : start + BATCH])))
    return model.eval()


def _patches(image: NDArray[np.uint16]) -> NDArray[np.uint16]:
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE))[::STRIDE, ::STRIDE]
    return windows.reshape(-1, SIDE, SIDE)


@torch.inference_mode()
def sliding(model: PatchClassifier, image: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Classify each patch alone: (30, 22, C)."""
    crops = torch.from_numpy(_patches(image).copy())
    scores = [model(classifiers.to_input(part)).softmax(dim=1) for part in crops.split(BATCH)]
    rows = (HEIGHT - SIDE) // STRIDE + 1
    found: NDArray[np.float32] = torch.cat(scores).reshape(rows, -1, len(CLASSES)).numpy()
    return found


def whole_against_sliding(backbone: str, images: list[NDArray[np.uint16]]) -> None:
    """Time both, and compare what they say."""
    model = trained_enough(backbone, images)
    ratios, correlations, differences = [], [], []
    for number, image in enumerate([images[0], *images]):
        made: dict[str, NDArray[np.float32]] = {}
        once = [
            seconds(lambda i=image, m=made: m.update(whole=classifiers.heatmap(model, torch.from_numpy(i))))
            for _ in range(ROUNDS)
        ]
        alone = seconds(lambda i=image, m=made: m.update(sliding=sliding(model, i)))
        if number == 0:  # warms up
            continue
        tissue = patches.window_sums(patches.tissue_mask(image), SIDE)[::STRIDE, ::STRIDE] > SIDE**2 / 2
        malignant = [made[how][..., 1][tissue] + made[how][..., 3][tissue] for how in ("whole", "sliding")]
        ratios.append(alone / statistics.median(once))
        correlations.append(float(spearmanr(*malignant).statistic))
        differences.append(float(np.abs(malignant[0] - malignant[1]).mean()))
    about = {"backbone": backbone, "images": len(images), "grid": "30x22"}
    against = "the same classifier on each patch alone"
    show("whole_vs_sliding", statistics.median(ratios), "ratio", ">= 10", against, **about)
    against = "Spearman, scores of malignancy on tissue, random weights"
    show("whole_vs_sliding_rank_correlation", statistics.median(correlations), "rho", "-", against, **about)
    against = "mean difference of the scores [0-1]: patches alone are padded with zeros"
    show("whole_vs_sliding_difference", statistics.median(differences), "probability", "-", against, **about)


def new_step(
    backbone: str,
    height: int,
    width: int,
    *,
    checkpointing: bool = False,
    top_layers: str = "[512-512-1024]x2,[512-512-1024]x2",
    batch: int = 1,
) -> Callable[[], int]:
    """Return a training step on a batch of images, all layers; it says how many weights there are."""
    spec = ImageSpec(
        precision="fp32",
        backbone=backbone,
        top_layers=top_layers,
        classes=CLASSES,
        side=SIDE,
        mean_grey=50.0,
        height=height,
        width=width,
        fit="stretch",
        weights=None,
    )
    model = WholeImageClassifier(spec).train().to(memory_format=torch.channels_last)
    model.trunk.checkpointing = checkpointing
    image = torch.rand(batch, 3, height, width).mul(255).contiguous(memory_format=torch.channels_last)

    def step() -> int:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(image), torch.ones(batch, dtype=torch.int64))
        torch.autograd.backward(loss)
        return sum(parameter.numel() for parameter in model.parameters())

    return step


def memory_of_step(backbone: str, checkpointing: bool) -> float:
    """Return what two steps at 2304x1792 take of a new process's memory beside the network [GiB]."""
    distributed.keep_freed_memory()
    step = new_step(backbone, 2 * HEIGHT, 2 * WIDTH, checkpointing=checkpointing)
    before = psutil.Process().memory_info().rss
    step()
    step()
    return most_memory() - before / 2**30


def most_memory() -> float:
    """Return the most memory that this process has held so far [GiB]."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 2**20


def checkpointed_against_plain(backbone: str) -> None:
    """Compare memory and time of a step with and without checkpointing."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        plain, less = (pool.apply(memory_of_step, (backbone, how)) for how in (False, True))
    steps = [new_step(backbone, HEIGHT, WIDTH, checkpointing=how) for how in (False, True)]
    for step in steps:
        step()
    slower = statistics.median(seconds(steps[1]) / seconds(steps[0]) for _ in range(ROUNDS))
    about = {"backbone": backbone, "gib": [round(less, 2), round(plain, 2)], "time": round(slower, 2)}
    show("checkpointing_memory", less / plain, "ratio", "-", "a step at 2304x1792 that keeps all activations", **about)


def native_against_reduced(backbone: str) -> None:
    """Time a step at 1152x896 and at four times its pixels, in a process that keeps memory as training's do."""
    distributed.keep_freed_memory()
    small, large = (new_step(backbone, HEIGHT * times, WIDTH * times) for times in (1, 2))
    for step in (small, large, small, large):
        step()
    pairs = [(seconds(large), seconds(small)) for _ in range(ROUNDS)]
    ratio = statistics.median(one / other for one, other in pairs)
    times = [round(statistics.median(column), 2) for column in zip(*pairs, strict=True)]
    about = {"backbone": backbone, "batch": 1, "seconds": {"2304x1792": times[0], "1152x896": times[1]}}
    show("time_for_4x_pixels", ratio, "ratio", "<= 4.4", "a training step at 1152x896", **about)


def main() -> None:
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    images = films(options.images)
    whole_against_sliding(options.backbone, images)
    native_against_reduced("resnet18")
    checkpointed_against_plain(options.backbone)


if __name__ == "__main__":
    main()
