"""What a worker of this cluster can hold, how fast it is, and how many candidates fit in a pack. Imports Ray."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import ray
import torch

from mammoflow.cluster import nodes
from mammoflow.config import ComputeConfig, Config
from mammoflow.data.batches import CACHE_BYTES
from mammoflow.errors import PreflightError
from mammoflow.models import devices
from mammoflow.models.backbones import Trunk, find, seeded
from mammoflow.search.candidates import Candidate, run_ground
from mammoflow.training import cost
from mammoflow.training.cost import Cost, Shape

_FILLED = 0.85
"""Share of the memory that a pack's estimate may fill."""
_PROCESS = 9 * 2**30 // 10
"""Bytes of the host's memory that a worker's process takes before it trains: torch, Ray, MLflow."""
_MOST_STEPS, _LONG_ENOUGH = 5, 2.0
"""Of a trunk that is timed: steps, and seconds after which two of them will do."""
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One training worker."""

    memory: int
    """It has for what is trained [bytes]: of its GPU, or of the host's its share."""
    flops: Mapping[str, float] = field(default_factory=dict)
    """It does in a second in training a trunk, by backbone; of those that were asked for [FLOP/s]."""


def worker(config: Config, images: Mapping[str, int], timed: Sequence[str] = ()) -> Worker:
    """Ask the cluster what a worker has, and a Ray task with a worker's resources where there is none yet or more
    matters than memory: speed, a GPU.

    Args:
        config: of the run.
        images: number of each split, which a worker without GPU holds beside what it trains, up to a limit.
        timed: backbones to measure its speed with, by some steps each.
    """
    compute, shape = config.compute, shape_of(config)
    found = Worker(memory=0)
    asked = nodes.of_worker(compute)
    if timed or compute.gpu or (not _able(compute) and nodes.room(asked)):  # the task calls the first node
        task = ray.remote(_look).options(num_cpus=asked["CPU"], num_gpus=asked.get("GPU", 0), max_retries=0)
        found = ray.get(task.remote(compute, shape, tuple(timed)))
    if compute.gpu:
        return found
    pixels = [shape.height * shape.width * 2 * images.get(split, 0) // compute.workers for split in ("train", "val")]
    held = _PROCESS + sum(min(each, CACHE_BYTES) for each in pixels)
    return Worker(memory=max(0, _host_memory(compute) - held), flops=found.flops)


def _host_memory(compute: ComputeConfig) -> int:
    """Return a worker's share of the memory of the smallest node that has the CPUs for one [bytes].

    Ray knows a container's limit; of one node alone, this one, it is known too what others have taken of it.
    """
    here = psutil.virtual_memory()
    alive = nodes.alive()
    free = here.available if len(alive) == 1 else math.inf
    most = compute.workers * compute.concurrent_trials
    shares = [
        min(each.get("memory", here.total), free) // min(most, each.get("CPU", 1) // compute.cpus_per_worker or 1)
        for each in _able(compute) or alive
    ]
    return int(min(shares))


def _able(compute: ComputeConfig) -> list[Mapping[str, float]]:
    """Return the resources of each node that has the CPUs for a worker."""
    return [each for each in nodes.alive() if each.get("CPU", 0) >= compute.cpus_per_worker]


def _look(compute: ComputeConfig, shape: Shape, timed: Sequence[str]) -> Worker:
    """What `worker` runs there."""
    torch.set_num_threads(compute.cpus_per_worker)
    on_gpu = devices.find(compute.gpu).type == "cuda"
    memory = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    return Worker(memory=memory, flops={backbone: speed(compute, shape, backbone) for backbone in timed})


def speed(compute: ComputeConfig, shape: Shape, backbone: str) -> float:
    """Return the FLOP/s of a trunk's steps here, forwards and backwards; on CPUs of one image."""
    device = devices.find(compute.gpu)
    rows = shape.rows if compute.gpu else 1
    trunk = seeded(0, lambda: Trunk(find(backbone), 0.0, 1.0)).to(device).to(memory_format=torch.channels_last)
    images = torch.rand(rows, 3, shape.height, shape.width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < _MOST_STEPS and sum(seconds) < _LONG_ENOUGH):
        began = time.perf_counter()
        with devices.autocast(device, shape.precision):
            total = trunk(images).sum()
        torch.autograd.backward(total)
        trunk.zero_grad(set_to_none=True)
        total.item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    once = cost.of_trunk(backbone, shape.height, shape.width, shape.dtype).flops
    return 3 * once * rows / min(seconds)


def runs_at_a_time(compute: ComputeConfig) -> int:
    """Return how many training runs go on at once on the cluster, at least 1."""
    return max(1, min(compute.concurrent_trials, nodes.room(nodes.of_worker(compute)) // compute.workers))


def shape_of(config: Config) -> Shape:
    """Return a worker's part of a step of whole-image training."""
    training = config.image_training
    return Shape(
        height=config.images.height,
        width=config.images.width,
        rows=math.ceil(math.ceil(training.batch / config.compute.workers) / training.micro_batches),
        precision=training.precision,
        checkpointing=config.compute.checkpointing,
        judged=math.ceil(training.batch / config.compute.workers),
        host=not config.compute.gpu,
        averaged=config.compute.workers > 1,
    )


def costs(config: Config, candidate: Candidate) -> tuple[Cost, Cost]:
    """Return what a candidate's trunk and top layers cost."""
    shape = shape_of(config)
    trunk = cost.of_trunk(candidate.backbone, shape.height, shape.width, shape.dtype)
    return trunk, cost.of_top(candidate.top_layers, run_ground(config, candidate.backbone), shape.dtype)


def pack_memory(config: Config, candidates: Sequence[Candidate]) -> int:
    """Return the memory that candidates of one trunk take together in stage 1 [bytes]."""
    trunk, _ = costs(config, candidates[0])
    tops = [costs(config, candidate)[1] for candidate in candidates]
    ground = run_ground(config, candidates[0].backbone)
    return cost.pack_memory(shape_of(config), trunk, tops, ground.channels * math.prod(ground.features))


def stage2_memory(config: Config, candidate: Candidate) -> int:
    """Return the memory that a candidate takes in stage 2 [bytes]."""
    return cost.stage2_memory(shape_of(config), *costs(config, candidate))


def epoch_seconds(
    config: Config, candidates: Sequence[Candidate], worker: Worker, images: Mapping[str, int], *, trunk_trained: bool
) -> float:
    """Return how long an epoch takes [s]: arguments as in `epoch_flops`, and a worker timed with the trunk."""
    flops = epoch_flops(config, candidates, images, trunk_trained=trunk_trained)
    return flops / (worker.flops[candidates[0].backbone] * config.compute.workers)


def epoch_flops(
    config: Config, candidates: Sequence[Candidate], images: Mapping[str, int], *, trunk_trained: bool
) -> float:
    """Return the operations of an epoch of candidates of one trunk [FLOP].

    Args:
        config: of the run.
        candidates: that train together.
        images: number of each split.
        trunk_trained: stage 2; then there is a single candidate.
    """
    trunk, _ = costs(config, candidates[0])
    tops = [costs(config, candidate)[1] for candidate in candidates]
    passes = (4 if config.compute.checkpointing else 3) if trunk_trained else 1
    return cost.epoch_flops(trunk, tops, trunk_passes=passes, train=images["train"], val=images["val"])


def most_together(config: Config, candidates: Sequence[Candidate], memory: int) -> int:
    """Return how many candidates of a trunk fit into memory together in stage 1, at least 1.

    Args:
        config: of the run.
        candidates: of one trunk; the largest are assumed.
        memory: of a worker [bytes].
    """
    if len(candidates) < 2:  # also one that goes on from other data, whose top layers are of other patches
        return 1
    largest = sorted(candidates, key=lambda candidate: -pack_memory(config, [candidate]))
    fits = [k for k in range(1, len(largest) + 1) if pack_memory(config, largest[:k]) <= _FILLED * memory]
    return max(fits, default=1)


def check_fits(config: Config, candidate: Candidate, memory: int) -> None:
    """Refuse a candidate that a worker can't hold, alone in stage 1 or in stage 2.

    Raises:
        PreflightError: names what it takes and what there is.
    """
    needed = [pack_memory(config, [candidate]), stage2_memory(config, candidate)]
    if max(needed) > memory:
        stage, remedy = (
            1 + needed.index(max(needed)),
            "more --image-training.micro-batches, a smaller batch, smaller images",
        )
        plain = stage == 2 and not config.compute.checkpointing
        raise PreflightError(
            f"{candidate.name} takes about {max(needed) / _GIB:.1f} GiB in stage {stage}, a worker here has "
            f"{memory / _GIB:.1f}; give {'--compute.checkpointing, ' if plain else ''}{remedy}, "
            "fewer --compute.concurrent-trials on CPUs, or larger GPUs"
        )


def makespan(seconds: Sequence[float], runs: int) -> float:
    """Return how long runs of these durations take, `runs` at a time, each starting in order as one ends."""
    ends = [0.0] * runs
    for each in seconds:
        first = ends.index(min(ends))
        ends[first] += each
    return max(ends)
