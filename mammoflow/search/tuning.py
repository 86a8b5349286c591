"""Search the top layers: packs of candidates on a shared frozen trunk, then the survivors end to end.

Stage 1: training runs of one trunk each train a pack of its candidates at once on one forward pass of the frozen trunk.
Stage 2: the survivors (by default the best of each kind) train on, all layers, one run each. Both are Ray Tune
trials; every epoch of every candidate streams to this process, which logs one MLflow run each under one parent.

K candidate heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mammoflow import lake as lakes
from mammoflow.cluster import telemetry
from mammoflow.config import Config
from mammoflow.errors import ConfigError, LakeError
from mammoflow.facts.stages import SearchFacts, TrunkFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.models import backbones, model_files, top_layers, weights
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE
from mammoflow.search import capacity
from mammoflow.search.bank_job import BankJob
from mammoflow.search.budget import Budget
from mammoflow.search.candidates import Candidate, run_ground
from mammoflow.search.progress import SearchProgress
from mammoflow.search.record import SearchRecord
from mammoflow.search.run import SearchRun
from mammoflow.tracking import SEARCHES, Tracker
from mammoflow.training import inputs


def search(
    config: Config,
    lake: Lake,
    images: Artefact,
    trunks: Mapping[str, Artefact],
    out: Artefact,
    starts: Mapping[str, str] | None = None,
) -> SearchFacts:
    """Train every candidate of the config through stage 1 and the survivors through stage 2.

    Args:
        config: the run's config; each trunk's `top_layers` are its candidates, and `search` says who is drawn beside
            them, who goes on and when it ends.
        lake: where MLflow's local database lies.
        images: what is trained and validated on; the test split is never read.
        trunks: backbone -> artefact of its patch classifier.
        out: artefact to write: a folder for each candidate. Candidates that it holds already are not trained again.
        starts: candidate name -> folder of a whole-image classifier of other data, to go on from; then there are no
            trunks.

    Raises:
        SplitError, ConfigError: images that can't be trained on (inputs.py); before anything is.
        SpecError: top layers that can't be read or don't fit; before anything is trained.
        TrainingError: a run failed; the others' results are kept.
    """
    jobs = _continued(config, images, starts, out) if starts else trunk_jobs(config, images, trunks, out)
    inputs.check_images(images, config.compute)
    budget = Budget(out, config.search.max_hours)
    jobs = [replace(job, deadline=budget.deadline) for job in jobs]
    tracker = Tracker.open(lake, SEARCHES)
    trunk_runs = {name: trunk.facts(TrunkFacts).run_id for name, trunk in trunks.items()}
    record = SearchRecord(tracker, config, jobs, trunk_runs)
    epochs = sum(stage.epochs for stage in config.image_training.stages)
    with (
        tracker.closing(record.runs.values()),
        SearchProgress(epochs, capacity.runs_at_a_time(config.compute), heard=telemetry.states) as progress,
    ):
        return SearchRun(config, jobs, record, progress, budget).run()


def trunk_jobs(config: Config, images: Artefact, trunks: Mapping[str, Artefact], out: Artefact) -> list[BankJob]:
    """Return the stage-1 job of each trunk, with all its candidates."""
    candidates = plan(config)
    own = {t.backbone: [c for c in candidates if c.backbone == t.backbone] for t in config.trunks}
    return [
        _job(config, images, backbones.slug(name), name, candidates, trunks[name].file("best"), out)
        for name, candidates in own.items()
    ]


def _continued(config: Config, images: Artefact, starts: Mapping[str, str], out: Artefact) -> list[BankJob]:
    """Return the stage-1 job of each whole-image classifier that goes on; each has a trunk of its own."""
    jobs = []
    for name, folder in starts.items():
        spec = model_files.read_spec(lakes.read_bytes(lakes.join(folder, SPEC_FILE)))
        if not isinstance(spec, ImageSpec):
            raise LakeError(f"{folder} holds a patch classifier, but a whole-image classifier is to go on from there")
        jobs.append(_job(config, images, name, spec.backbone, [Candidate.continued(name, spec)], folder, out))
    return jobs


def _job(
    config: Config,
    images: Artefact,
    name: str,
    backbone: str,
    candidates: Sequence[Candidate],
    start: str,
    out: Artefact,
) -> BankJob:
    return BankJob(
        name=f"{name}-stage1",
        backbone=backbone,
        stage=0,
        candidates=tuple(candidates),
        training=config.image_training,
        images_config=config.images,
        images=images,
        start=start,
        out=out,
        seed=config.seed,
    )


def plan(config: Config) -> list[Candidate]:
    """Return the candidates that a config names, after checking that trunks know their weights and all sizes fit.

    Of more than `search.max_trials` the first ones are returned.

    Raises:
        ConfigError: unknown backbone or weights, patches too small for a trunk, or the same candidate twice.
        SpecError: top layers that can't be read or shrink the map below 1x1.
        TrainingError: a file of weights that can't be read or does not fit.
    """
    candidates = []
    for trunk in config.trunks:
        weights.check(backbones.find(trunk.backbone), trunk.weights)
        ground = run_ground(config, trunk.backbone)
        for written in trunk.top_layers:
            candidate = Candidate.of(trunk.backbone, written)
            top_layers.map_sizes(candidate.top_layers, ground)
            candidates.append(candidate)
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"candidates {twice} stand twice in `top_layers`; name each once")
    return candidates[: config.search.max_trials]
