"""Plan and build: which artefacts of a config the lake holds, and the stages that make the others.

Every job names the stage it wants. `ensure` prints a plan, builds what is missing, in order, and returns all artefacts.
"""

import functools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from mammoflow import console, lake, tracking
from mammoflow.cluster import session
from mammoflow.config import Config
from mammoflow.data import releases
from mammoflow.data.ingest import shards
from mammoflow.errors import ConfigError, LakeError, QuarantineError
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Lake, locks
from mammoflow.pipeline import care, dry_run, plan
from mammoflow.pipeline.graph import Artefacts, locate
from mammoflow.pipeline.stages import STAGES, needed_for
from mammoflow.pipeline.stages.stage import Stage
from mammoflow.registry import starting_points
from mammoflow.search import tuning
from mammoflow.training import inputs


def ensure(stage: str, config: Config) -> Artefacts:
    """Build a stage, and first everything that it needs and the lake does not hold.

    Raises:
        ConfigError: the config names something unknown, or asks for too many workers; before anything is written.
        SourceError: the source is not the release that it should be; before anything is written.
        LakeError: an artefact to be reused was made by another version of the lake's layout; before anything is
            written.
        QuarantineError: more images than `compute.max_bad` could not be used; the good ones are kept.
        MammoflowError: any other error of a stage, which names its remedy.
    """
    needed = needed_for(stage)
    artefacts = _open(config, needed)
    if config.compute.retry_quarantined:
        artefacts = _retry(artefacts)
    missing = _missing(artefacts, needed)
    models = any(STAGES[name].runs_models for name in missing)
    session.preflight(config.compute, artefacts.lake, config.source, models=models)
    plan.show(artefacts, needed, missing)
    for name in needed:
        if not all(item.done for item in artefacts.of(name)):
            _build(STAGES[name], artefacts)
        if name == "images":
            _check_quarantine(artefacts)
        if STAGES[name].decides:
            artefacts = locate(artefacts.config, artefacts.lake)
    return artefacts


def preview(config: Config) -> None:
    """Print what a search would build, train and cost. Writes nothing.

    Raises:
        ConfigError, SourceError, LakeError: as in `ensure`.
        PreflightError: this cluster has no room for a candidate.
    """
    needed = needed_for("search")
    artefacts = _open(config, needed)
    plan.show(artefacts, needed, _missing(artefacts, needed))
    session.join(config.compute, artefacts.lake, config.source)
    images = artefacts.images.facts(ImagesFacts).images if artefacts.images.done else None
    dry_run.show(artefacts.config, images, artefacts.starts)


def find(stages: Sequence[str], config: Config) -> Artefacts:
    """Return the artefacts of a config whose `stages` are complete, without building anything or joining a cluster.

    Raises:
        LakeError: a stage has not been run on this lake, or by another version of the lake's layout.
    """
    artefacts = _open(config, stages)
    for stage in stages:
        for item in artefacts.of(stage):
            if not item.done:
                raise LakeError(
                    f"{item.url} is not complete; run jobs/{STAGES[stage].job}.py with the same flags first"
                )
        lake.check_versions(artefacts.of(stage))
    return artefacts


def _open(config: Config, needed: Sequence[str]) -> Artefacts:
    """Print which lake is used, resolve the names in a config, and locate its artefacts.

    A champion to start from is one version from here on, whatever is promoted meanwhile.
    """
    root = Lake(lake.resolve_root(config.lake))
    print(f"mammoflow {config.name}: lake {root.root}", flush=True)
    if config.source is None and config.phantoms.patients == 0:
        raise ConfigError(f"recipe {config.name!r} draws no phantoms; give the release's folder with --source")
    uses = {STAGES[name].start for name in needed}
    start = None
    if config.start and uses - {"not read"}:
        if uses & {"recalibrated", "trained on"}:  # what registers a model
            starting_points.check_name(config)
        start = starting_points.find(config, root).name
    trunks = () if start else config.trunks
    weights = (tracking.weights_of(root, trunk.weights) for trunk in trunks)
    trunks = tuple(replace(trunk, weights=file) for trunk, file in zip(trunks, weights, strict=True))
    dataset = releases.resolve(config.dataset, config.source, config.phantoms.layout)
    config = replace(config, dataset=dataset, start=start, trunks=trunks)
    tuning.plan(config)
    artefacts = locate(config, root)
    if uses & {"scored", "recalibrated"}:  # members that are used unchanged
        starting_points.check_images(artefacts.begun[1], config)
    return artefacts


def _retry(artefacts: Artefacts) -> Artefacts:
    """Reopen the shards of images that have rows in quarantine, and locate the artefacts again."""
    images = artefacts.images
    lake.check_versions([images])
    with locks.hold(images.url, _say):
        again = shards.reopen(images)
    print(
        f"  {again} shard(s) of {images.url} held images or outlines in quarantine: they are decoded again", flush=True
    )
    return locate(artefacts.config, artefacts.lake)


_say = functools.partial(print, flush=True)


def _missing(artefacts: Artefacts, needed: Sequence[str]) -> list[str]:
    """Return the stages that must be built; fail early where that can't succeed."""
    missing = [name for name in needed if not all(item.done for item in artefacts.of(name))]
    lake.check_versions(item for name in needed for item in artefacts.of(name))
    inputs.check_workers(artefacts.config, missing)
    return missing


def _build(stage: Stage, artefacts: Artefacts) -> None:
    """Run one stage, alone in its artefacts' folders, and mark these complete."""
    missing = sorted((item for item in artefacts.of(stage.name) if not item.done), key=lambda item: item.url)
    print(f"{stage.name}:", flush=True)
    with ExitStack() as held:
        for item in missing:  # in one order, so that no two jobs wait for each other
            held.enter_context(locks.hold(item.url, _say))
        if all(item.done for item in missing):
            print(f"{stage.name}: built by another job meanwhile", flush=True)
            return
        started = time.monotonic()
        inputs = [item for need in stage.needs for item in artefacts.of(need)]
        for item in missing:
            lake.sweep(item.url)
            care.finish_removal(item)
        for item, facts in stage.build(artefacts):
            item.finish(facts, inputs, seconds=round(time.monotonic() - started, 2))
            lake.remove(item.file("work"))
    print(f"{stage.name}: done in {time.monotonic() - started:.0f} s", flush=True)


def _check_quarantine(artefacts: Artefacts) -> None:
    facts = artefacts.images.facts(ImagesFacts)
    bad, good = facts.quarantined, sum(facts.images.values())
    limit = artefacts.config.compute.max_bad
    reasons = artefacts.images.file("quarantine.parquet")
    remedy = "mend the files and run jobs/ingest.py with the same flags and --retry-quarantined"
    if not good or bad > limit * (bad + good):
        console.show_quarantine([artefacts.images], artefacts.config.source)
    if not good:
        raise QuarantineError(f"none of {bad} images could be used; see {reasons} for the reasons; {remedy}")
    if bad > limit * (bad + good):
        raise QuarantineError(
            f"{bad} of {bad + good} images went to quarantine, at most {limit:.1%} may; see {reasons} for the reasons; "
            f"{remedy}, or allow more with --max-bad"
        )
