"""Ray Train around loop.py: workers, checkpoints, resume. Knows nothing of searches or MLflow.

A `Job` says what to train from which artefacts; `fit` runs it on Ray Train workers. Heavy bytes go straight from
workers to the lake: what comes back is one small dict of figures an epoch. A checkpoint is written each epoch, so a
killed worker, node or driver costs at most one; the same job under the same folder goes on from there.
"""

import tempfile
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from mammoflow import lake
from mammoflow.config import ComputeConfig
from mammoflow.data.batches import ShardBatches
from mammoflow.training.loop import Run, Workers

_HISTORY = "history.json"


R = TypeVar("R", bound=Run)


class Job(Protocol[R]):
    """One training run: picklable, and the same on every worker."""

    @property
    def name(self) -> str:
        """Return a name that is unique among jobs that run together."""

    @property
    def folder(self) -> str:
        """Return the folder or URL where its checkpoints are kept while it runs."""

    def open(self, workers: Workers, device: torch.device) -> tuple[R, ShardBatches, ShardBatches]:
        """Build the run, its training batches and its validation batches on one worker."""

    def close(self, run: R, history: list[dict[str, Any]]) -> None:
        """Write what was trained to the lake; called on the first worker, once, at the end."""


def fit(job: Job[Any], compute: ComputeConfig, callbacks: list[Any]) -> None:
    """Train a job to its end, or go on where an earlier try of it left off.

    Args:
        job: what to train; whoever made it removes its folder once all is closed.
        compute: workers, CPUs and GPUs of the run.
        callbacks: told of every epoch in Ray Train's controller process.

    Raises:
        ray.train.TrainingFailedError: a worker failed more often than is forgiven, or on bad input.
    """
    filesystem, path = lake.filesystem(job.folder)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "threads": compute.cpus_per_worker},
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpu,
            resources_per_worker={"CPU": compute.cpus_per_worker, **({"GPU": 1} if compute.gpu else {})},
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.forgiven_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=callbacks,
        ),
    )
    trainer.fit()


def _work(settings: dict[str, Any]) -> None:
    """What every Ray Train worker does: epochs until the schedule ends, a report and a checkpoint after each."""
    job: Job[Any] = settings["job"]
    torch.set_num_threads(settings["threads"])
    context = ray.train.get_context()
    workers = Workers(rank=context.get_world_rank(), world_size=context.get_world_size(), wrap=_wrap, gather=_gather)
    run, training, validation = job.open(workers, get_device())
    history = _resume(run)
    while run.epoch < run.epochs:
        figures = run.train_epoch(training)
        figures |= run.validate(validation)
        history.append(figures)
        _report(run, history, keep=workers.rank == 0)
    if workers.rank == 0:
        job.close(run, history)


def _resume(run: Run) -> list[dict[str, Any]]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as folder:
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    history = lake.parse_json(files.pop(_HISTORY))
    run.restore(files)
    return list(history)


def _report(run: Run, history: list[dict[str, Any]], *, keep: bool) -> None:
    """Report the last epoch's figures; the first worker adds the checkpoint."""
    if not keep:
        ray.train.report(history[-1])
        return
    with tempfile.TemporaryDirectory(prefix="mammoflow-") as folder:
        for name, data in {**run.state(), _HISTORY: lake.format_json(history)}.items():
            Path(folder, name).write_bytes(data)
        ray.train.report(history[-1], checkpoint=Checkpoint.from_directory(folder))


def _wrap(model: torch.nn.Module) -> torch.nn.Module:
    """Wrap a module with trained parameters for gradient averaging; one worker needs none."""
    if ray.train.get_context().get_world_size() == 1:
        return model
    return prepare_model(model, move_to_device=False)


def _gather(values: np.ndarray) -> np.ndarray:
    """Concatenate an array of every worker along the first axis, in rank order, on every worker."""
    if ray.train.get_context().get_world_size() == 1:
        return values
    pieces: list[Any] = [None] * ray.train.get_context().get_world_size()
    torch.distributed.all_gather_object(pieces, values)
    return np.concatenate(pieces)
