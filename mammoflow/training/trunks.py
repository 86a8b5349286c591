"""Train the patch classifier of each trunk: one training run each, one MLflow run each.

The model kept is the one of best validation accuracy. Source: paper, methods.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mammoflow import lake as lakes
from mammoflow.config import Config, PatchTrainingConfig, TrunkConfig
from mammoflow.data.batches import ShardBatches
from mammoflow.facts.stages import TrunkFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.models import backbones, classifiers
from mammoflow.models.model_files import WEIGHTS_FILE
from mammoflow.tracking import WEIGHTS_TAG, Tracker
from mammoflow.training import history, inputs, trials
from mammoflow.training.loop import Figures, Workers
from mammoflow.training.patch_run import STATE_FILE, PatchRun

EXPERIMENT = "patch-classifiers"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchJob:
    """One patch classifier to be trained."""

    name: str
    spec: classifiers.PatchSpec
    training: PatchTrainingConfig
    patches: Artefact
    """What is validated on."""
    trained_on: Artefact
    """The same, or mined patches."""
    out: Artefact
    seed: int
    deadline: float = math.inf

    @property
    def folder(self) -> str:
        """Return where its checkpoint is kept while it runs."""
        return self.out.file("work")

    def open(self, workers: Workers, device: torch.device) -> tuple[PatchRun, ShardBatches, ShardBatches]:
        """Build the run and its batches on one worker."""
        model = classifiers.patch_classifier(self.spec, self.seed)
        run = PatchRun(self.training, model, device, workers, self.seed)
        training, validation = (
            ShardBatches.of_split(
                source,
                split,
                "patch_id",
                self.training.batch,
                self.seed,
                rank=workers.rank,
                world_size=workers.world_size,
            )
            for source, split in ((self.trained_on, "train"), (self.patches, "val"))
        )
        return run, training, validation

    def keep(self, run: PatchRun) -> None:
        """Write the checkpoint over the last one."""
        lakes.write_folder(self.folder, run.state())

    def resume(self) -> dict[str, bytes]:
        """Return the files of the checkpoint."""
        url = lakes.join(self.folder, STATE_FILE)
        return {STATE_FILE: lakes.read_bytes(url)} if lakes.exists(url) else {}

    def close(self, run: PatchRun) -> None:
        """Write the best model and the curves to the lake."""
        lakes.write_folder(self.out.file("best"), run.best_files())
        history.write(self.out.file("history.json"), run.history)


def train(
    config: Config,
    lake: Lake,
    images: Artefact,
    patches: Artefact,
    wanted: Mapping[str, Artefact],
    *,
    mined: Mapping[str, Artefact] | None = None,
) -> dict[str, TrunkFacts]:
    """Train the patch classifiers of the wanted backbones, several at a time where the cluster has room.

    Args:
        config: the run's config.
        lake: where MLflow's local database lies.
        images: whose training mean is subtracted from the input.
        patches: what is trained and validated on.
        wanted: backbone -> artefact to write.
        mined: backbone -> patches to train on instead.

    Returns:
        backbone -> what its training came to.

    Raises:
        SplitError, ConfigError: images or patches that can't be trained on (inputs.py); before anything is.
        TrainingError: a run failed; the others' results are kept.
    """
    inputs.check_images(images, config.compute)
    inputs.check_patches(images, patches, config.patches)
    tracker = Tracker.open(lake, EXPERIMENT)
    mean_grey = inputs.mean_grey(images)
    jobs = [
        _job(config, trunk, patches, wanted[trunk.backbone], mean_grey, (mined or {}).get(trunk.backbone, patches))
        for trunk in config.trunks
        if trunk.backbone in wanted
    ]
    runs: dict[str, str] = {}
    stream = _Stream(tracker, runs)
    with tracker.closing(runs.values()):
        for job in jobs:
            runs[job.name] = _open_run(tracker, config, job)
        trials.run(jobs, config.compute, stream.on_epoch)
        for job in jobs:
            trials.log_missed(tracker, runs[job.name], history.read(job.out.file("history.json")))
    return {job.spec.backbone: _facts(job, runs[job.name]) for job in jobs}


class _Stream:
    """Writes each epoch of each patch classifier to its MLflow run, and one line to the terminal."""

    def __init__(self, tracker: Tracker, runs: Mapping[str, str]) -> None:
        """Start the clock."""
        self._tracker, self._runs = tracker, runs
        self._started = time.monotonic()

    def on_epoch(self, name: str, figures: Figures) -> None:
        """Take an epoch of one job."""
        (row,) = figures.values()
        self._tracker.log(self._runs[name], row.metrics(), step=row.epoch)
        print(
            f"  {name} stage {row.stage} epoch {row.epoch}/{row.epochs}: "
            f"loss {row.loss:.3f}, validation accuracy {row.val_accuracy:.3f}, "
            f"{row.images_per_s:.0f} patches/s, {time.monotonic() - self._started:.0f} s",
            flush=True,
        )


def _job(
    config: Config, trunk: TrunkConfig, patches: Artefact, out: Artefact, mean_grey: float, trained_on: Artefact
) -> PatchJob:
    spec = classifiers.PatchSpec(
        backbone=trunk.backbone,
        classes=config.patches.classes,
        mean_grey=mean_grey,
        side=config.patches.side,
        weights=trunk.weights,
        precision=trunk.training.precision,
    )
    return PatchJob(
        name=backbones.slug(trunk.backbone),
        spec=spec,
        training=trunk.training,
        patches=patches,
        trained_on=trained_on,
        out=out,
        seed=config.seed,
    )


def _open_run(tracker: Tracker, config: Config, job: PatchJob) -> str:
    """Go on with the run of an interrupted try, or open a new one and remember it."""
    params = {
        "recipe": config.name,
        "backbone": job.spec.backbone,
        "seed": config.seed,
        "training": lakes.science(job.training),
    }
    tags = {"stage": job.out.stage, "artefact": job.out.fingerprint, "patches": job.trained_on.fingerprint}
    tags[WEIGHTS_TAG] = job.out.file("best", WEIGHTS_FILE)
    return tracker.reopen(job.out.file("work", "run.json"), job.name, params=params, tags=tags)


def _facts(job: PatchJob, run_id: str) -> TrunkFacts:
    epochs = history.read(job.out.file("history.json"))
    best = max(epochs, key=lambda row: (row.val_accuracy or 0.0, -row.epoch), default=None)
    return TrunkFacts(
        val_accuracy=best.val_accuracy if best else None,
        best_epoch=best.epoch if best else None,
        epochs=len(epochs),
        run_id=run_id,
    )
