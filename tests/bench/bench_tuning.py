"""What exploring top layers costs, packed on one pass through a frozen trunk and searched in two stages.

    python tests/bench/bench_tuning.py                     # all parts; about 40 minutes on 2 cores
    python tests/bench/bench_tuning.py packed memory       # some: packed, memory, tracking, search
    python tests/bench/bench_tuning.py packed --full       # at 1152x896 instead of 576x448
    python tests/bench/bench_tuning.py search --lake /tmp/l    # goes on where an earlier call stopped

`packed`: epochs of stage 1 of the 12 rows of tables 2 and 3 (S10, no heatmap) as `BankRun` trains them, in bf16 with
the paper's batch of 2: six together on Resnet50, six on VGG16, against each alone, and against the limit: the trunk's
pass and each head's step, timed by themselves. Batches are in memory. Medians, alternating; two threads.
`memory`: a process for each; `tracking`: what writing the runs takes; `search`: search_share.py.
Prints one JSON line a figure.
"""

import argparse
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import search_share
import torch
import whole_images
from bench_classifiers import most_memory, seconds, show

from mammoflow import recipes
from mammoflow.config import CLASSES, ImageConfig
from mammoflow.data.batches import Batch
from mammoflow.lake import Lake
from mammoflow.models import classifiers, devices
from mammoflow.models.classifiers import PatchSpec, WholeImageClassifier
from mammoflow.models.top_kinds import parse
from mammoflow.search.bank_run import BankRun
from mammoflow.tracking import Tracker
from mammoflow.training import cost, distributed, loop
from mammoflow.training.cost import Shape
from mammoflow.training.loop import Workers

ROUNDS, STEPS, VAL_STEPS, BATCH, SIDE = 3, 9, 1, 2, 224
CPU = torch.device("cpu")
TRAINING = recipes.cbis_s10().image_training
PACKS = {"resnet50": recipes.RESNET50_TOP_LAYERS, "vgg16": recipes.VGG16_TOP_LAYERS}
MORE = (*recipes.RESNET50_TOP_LAYERS, *recipes.HEATMAP_TOP_LAYERS, *recipes.FC_TOP_LAYERS)
PAPER_IMAGES = 1680
"""Training images of the paper's split of CBIS-DDSM, about."""


class InMemory:
    """Batches of noise, made before."""

    def __init__(self, images: ImageConfig, steps: int) -> None:
        """Make them."""
        rng, labels = np.random.default_rng(0), torch.tensor([0, 1])
        self._batches = [
            Batch(
                pixels=torch.from_numpy(rng.integers(0, 65536, (BATCH, images.height, images.width), dtype=np.uint16)),
                labels=labels,
                weights=torch.ones(BATCH),
                ids=[f"{step}/{row}" for row in range(BATCH)],
                step_labels=labels,
            )
            for step in range(steps)
        ]

    def epoch(self, _epoch: int) -> Iterator[Batch]:
        """Yield them."""
        yield from self._batches


class Epochs:
    """Epochs of stage 1 of a pack, each as training does it: augment, step, validate."""

    def __init__(self, backbone: str, tops: Sequence[str], images: ImageConfig) -> None:
        """Build the pack on a trunk of random weights."""
        spec = PatchSpec(precision="fp32", backbone=backbone, classes=CLASSES, mean_grey=50.0, side=SIDE, weights=None)
        self.models = whole_images.candidates(classifiers.patch_classifier(spec, 0), tops, images, 0)
        counts = np.array([1, 1])
        self.run = BankRun(TRAINING, 0, self.models, counts, CPU, Workers(), 0)
        self._train, self._val = InMemory(images, STEPS), InMemory(images, VAL_STEPS)

    def __call__(self) -> None:
        """Do one."""
        self.run.epoch = 0
        self.run.train_epoch(self._train)
        self.run.validate(self._val)


class Limit:
    """The same work without anything that holds it together: the trunk's passes, and the steps of each head."""

    def __init__(self, epochs: Epochs, images: ImageConfig) -> None:
        """Take the layers of a pack."""
        self._models = list(epochs.models.values())
        self._trunk = self._models[0].trunk
        self._optimisers = [loop.optimiser(TRAINING.stages[0], model.top, self._trunk) for model in self._models]
        (self._batch,) = InMemory(images, 1).epoch(0)
        self._features = self._passed(augment=False)

    def _passed(self, *, augment: bool) -> torch.Tensor:
        images = (
            loop.augmented(self._batch, TRAINING.augment, 0, 0, 0, CPU) if augment else loop.unchanged(self._batch, CPU)
        )
        with torch.no_grad(), devices.autocast(CPU, TRAINING.precision):
            features: torch.Tensor = self._trunk(images)
        return features

    def trunk(self) -> None:
        """Pass the trunk as often as an epoch does."""
        for step in range(STEPS + VAL_STEPS):
            self._passed(augment=step < STEPS)

    def head(self, number: int) -> None:
        """Step one head as often as an epoch does."""
        model, optimiser = self._models[number], self._optimisers[number]
        model.top.train()
        for _ in range(STEPS):
            optimiser.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(self._logits(model).float(), self._batch.labels)
            torch.autograd.backward(loss)
            optimiser.step()
        model.top.eval()
        with torch.no_grad():
            for _ in range(VAL_STEPS):
                self._logits(model)

    def _logits(self, model: WholeImageClassifier) -> torch.Tensor:
        with devices.autocast(CPU, TRAINING.precision):
            logits: torch.Tensor = model.top(self._features)
        return logits


def packed(images: ImageConfig) -> None:
    """Compare packs with their candidates alone, and with the limit."""
    distributed.keep_freed_memory()
    together, alone, least = 0.0, 0.0, 0.0
    for backbone, tops in PACKS.items():
        pack = Epochs(backbone, tops, images)
        singles = [Epochs(backbone, [top], images) for top in tops]
        limit = Limit(pack, images)
        pack()
        rounds = []
        for _ in range(ROUNDS):
            heads = sum(seconds(partial(limit.head, number)) for number in range(len(tops)))
            rounds.append((seconds(pack), sum(map(seconds, singles)), seconds(limit.trunk), heads))
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        about = dict(zip(("packed_s", "alone_s", "trunk_s", "heads_s"), (round(m, 2) for m in medians), strict=True))
        show(f"packed_speedup_{backbone}", medians[1] / medians[0], "ratio", "-", "six candidates one by one", **about)
        together, alone, least = together + medians[0], alone + medians[1], least + medians[2] + medians[3]
    size = f"{images.height}x{images.width}"
    show("packed_speedup_12", alone / together, "ratio", ">= 3.5", f"12 candidates one by one, {size}")
    show("packed_vs_limit", least / together, "ratio", ">= 0.9", f"trunk + sum of the heads, each timed alone, {size}")


def one_epoch(backbone: str, tops: Sequence[str], images: ImageConfig) -> tuple[float, float]:
    """Return the seconds of a step of a pack, validation's among them, and the memory that the pack took [GiB]."""
    before = most_memory()
    distributed.keep_freed_memory()
    pack = Epochs(backbone, tops, images)
    pack()
    took = seconds(pack)
    return took / (STEPS + VAL_STEPS), most_memory() - before


def memory(images: ImageConfig) -> None:
    """Measure memory and time of packs of growing size, and the estimate that packs are cut by."""
    shape = Shape(height=images.height, width=images.width, rows=BATCH, precision=TRAINING.precision, host=True)
    ground = classifiers.ground("resnet50", images, SIDE, len(CLASSES))
    trunk = cost.of_trunk("resnet50", images.height, images.width, shape.dtype)
    found = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for number in (1, 2, 4, 6, len(MORE)):
            took, gib = found[number] = pool.apply(one_epoch, ("resnet50", MORE[:number], images))
            tops = [cost.of_top(parse(top), ground, shape.dtype) for top in MORE[:number]]
            estimate = cost.pack_memory(shape, trunk, tops, ground.channels * int(np.prod(ground.features)))
            about = {"gib": round(gib, 2), "estimated_gib": round(estimate / 2**30, 2)}
            show(f"step_of_{number}", took, "s", "-", "a step of stage 1 on Resnet50", **about)
        _, alone = pool.apply(one_epoch, ("vgg16", PACKS["vgg16"][:1], images))
        _, six = pool.apply(one_epoch, ("vgg16", PACKS["vgg16"], images))
    show("packed_memory_resnet50", found[6][1] / found[1][1], "ratio", "-", "memory of the first candidate alone")
    show("packed_memory_vgg16", six / alone, "ratio", "-", "memory of the first candidate alone")
    growth = [(b[1][0] - a[1][0]) / (b[0] - a[0]) for a, b in pairwise(sorted(found.items()))]
    show("step_growth", statistics.median(growth) / found[1][0], "ratio", "-", "a step of one; for each more in a pack")


def tracking(images: ImageConfig) -> None:
    """Measure what writing the runs of a pack takes of an epoch of the paper's number of images."""
    distributed.keep_freed_memory()
    pack = Epochs("resnet50", PACKS["resnet50"], images)
    pack()
    epoch = seconds(pack) / STEPS * PAPER_IMAGES / BATCH
    figures = dict.fromkeys(("loss", "val_loss", "val_auc", "lr", "images_per_s", "data_wait", "seconds"), 0.5)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker.open(Lake(folder), "bench")
        runs = [tracker.start(f"run{n}", params={}, tags={}) for n in range(len(pack.models))]
        calls = [seconds(partial(tracker.log, run, figures, step=step)) for step in range(50) for run in runs]
    each = statistics.median(calls)
    about = {"seconds_a_call": round(each, 4), "epoch_s": round(epoch)}
    against = f"an epoch of {PAPER_IMAGES} images of {images.height}x{images.width}, six on Resnet50"
    show("tracking_overhead", each * len(runs) / epoch, "share", "<= 0.01", against, **about)


PARTS = {"packed": packed, "memory": memory, "tracking": tracking}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "search", []], default=[])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--lake")
    words = parser.parse_args()
    images = ImageConfig() if words.full else ImageConfig(height=576, width=448)
    for part in words.parts or [*PARTS, "search"]:
        if part in PARTS:
            PARTS[part](images)
        else:
            search_share.measure(words.lake)


if __name__ == "__main__":
    main()
