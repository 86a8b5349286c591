"""One training run on the cluster: its epochs, its checkpoints, its resume. Knows nothing of searches or MLflow.

A `Job` says what to train from which artefacts. `train` runs it in the process that calls it, which is all that one
worker needs; `fit` runs it on the workers of a Ray Train run. Heavy bytes go straight from there to the lake: what
comes back is one small record an epoch of each model.

A checkpoint is files in the job's folder of the lake, written each epoch, so a killed process, node or driver costs
at most one epoch: whoever trains the same job next goes on from there, alone or with other workers.
"""

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from mammoflow import lake
from mammoflow.cluster import nodes
from mammoflow.config import ComputeConfig
from mammoflow.data.batches import ShardBatches
from mammoflow.errors import DeviceMemoryError, MammoflowError, ModelError, TrainingError
from mammoflow.facts.training import EpochFigures
from mammoflow.lake import stores
from mammoflow.models import devices
from mammoflow.training.loop import Figures, Run, Workers

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h

_REFUSED = "refused.json"

R = TypeVar("R", bound=Run)


class Job(Protocol[R]):
    """One training run: picklable, and the same on every worker."""

    @property
    def name(self) -> str:
        """Return a name that is unique among jobs that run together."""

    @property
    def folder(self) -> str:
        """Return the folder or URL where Ray keeps what it knows of the run."""

    @property
    def deadline(self) -> float:
        """Return when it is to end after the epoch then under way [s since 1970]; infinite: at its own end."""

    def open(self, workers: Workers, device: torch.device) -> tuple[R, ShardBatches, ShardBatches]:
        """Build the run, its training batches and its validation batches on one worker."""

    def keep(self, run: R) -> None:
        """Write a checkpoint over the last one; called on the first worker after every epoch."""

    def resume(self) -> dict[str, bytes]:
        """Return the files of the last checkpoint, if any; called on every worker."""

    def close(self, run: R) -> None:
        """Write what was trained to the lake; called on the first worker, once, at the end."""


def train(job: Job[Any], compute: ComputeConfig, report: Callable[[Figures], None]) -> None:
    """Train a job to its end in this process, alone, or go on where an earlier try of it left off.

    Args:
        job: what to train; whoever made it removes its folder once all is closed.
        compute: CPUs and GPU of the run.
        report: told of every epoch.

    Raises:
        TrainingError: bad input, or a loss that is not finite.
        DeviceMemoryError: it does not fit in the device's memory.
    """
    workers = Workers(checkpointing=compute.checkpointing, compiled=compute.compile)
    _train(job, compute, workers, devices.find(compute.gpu), report)


def to_metrics(figures: Figures) -> dict[str, Any]:
    """Return an epoch as the plain metrics that Ray carries."""
    return {"models": {name: asdict(row) for name, row in figures.items()}}


def from_metrics(metrics: Mapping[str, Any]) -> Figures:
    """Return the epoch of `to_metrics`; empty where the metrics hold none."""
    return {name: EpochFigures(**row) for name, row in metrics.get("models", {}).items()}


def _report(figures: Figures) -> None:
    """Tell Ray Train of an epoch."""
    ray.train.report(to_metrics(figures))


def fit(job: Job[Any], compute: ComputeConfig, callbacks: list[Any]) -> None:
    """Train a job to its end on several workers, or go on where an earlier try of it left off.

    Args:
        job: what to train; whoever made it removes its folder once all is closed.
        compute: workers, CPUs and GPUs of the run.
        callbacks: told of every epoch in Ray Train's controller process.

    Raises:
        MammoflowError: bad input, or a loss that is not finite.
        ray.train.TrainingFailedError: a worker failed more often than is forgiven.
    """
    lake.remove(lake.join(job.folder, _REFUSED))
    filesystem, path = stores.filesystem(job.folder)
    workers: Any = (compute.least_workers, compute.workers) if compute.least_workers else compute.workers
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "compute": compute},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=compute.gpu, resources_per_worker=nodes.of_worker(compute)
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.forgiven_failures),
            callbacks=callbacks,
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError:
        _raise_refusal(job)
        raise


def _raise_refusal(job: Job[Any]) -> None:
    """Raise what a worker refused to go on with, which Ray hands on as text alone."""
    url = lake.join(job.folder, _REFUSED)
    if lake.exists(url):
        said = lake.read_json(url)
        if said["memory"]:
            raise DeviceMemoryError(said["reason"])
        raise ModelError(said["reason"], said["model"]) if said["model"] else TrainingError(said["reason"])


def _work(settings: dict[str, Any]) -> None:
    """What every Ray Train worker does."""
    context = ray.train.get_context()
    compute: ComputeConfig = settings["compute"]
    workers = Workers(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        wrap=_wrap,
        gather=_gather,
        checkpointing=compute.checkpointing,
        compiled=compute.compile,
        sync_batch_norm=compute.sync_batch_norm,
    )
    job = settings["job"]
    _raise_refusal(job)  # of a try before: this one would end the same way
    try:
        _train(job, compute, workers, get_device(), _report)
    except MammoflowError as error:
        model = error.model if isinstance(error, ModelError) else ""
        about = {"reason": str(error), "model": model, "memory": isinstance(error, DeviceMemoryError)}
        lake.write_json(lake.join(job.folder, _REFUSED), about)
        raise


def _train(
    job: Job[R], compute: ComputeConfig, workers: Workers, device: torch.device, report: Callable[[Figures], None]
) -> None:
    """Run epochs until the schedule or the time ends, with a checkpoint and a report after each."""
    torch.set_num_threads(compute.cpus_per_worker)
    _free_memory(device)
    if device.type == "cpu":
        keep_freed_memory()
    try:
        _epochs(job, workers, device, report)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{job.name} does not fit in the device's memory ({str(error).partition('.')[0]}); give "
            "--compute.checkpointing, more micro-batches, smaller images, or a larger GPU"
        ) from error


def _epochs(job: Job[R], workers: Workers, device: torch.device, report: Callable[[Figures], None]) -> None:
    run, training, validation = job.open(workers, device)
    if files := job.resume():
        run.restore(files)
    over = False
    while run.epoch < run.epochs and not over:
        started = time.perf_counter()
        trained, judged = run.train_epoch(training), run.validate(validation)
        seconds, memory = time.perf_counter() - started, _memory(device)
        figures = {name: row.judged(judged[name], seconds=seconds, memory_gib=memory) for name, row in trained.items()}
        run.record(figures)
        if workers.rank == 0:
            job.keep(run)
        report(figures)
        over = bool(workers.gather(np.array([time.time() >= job.deadline]))[0])  # one clock decides for all
    if workers.rank == 0:
        job.close(run)


def _free_memory(device: torch.device) -> None:
    """Give back what an earlier run of this process left behind, and measure the most memory from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
        with suppress(OSError):  # a sandbox may not have it; then the mark stays that of the process
            Path("/proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, for its next use.

    Else each large activation is memory new from the kernel, which clears it page by page: a third of a step's time
    at 2304x1792 on 2 cores. Only glibc can be told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _memory(device: torch.device) -> float:
    """Return the most memory that this process has used in this run: of its GPU, or of the machine [GiB]."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _wrap(model: torch.nn.Module) -> torch.nn.Module:
    """Wrap a module with trained parameters for gradient averaging."""
    return prepare_model(model, move_to_device=False)


def _gather(values: np.ndarray) -> np.ndarray:
    """Concatenate an array of every worker along the first axis, in rank order, on every worker."""
    pieces: list[Any] = [None] * ray.train.get_context().get_world_size()
    torch.distributed.all_gather_object(pieces, values)
    return np.concatenate(pieces)
