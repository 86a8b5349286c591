"""Many training jobs at once: Ray Tune places them, every epoch of each streams to the driver.

Each job is one trial. Where `compute.workers` is 1, the trial's own process is the worker and holds its CPUs and GPU:
a Ray Train run beside it would start seven more processes, which takes longer than many an epoch; the next trial takes
its process over. Where it is more, the trial asks for no CPU and runs a Ray Train run (distributed.fit), whose workers
hold the CPUs and GPUs. Either way figures of each epoch come back through Tune, so one process writes MLflow.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from mammoflow import lake
from mammoflow.cluster import interrupts, nodes, telemetry
from mammoflow.config import ComputeConfig
from mammoflow.errors import DeviceMemoryError, MammoflowError, ModelError, TrainingError
from mammoflow.facts.training import EpochFigures
from mammoflow.lake import stores
from mammoflow.tracking import Tracker
from mammoflow.training import distributed
from mammoflow.training.loop import Figures

_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""A trial that drives workers takes no CPU from them and stays on the head node, which is never a spot machine."""

_REFUSED, _MODEL, _MEMORY = "refused", "model", "memory"
"""What a trial reports instead of an epoch where its input or its loss stops it for good; beside it, which of the job's
models is the cause (empty: none is), and whether it is that the device's memory is too small."""

OnEpoch = Callable[[str, Figures], None]
"""Takes a job's name and the epoch of each of its models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a job can't go on: another try would end the same way."""

    reason: str
    model: str
    """The model that is the cause; empty where none is. Without it the job can be run again."""
    memory: bool
    """The job does not fit in the device's memory."""


AnyJob = distributed.Job[Any]
OnEnd = Callable[[Any, Refusal | None], Sequence[AnyJob]]


class _Stream(tune.Callback):
    """Hands every epoch of every trial to a function of the driver process."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        """Keep the function."""
        self._on_epoch = on_epoch

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing where Tune writes down what it would need to go on: this process alone is told."""
        return {}

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 - Tune calls by keyword
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Pass on the figures of one epoch."""
        interrupts.check_terminated()
        if figures := distributed.from_metrics(result):
            telemetry.of_epoch(trial.config["job"].name, figures)
            self._on_epoch(trial.config["job"].name, figures)


class _Queue(Searcher):
    """Hands out jobs one by one, and takes in those that follow from one that has ended."""

    def __init__(self, jobs: Sequence[AnyJob], on_end: OnEnd | None, over: Callable[[], bool]) -> None:
        """Begin with these jobs."""
        super().__init__()
        self.begun: list[AnyJob] = []
        """In the order of their trials."""
        self.failed: dict[str, str] = {}
        self._waiting, self._running = deque(jobs), dict[str, AnyJob]()
        self._on_end, self._over = on_end, over

    def suggest(self, trial_id: str) -> Any:
        """Return the next job; None while running jobs may lead to more; `FINISHED` after the last."""
        if self._waiting and not self._over():
            job = self._waiting.popleft()
            self._running[trial_id] = job
            self.begun.append(job)
            return {"job": job}
        return None if self._running else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ask what follows from a job."""
        job = self._running.pop(trial_id)
        telemetry.over(job.name)
        said = result or {}
        refusal = None
        if _REFUSED in said:
            refusal = Refusal(reason=said[_REFUSED], model=said[_MODEL], memory=said[_MEMORY])
        if error:
            return
        if refusal and not (self._on_end and (refusal.model or refusal.memory)):
            self.failed[job.name] = refusal.reason
        elif self._on_end:
            self._waiting.extend(self._on_end(job, refusal))

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing, as in `save`."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: what is left to do follows from the lake."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def _never() -> bool:
    return False


def run(
    jobs: Sequence[AnyJob],
    compute: ComputeConfig,
    on_epoch: OnEpoch,
    on_end: OnEnd | None = None,
    over: Callable[[], bool] = _never,
) -> None:
    """Train jobs, as many at a time as the cluster and `compute.concurrent_trials` allow.

    Args:
        jobs: what to train; each writes its own results to the lake.
        compute: resources of each.
        on_epoch: called in this process after every epoch of every job.
        on_end: called in this process with each job that ended, and with why where one of its models or the device's
            memory ended it; returns the jobs that follow. Without it none do, and such an end is a failure.
        over: asked before each job; once true, no more begin.

    Raises:
        TrainingError: a job failed; names it and the cause. The others' results are kept.
    """
    if not jobs:
        return
    queue = _Queue(jobs, on_end, over)
    filesystem, path = stores.filesystem(lake.join(jobs[0].folder, "tune"))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_trial, compute=compute),
            nodes.of_worker(compute) if compute.workers == 1 else _DRIVER,
        ),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            num_samples=-1,
            max_concurrent_trials=compute.concurrent_trials,
            trial_dirname_creator=_folder,
            reuse_actors=compute.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=compute.forgiven_failures if compute.workers == 1 else 0),
            callbacks=[_Stream(on_epoch)],
            verbose=0,
        ),
    )
    results = tuner.fit()
    errors = {job.name: results[number].error for number, job in enumerate(queue.begun)}
    failed = {name: str(error) for name, error in errors.items() if error is not None} | queue.failed
    if failed:
        causes = "; ".join(f"{name}: {cause.strip().splitlines()[-1]}" for name, cause in failed.items())
        raise TrainingError(
            f"{len(failed)} of {len(queue.begun)} training runs failed ({causes}); "
            "the same command goes on from their last epoch"
        )


def _folder(trial: Any) -> str:
    return str(trial.trial_id)


def _trial(settings: dict[str, Any], compute: ComputeConfig) -> None:
    """Train one job; runs in a process of its own."""
    job = settings["job"]
    try:
        if compute.workers == 1:
            distributed.train(job, compute, lambda figures: tune.report(distributed.to_metrics(figures)))
        else:
            distributed.fit(job, compute, [TuneReportCallback()])
    except MammoflowError as error:  # another try would end the same way
        model = error.model if isinstance(error, ModelError) else ""
        tune.report({_REFUSED: str(error), _MODEL: model, _MEMORY: isinstance(error, DeviceMemoryError)})


def log_missed(tracker: Tracker, run_id: str, history: Sequence[EpochFigures]) -> None:
    """Log the epochs of a history that a driver missed while it, or the node that trained, was down."""
    logged = tracker.steps(run_id, "loss")
    for row in history:
        if row.epoch not in logged:
            tracker.log(run_id, row.metrics(), step=row.epoch)
