"""Training runs on a real cluster: alone and on two Ray Train workers, killed and continued from the lake."""

import os
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import ray
from made_lake import BACKBONE, SIDE, make
from ray import cloudpickle

from mammoflow import lake
from mammoflow.config import ComputeConfig, PatchTrainingConfig, StageConfig
from mammoflow.errors import TrainingError
from mammoflow.lake import Lake
from mammoflow.models.classifiers import PatchSpec
from mammoflow.training import distributed, history, trials
from mammoflow.training.trunks import PatchJob

EPOCHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Mortal(PatchJob):
    """A job whose process is killed once, in the middle of its second epoch."""

    def open(self, workers, device):
        run, training, validation = PatchJob.open(self, workers, device)
        dead = Path(self.out.file("dead"))
        validate = run.validate

        def die_once(batches):
            if run.epoch == 2 and workers.rank == 0 and not dead.exists():
                dead.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return validate(batches)

        run.validate = die_once
        return run, training, validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(PatchJob):
    """A job that ends with an error after its first epoch, as often as it is tried."""

    def open(self, workers, device):
        run, training, validation = PatchJob.open(self, workers, device)
        lake.write_json(self.out.file("tries", f"{time.time_ns()}.json"), {})
        train_epoch = run.train_epoch

        def fail(batches):
            if run.epoch == 1:
                raise TrainingError("the disk is on fire")
            return train_epoch(batches)

        run.train_epoch = fail
        return run, training, validation


@pytest.fixture(scope="module")
def made(tmp_path_factory, ray_cluster):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test's module
    return make(tmp_path_factory.mktemp("distributed"))


@pytest.fixture
def job(made, tmp_path):
    training = PatchTrainingConfig(
        stages=(StageConfig(trained="all", lr=1e-3, epochs=EPOCHS),), batch=8, precision="fp32"
    )
    spec = PatchSpec(
        precision="fp32",
        backbone=BACKBONE,
        classes=made.config.patches.classes,
        mean_grey=60.0,
        side=SIDE,
        weights=None,
    )
    out = Lake(str(tmp_path)).artefact("trunks", "one")
    return PatchJob(
        name="one", spec=spec, training=training, patches=made.patches, trained_on=made.patches, out=out, seed=0
    )


def changed(kind, job, name):
    """Return the job as another kind, under another name and in a folder of its own."""
    out = replace(job.out, name=name, url=f"{job.out.url}-{name}")
    return kind(**{field.name: getattr(job, field.name) for field in fields(job)} | {"name": name, "out": out})


def run(jobs, compute):
    """Train the jobs and return the figures of each in the order in which they came."""
    seen = defaultdict(list)
    trials.run(jobs, compute, lambda name, figures: seen[name].extend(figures.values()))
    return seen


def losses(epochs):
    return [(row.epoch, row.loss, row.val_loss) for row in epochs]


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(job):
    mortal = changed(Mortal, job, "mortal")
    seen = run([job, mortal], ComputeConfig(forgiven_failures=1))
    assert Path(mortal.out.file("dead")).exists()
    assert [row.epoch for row in seen["one"]] == [row.epoch for row in seen["mortal"]] == [1, 2, 3]
    assert losses(seen["mortal"]) == losses(seen["one"])
    assert losses(history.read(mortal.out.file("history.json"))) == losses(seen["one"])
    weights = [lake.read_bytes(each.out.file("best", "model.safetensors")) for each in (job, mortal)]
    assert weights[0] == weights[1]


def test_a_run_that_fails_is_named_and_the_others_are_kept(job):
    stopped = changed(Stopped, job, "stopped")
    with pytest.raises(TrainingError, match=r"1 of 2 training runs failed .stopped: .*the disk is on fire"):
        run([stopped, job], ComputeConfig(forgiven_failures=3))
    assert len(lake.list_files(stopped.out.file("tries"))) == 1, "another try would end the same way"
    assert len(history.read(job.out.file("history.json"))) == EPOCHS


def test_two_workers_go_on_where_one_stopped(job):
    stopped = changed(Stopped, job, "stopped")
    seen = []
    with pytest.raises(TrainingError, match="on fire"):
        distributed.train(stopped, ComputeConfig(), seen.append)
    both = replace(changed(PatchJob, job, "both"), out=stopped.out)
    rest = run([both], ComputeConfig(workers=2))["both"]
    assert [row.epoch for row in rest] == [2, 3]
    alone = []
    distributed.train(job, ComputeConfig(), lambda figures: alone.extend(figures.values()))
    both_epochs = history.read(both.out.file("history.json"))
    assert [row.epoch for row in both_epochs] == [1, 2, 3]
    assert [row.loss for row in both_epochs] == pytest.approx([row.loss for row in alone], rel=0.2)


def test_fewer_workers_than_wanted_are_enough_where_so_many_are_allowed(job):
    """The cluster has room for one of two workers of this size: the run starts with one."""
    cpus = int(ray.cluster_resources()["CPU"])
    compute = ComputeConfig(workers=2, least_workers=1, cpus_per_worker=cpus)
    assert [row.epoch for row in run([job], compute)["one"]] == [1, 2, 3]
    alone = []
    alone_compute = ComputeConfig(cpus_per_worker=cpus)
    distributed.train(changed(PatchJob, job, "alone"), alone_compute, lambda figures: alone.extend(figures.values()))
    assert losses(history.read(job.out.file("history.json"))) == losses(alone)
