"""What a worker of this cluster can hold, how fast it is, and how many candidates fit in a pack. Imports Ray."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import ray
import torch

from mammoflow.config import ComputeConfig, Config
from mammoflow.models import classifiers
from mammoflow.models.backbones import Trunk, find, seeded
from mammoflow.models.top_layers import Ground
from mammoflow.training import cost
from mammoflow.training.candidates import Candidate
from mammoflow.training.cost import Cost, Shape

_FILLED = 0.85
"""Share of the memory that an estimate may fill."""
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One training worker."""

    memory: int
    """It has for itself [bytes]."""
    flops: float
    """It does in a second [FLOP/s], in training the config's first trunk; 0 where it was not asked."""


def worker(config: Config, *, timed: bool) -> Worker:
    """Ask a worker of the cluster what it has, in a Ray task with a worker's resources.

    Of CPUs' memory alone this machine is asked: the others of a cluster are taken to be like it.

    Args:
        config: of the run.
        timed: measure its speed too, by some steps of a trunk.
    """
    compute = config.compute
    shape = shape_of(config)
    if not (timed or compute.gpu):
        return _look(compute, shape, None)
    task = ray.remote(_look).options(num_cpus=compute.cpus_per_worker, num_gpus=1 if compute.gpu else 0, max_retries=0)
    backbone = config.trunks[0].backbone if timed and config.trunks else None
    found: Worker = ray.get(task.remote(compute, shape, backbone))
    return found


def _look(compute: ComputeConfig, shape: Shape, backbone: str | None) -> Worker:
    """What `worker` runs there."""
    torch.set_num_threads(compute.cpus_per_worker)
    if compute.gpu:
        memory = torch.cuda.mem_get_info()[0]
    else:
        here = math.ceil(psutil.cpu_count() / compute.cpus_per_worker)
        memory = psutil.virtual_memory().available // min(compute.workers * compute.concurrent_trials, here)
    return Worker(memory=memory, flops=_speed(compute, shape, backbone) if backbone else 0.0)


def _speed(compute: ComputeConfig, shape: Shape, backbone: str) -> float:
    """Return the FLOP/s of a trunk's steps, forwards and backwards."""
    device = torch.device("cuda" if compute.gpu else "cpu")
    trunk = seeded(0, lambda: Trunk(find(backbone), 0.0, 1.0)).to(device).to(memory_format=torch.channels_last)
    images = torch.rand(shape.rows, 3, shape.height, shape.width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=shape.precision == "bf16"):
            total = trunk(images).sum()
        torch.autograd.backward(total)
        trunk.zero_grad(set_to_none=True)
        float(total)  # waits for the device
        seconds.append(time.perf_counter() - began)
    once = cost.of_trunk(backbone, shape.height, shape.width, shape.dtype).flops
    return 3 * once * shape.rows / min(seconds)


def runs_at_a_time(compute: ComputeConfig) -> int:
    """Return how many training runs go on at once on the cluster as it is now, at least 1."""
    resources = ray.cluster_resources()
    room = resources.get("CPU", 0) // (compute.workers * compute.cpus_per_worker)
    if compute.gpu:
        room = min(room, resources.get("GPU", 0) // compute.workers)
    return max(1, min(compute.concurrent_trials, int(room)))


def shape_of(config: Config) -> Shape:
    """Return a worker's part of a step of whole-image training."""
    training = config.image_training
    return Shape(
        height=config.images.height,
        width=config.images.width,
        rows=math.ceil(math.ceil(training.batch / config.compute.workers) / training.parts),
        precision=training.precision,
        checkpointing=config.compute.checkpointing,
    )


def ground_of(config: Config, backbone: str) -> Ground:
    """Return what top layers stand on in this run."""
    return classifiers.ground(backbone, config.images, config.patches.side, len(config.patches.classes))


def costs(config: Config, candidate: Candidate) -> tuple[Cost, Cost]:
    """Return what a candidate's trunk and top layers cost."""
    shape = shape_of(config)
    trunk = cost.of_trunk(candidate.backbone, shape.height, shape.width, shape.dtype)
    return trunk, cost.of_top(candidate.top_layers, ground_of(config, candidate.backbone), shape.dtype)


def pack_memory(config: Config, candidates: Sequence[Candidate]) -> int:
    """Return the memory that candidates of one trunk take together in stage 1 [bytes]."""
    trunk, _ = costs(config, candidates[0])
    tops = [costs(config, candidate)[1] for candidate in candidates]
    ground = ground_of(config, candidates[0].backbone)
    return cost.pack_memory(shape_of(config), trunk, tops, ground.channels * math.prod(ground.features))


def stage2_memory(config: Config, candidate: Candidate) -> int:
    """Return the memory that a candidate takes in stage 2 [bytes]."""
    return cost.stage2_memory(shape_of(config), *costs(config, candidate))


def epoch_seconds(
    config: Config, candidates: Sequence[Candidate], worker: Worker, images: Mapping[str, int], *, trunk_trained: bool
) -> float:
    """Return how long an epoch of candidates of one trunk takes [s].

    Args:
        config: of the run.
        candidates: that train together.
        worker: one of those that share the work.
        images: number of each split.
        trunk_trained: stage 2; then the candidate is a single one.
    """
    trunk, _ = costs(config, candidates[0])
    tops = [costs(config, candidate)[1] for candidate in candidates]
    flops = cost.epoch_flops(trunk, tops, trunk_trained=trunk_trained, train=images["train"], val=images["val"])
    return flops / (worker.flops * config.compute.workers)


def most_together(config: Config, candidates: Sequence[Candidate], memory: int) -> int:
    """Return how many candidates of a trunk fit into memory together in stage 1, at least 1.

    Args:
        config: of the run.
        candidates: of one trunk; any so many of them fit.
        memory: of a worker [bytes].
    """
    largest = sorted(candidates, key=lambda candidate: -pack_memory(config, [candidate]))
    fits = [k for k in range(1, len(largest) + 1) if pack_memory(config, largest[:k]) <= _FILLED * memory]
    return max(fits, default=1)
