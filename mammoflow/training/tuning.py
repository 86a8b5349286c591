"""Search the top layers: packs of candidates on a shared frozen trunk, then the survivors end to end.

Stage 1: one training run a trunk trains all its candidates at once on one forward pass of the frozen trunk.
Stage 2: the survivors (by default the best of each kind) train on, all layers, one run each. Both are Ray Tune
trials; every epoch of every candidate streams to this process, which logs one MLflow run each under one parent.

K candidate heads.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mammoflow import lake as lakes
from mammoflow.config import Config
from mammoflow.errors import ConfigError, LakeError, TrainingError
from mammoflow.lake import Artefact, Lake
from mammoflow.models import backbones, classifiers, model_files, top_spec, weights
from mammoflow.models.classifiers import ImageSpec
from mammoflow.models.model_files import SPEC_FILE, WEIGHTS_FILE
from mammoflow.tracking import PLACE_TAG, WEIGHTS_TAG, Tracker
from mammoflow.training import inputs, rounds, trials
from mammoflow.training.bank_job import BankJob, Candidate
from mammoflow.training.bank_run import of_candidate
from mammoflow.training.rounds import Leg

EXPERIMENT = "top-layers"


def search(
    config: Config,
    lake: Lake,
    images: Artefact,
    trunks: Mapping[str, Artefact],
    out: Artefact,
    starts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train every candidate of the config through stage 1 and the survivors through stage 2.

    Args:
        config: the run's config; each trunk's `top_layers` are its candidates.
        lake: where MLflow's local database lies.
        images: what is trained and validated on; the test split is never read.
        trunks: backbone -> artefact of its patch classifier.
        out: artefact to write: a folder for each candidate. Candidates that it holds already are not trained again.
        starts: candidate name -> folder of a whole-image classifier of other data, to go on from; then there are no
            trunks.

    Returns:
        {"run_id": parent run, "ranking": one row per candidate, best validation AUC first, "failed": candidate -> why
        it could not go on}.

    Raises:
        SplitError, ConfigError: images that can't be trained on (inputs.py); before anything is.
        SpecError: top layers that can't be read or don't fit; before anything is trained.
        TrainingError: a run failed; the others' results are kept.
    """
    packs = _continued(config, images, starts, out) if starts else _packs(config, images, trunks, out)
    candidates = [candidate for pack in packs for candidate in pack.candidates]
    inputs.check_images(images, config.compute)
    tracker = Tracker.open(lake, EXPERIMENT)
    runs: dict[str, str] = {}
    stream = _Stream(tracker, runs)
    with tracker.closing(runs.values()):
        trunk_runs = {name: str(trunk.summary()["run_id"]) for name, trunk in trunks.items()}
        _open_runs(tracker, config, packs, trunk_runs, runs)
        living = candidates
        dropped: dict[str, int] = {}
        for leg in rounds.legs(config):
            living = before = _leg(config, packs, living, leg, out, stream)
            if leg.rung is not None:
                living = rounds.go_on(living, out, leg.rung, config)
            if leg.stage == 0 and leg.until is None:
                living = rounds.survivors(living, out, config)
            for candidate in before:
                if candidate not in living:
                    dropped[candidate.name] = _epochs(candidate, out)
                    tracker.mark(runs[candidate.name], f"pruned at epoch {dropped[candidate.name]}")
            stream.dropped(len(before) - len(living), len(living), leg)
        for candidate in living:
            tracker.mark(runs[candidate.name], "finished")
    failed = {c.name: lakes.read_json(c.failure(out))["reason"] for c in candidates if lakes.exists(c.failure(out))}
    if len(failed) == len(candidates):
        raise TrainingError(f"every candidate failed, the first so: {next(iter(failed.values()))}")
    ranking = [_row(c, out, runs[c.name], c.name not in dropped) for c in candidates if c.name not in failed]
    ranking.sort(key=lambda row: (-row["val_auc"], row["name"]))
    return {"run_id": runs[""], "ranking": ranking, "failed": failed}


def _leg(
    config: Config, packs: Sequence[BankJob], living: Sequence[Candidate], leg: Leg, out: Artefact, stream: "_Stream"
) -> list[Candidate]:
    """Take all living candidates to the end of a leg, and return those who got there.

    A candidate that can't go on is set aside for good, and the rest of its pack goes on without it.
    """
    while True:
        living = [candidate for candidate in living if not lakes.exists(candidate.failure(out))]
        jobs = rounds.packs(packs, living, leg, config.compute.pack)
        lost = trials.run([job for job in jobs if not job.done], config.compute, stream.on_epoch)
        if not lost:
            return living
        for candidate in living:
            if candidate.name in lost:
                lakes.write_json(candidate.failure(out), {"reason": lost[candidate.name]})
                stream.failed(candidate.name, lost[candidate.name])


def _packs(config: Config, images: Artefact, trunks: Mapping[str, Artefact], out: Artefact) -> list[BankJob]:
    """Return the stage-1 job of each trunk, with all its candidates."""
    candidates = plan(config)
    names = [trunk.backbone for trunk in config.trunks]
    return [
        _pack(
            config,
            images,
            backbones.slug(backbone),
            [c for c in candidates if c.backbone == backbone],
            trunks[backbone].file("best"),
            out,
        )
        for backbone in names
    ]


def _continued(config: Config, images: Artefact, starts: Mapping[str, str], out: Artefact) -> list[BankJob]:
    """Return the stage-1 job of each whole-image classifier that goes on; each has a trunk of its own."""
    packs = []
    for name, folder in starts.items():
        spec = model_files.read_spec(lakes.read_bytes(lakes.join(folder, SPEC_FILE)))
        if not isinstance(spec, ImageSpec):
            raise LakeError(f"{folder} holds a patch classifier, but a whole-image classifier is to go on from there")
        candidate = Candidate(
            name=name,
            backbone=spec.backbone,
            top_layers=spec.top_layers,
            kind=classifiers.candidate_kind(spec.backbone, spec.top_layers),
        )
        packs.append(_pack(config, images, name, [candidate], folder, out))
    return packs


def _pack(
    config: Config, images: Artefact, name: str, candidates: Sequence[Candidate], start: str, out: Artefact
) -> BankJob:
    return BankJob(
        name=f"{name}-stage1",
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
    """Return the candidates of a config, after checking that trunks know their weights and all sizes fit.

    Raises:
        ConfigError: unknown backbone or weights, patches too small for a trunk, or the same candidate twice.
        SpecError: top layers that can't be read or shrink the map below 1x1.
        TrainingError: a file of weights that can't be read or does not fit.
    """
    candidates = []
    for trunk in config.trunks:
        weights.check(backbones.find(trunk.backbone), trunk.weights)
        ground = classifiers.ground(trunk.backbone, config.images, config.patches.side, len(config.patches.classes))
        for spec in trunk.top_layers:
            top_spec.map_sizes(spec, ground.features, ground.kernel)
            candidates.append(Candidate.of(trunk.backbone, spec))
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"candidates {twice} stand twice in `top_layers`; name each once")
    return candidates


def _open_runs(
    tracker: Tracker,
    config: Config,
    packs: Sequence[BankJob],
    trunk_runs: Mapping[str, str],
    runs: dict[str, str],
) -> None:
    """Fill in candidate name -> run id, and the parent's under ""; an interrupted search goes on with its runs."""
    images, out = packs[0].images, packs[0].out
    splits = lakes.fingerprint(lakes.read_bytes(images.file("splits.csv")).hex())
    shared = {"recipe": config.name, "seed": config.seed, "images": images.fingerprint, "splits": splits}
    tags = {"artefact": out.fingerprint, "phantoms": str(config.source is None), PLACE_TAG: out.url}
    training = {"image_training": lakes.science(config.image_training), "search": lakes.science(config.search)}
    record = out.file("work", "runs", "parent.json")
    runs[""] = tracker.reopen(record, config.name, params=shared | training, tags=tags)
    for pack in packs:
        for c in pack.candidates:
            own = {"backbone": c.backbone, "top_layers": c.top_layers, "kind": c.kind}
            record = out.file("work", "runs", f"{c.name}.json")
            named = tags | own | {WEIGHTS_TAG: c.folder(out, "best", WEIGHTS_FILE), "start": pack.start}
            if c.backbone in trunk_runs:
                named["trunk_run"] = trunk_runs[c.backbone]
            runs[c.name] = tracker.reopen(record, c.name, parent=runs[""], params=shared | own, tags=named)
    tracker.close_others(out.url, runs.values())


class _Stream:
    """Writes each epoch of each candidate to its MLflow run, and one line a job to the terminal."""

    def __init__(self, tracker: Tracker, runs: Mapping[str, str]) -> None:
        """Start the clock."""
        self._tracker, self._runs = tracker, runs
        self._started = time.monotonic()

    def dropped(self, number: int, living: int, leg: Leg) -> None:
        """Say how many candidates stop after a leg."""
        if number:
            where = "stage 1" if leg.rung is None else f"epoch {leg.rung}"
            print(f"  after {where}: {living} go on, {number} stop", flush=True)

    def failed(self, name: str, reason: str) -> None:
        """Close the run of a candidate that can't go on, and say why."""
        self._tracker.mark(self._runs[name], f"failed: {reason}", "FAILED")
        print(f"  {reason}; the search goes on without {name}", flush=True)

    def on_epoch(self, job: str, figures: dict[str, Any]) -> None:
        """Take the figures of one epoch: shared ones, and per candidate `loss`, `val_loss`, `val_auc`."""
        for name in figures["val_auc"]:
            self._tracker.log(self._runs[name], trials.numbers(of_candidate(figures, name)), step=int(figures["epoch"]))
        best = max(figures["val_auc"], key=lambda name: float(figures["val_auc"][name]))
        print(
            f"  {job} epoch {figures['epoch']}: {len(figures['val_auc'])} candidate(s), "
            f"best validation AUC {figures['val_auc'][best]:.3f} ({best}), "
            f"{figures['images_per_s']:.0f} images/s, {time.monotonic() - self._started:.0f} s",
            flush=True,
        )


def _epochs(candidate: Candidate, out: Artefact) -> int:
    return int(lakes.read_json(candidate.result(out))["epochs"])


def _row(candidate: Candidate, out: Artefact, run_id: str, survived: bool) -> dict[str, Any]:
    result = lakes.read_json(candidate.result(out))
    return {
        "name": candidate.name,
        "backbone": candidate.backbone,
        "top_layers": candidate.top_layers,
        "kind": candidate.kind,
        "val_auc": result["val_auc"],
        "stage1_val_auc": result["stage1_val_auc"],
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "parameters": result["parameters"],
        "epoch_seconds": result["epoch_seconds"],
        "memory_gib": result["memory_gib"],
        "run_id": run_id,
        "survived": survived,
    }
