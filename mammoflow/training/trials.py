"""Many training jobs at once: Ray Tune places them, every epoch of each streams to the driver.

Each job is one trial. Where `compute.workers` is 1, the trial's own process is the worker and holds its CPUs and GPU:
a Ray Train run beside it would start seven more processes, which takes longer than many an epoch. Where it is more,
the trial asks for no CPU and runs a Ray Train run (distributed.fit), whose workers hold the CPUs and GPUs. Either way
figures of each epoch come back through Tune, so one process writes MLflow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from mammoflow import cli, lake
from mammoflow.config import ComputeConfig
from mammoflow.errors import MammoflowError, ModelError, TrainingError
from mammoflow.training import distributed

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""A trial that drives workers takes no CPU from them and stays on the head node, which is never a spot machine."""

_REFUSED = "refused"
"""What a trial reports instead of an epoch where its input or its loss stops it for good."""

_MODEL = "model"
"""Beside it, which of the job's models is the cause; empty where none is."""

OnEpoch = Callable[[str, dict[str, Any]], None]

FIGURES = (
    *("loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc", "lr"),
    *("images_per_s", "data_wait", "seconds", "memory_gib"),
)
"""What an epoch says of itself; Tune adds its own to it."""


class _Stream(tune.Callback):
    """Hands every epoch of every trial to a function of the driver process."""

    def __init__(self, jobs: Sequence[distributed.Job[Any]], on_epoch: OnEpoch) -> None:
        """Keep the jobs by number, as trials carry them."""
        self._jobs = jobs
        self._on_epoch = on_epoch

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 - Tune calls by keyword
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Pass on the figures of one epoch."""
        cli.check_terminated()
        if "epoch" in result:
            self._on_epoch(self._jobs[trial.config["job"]].name, result)


def run(jobs: Sequence[distributed.Job[Any]], compute: ComputeConfig, on_epoch: OnEpoch) -> dict[str, str]:
    """Train all jobs, as many at a time as the cluster and `compute.concurrent_trials` allow.

    Args:
        jobs: what to train; each writes its own results to the lake.
        compute: resources of each.
        on_epoch: called in this process as `on_epoch(job name, figures)` after every epoch of every job.

    Returns:
        Model -> why it can't go on, of the jobs that one of their models ended; without it, the job can be run again.

    Raises:
        TrainingError: a job failed otherwise; names it and the cause. The others' results are kept.
    """
    if not jobs:
        return {}

    filesystem, path = lake.filesystem(lake.join(jobs[0].folder, "tune"))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_trial, jobs=jobs, compute=compute),
            distributed.resources(compute) if compute.workers == 1 else _DRIVER,
        ),
        param_space={"job": tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=compute.concurrent_trials),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=compute.forgiven_failures if compute.workers == 1 else 0),
            callbacks=[_Stream(jobs, on_epoch)],
            verbose=0,
        ),
    )
    results = tuner.fit()
    failed, lost = {}, {}
    for number, job in enumerate(jobs):
        metrics = results[number].metrics or {}
        said = metrics.get(_REFUSED)
        if said and metrics.get(_MODEL):
            lost[metrics[_MODEL]] = said
        elif results[number].error is not None or said:
            failed[job.name] = said or str(results[number].error)
    if failed:
        causes = "; ".join(f"{name}: {cause.strip().splitlines()[-1]}" for name, cause in failed.items())
        raise TrainingError(
            f"{len(failed)} of {len(jobs)} training runs failed ({causes}); "
            "the same command goes on from their last epoch"
        )
    return lost


def _trial(settings: dict[str, Any], jobs: Sequence[distributed.Job[Any]], compute: ComputeConfig) -> None:
    """Train one job; runs in a process of its own."""
    job = jobs[settings["job"]]
    try:
        if compute.workers == 1:
            distributed.train(job, compute, tune.report)
        else:
            distributed.fit(job, compute, [TuneReportCallback()])
    except MammoflowError as error:  # another try would end the same way
        tune.report({_REFUSED: str(error), _MODEL: error.model if isinstance(error, ModelError) else ""})


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers of an epoch that MLflow draws: no text, no nested figures, nothing of Tune's own."""
    return {name: float(figures[name]) for name in FIGURES if isinstance(figures.get(name), int | float)}
