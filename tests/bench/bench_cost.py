"""How far the memory and time that training is estimated to take are from what it takes: packs are cut by the one.

    python tests/bench/bench_cost.py            # four minutes on 2 cores

Every case runs in a process of its own: one epoch of `BankRun` on batches in memory, as training does it, a validation
and a checkpoint too. Measured is the most that the process holds beyond what it held with the libraries loaded. A ratio
above 1 is an estimate on the safe side. Time is that of a second epoch, against the speed of its trunk measured then.
Prints two JSON lines a case, and the extremes.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import psutil
import torch
import whole_images
from bench_classifiers import most_memory, seconds, show

from mammoflow import recipes
from mammoflow.config import CLASSES, ComputeConfig, Config, ImageConfig, ImageTrainingConfig
from mammoflow.data.batches import Batch
from mammoflow.models import classifiers
from mammoflow.models.classifiers import PatchSpec
from mammoflow.search import capacity
from mammoflow.search.bank_run import BankRun
from mammoflow.search.candidates import Candidate
from mammoflow.search.capacity import Worker
from mammoflow.training import distributed
from mammoflow.training.loop import Workers

STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is trained."""

    backbone: str
    tops: tuple[str, ...]
    stage: int = 0
    height: int = 576
    width: int = 448
    batch: int = 2
    precision: Literal["fp32", "bf16"] = "bf16"
    checkpointing: bool = False

    @property
    def config(self) -> Config:
        """Return the run's config."""
        training = ImageTrainingConfig(batch=self.batch, precision=self.precision)
        return replace(
            recipes.cbis_s10(),
            images=ImageConfig(height=self.height, width=self.width),
            image_training=training,
            compute=ComputeConfig(checkpointing=self.checkpointing),
        )

    @property
    def candidates(self) -> list[Candidate]:
        """Return its candidates."""
        return [Candidate.of(self.backbone, top) for top in self.tops]

    def estimate(self) -> float:
        """Return the memory that it should take [GiB]."""
        memory = (
            capacity.stage2_memory(self.config, self.candidates[0])
            if self.stage
            else capacity.pack_memory(self.config, self.candidates)
        )
        return memory / 2**30

    def epoch(self, _epoch: int) -> Iterator[Batch]:
        """Yield batches of noise."""
        rng, labels = np.random.default_rng(0), torch.arange(self.batch) % 2
        for step in range(STEPS):
            yield Batch(
                pixels=torch.from_numpy(rng.integers(0, 65536, (self.batch, self.height, self.width), dtype=np.uint16)),
                labels=labels,
                weights=torch.ones(self.batch),
                ids=[f"{step}/{row}" for row in range(self.batch)],
                step_labels=labels,
            )


def measured(case: Case) -> tuple[float, float, float]:
    """Return the memory that a run takes of a new process [GiB], an epoch's time [s], and its estimate [s]."""
    distributed.keep_freed_memory()
    cpu = torch.device("cpu")
    torch.nn.functional.conv2d(torch.rand(1, 3, 8, 8), torch.rand(3, 3, 3, 3))  # the libraries' own
    before = psutil.Process().memory_info().rss / 2**30
    spec = PatchSpec(precision="fp32", backbone=case.backbone, classes=CLASSES, mean_grey=50.0, side=224, weights=None)
    models = whole_images.candidates(classifiers.patch_classifier(spec, 0), case.tops, case.config.images, 0)
    config, workers = case.config, Workers(checkpointing=case.checkpointing)
    run = BankRun(config.image_training, case.stage, models, np.array([1, 1]), cpu, workers, 0)

    def epoch() -> None:
        run.train_epoch(case)
        run.validate(case)

    epoch()
    run.state()
    gib, taken = most_memory() - before, seconds(epoch)
    flops = capacity.speed(config.compute, capacity.shape_of(config), case.backbone)
    worker = Worker(memory=0, flops={case.backbone: flops})
    images = dict.fromkeys(("train", "val"), STEPS * case.batch)
    estimate = capacity.epoch_seconds(config, case.candidates, worker, images, trunk_trained=case.stage == 1)
    return gib, taken, estimate


RESNET, VGG = recipes.RESNET50_TOP_LAYERS, recipes.VGG16_TOP_LAYERS
SMALL = recipes.demo().trunks[0].top_layers
CASES = (
    *(Case(backbone="resnet50", tops=RESNET[1:5][:k], precision=p) for p in ("bf16", "fp32") for k in (1, 4)),
    *(Case(backbone="vgg16", tops=VGG[:k], precision=p) for p in ("bf16", "fp32") for k in (1, 4)),
    *(
        Case(backbone=b, tops=t[:1], stage=1, precision=p)
        for p in ("bf16", "fp32")
        for b, t in (("resnet50", RESNET), ("vgg16", VGG))
    ),
    *(Case(backbone=b, tops=t[:1], stage=1, checkpointing=True) for b, t in (("resnet50", RESNET), ("vgg16", VGG))),
    Case(backbone="resnet50", tops=RESNET[1:5], height=1152, width=896),
    Case(backbone="resnet50", tops=RESNET[1:2], stage=1, height=1152, width=896),
    Case(backbone="resnet10_narrow", tops=SMALL, height=288, width=224, batch=4),
    Case(backbone="resnet10_narrow", tops=SMALL[:1], stage=1, height=288, width=224, batch=4),
)


def main() -> None:
    """Measure and print."""
    ratios: dict[str, list[float]] = {"memory": [], "time": []}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in CASES:
            gib, taken, estimated_s = pool.apply(measured, (case,))
            about = {"k": len(case.tops), "size": f"{case.height}x{case.width}", "precision": case.precision}
            about |= {"checkpointing": case.checkpointing}
            against = f"measured on CPU, {case.backbone}, stage {case.stage + 1}"
            memory = about | {"gib": round(gib, 3), "estimated_gib": round(case.estimate(), 3)}
            time = about | {"s": round(taken, 2), "estimated_s": round(estimated_s, 2)}
            ratios["memory"].append(case.estimate() / gib)
            ratios["time"].append(estimated_s / taken)
            show("memory_estimate", ratios["memory"][-1], "ratio", "0.7-1.4", against, **memory)
            show("time_estimate", ratios["time"][-1], "ratio", "-", against, **time)
    for what, found in ratios.items():
        show(f"{what}_estimate_least", min(found), "ratio", ">= 0.7", "measured on CPU, all cases")
        show(f"{what}_estimate_most", max(found), "ratio", "<= 1.4", "measured on CPU, all cases")


if __name__ == "__main__":
    main()
