"""What the lake holds already of the stage graph, and what must be built. Last in the order of imports.

Every job names the stage it wants; `ensure` prints a plan, builds what is missing, in order, and returns all artefacts.
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
from mammoflow.pipeline import builders, care, dry_run
from mammoflow.pipeline.graph import Artefacts, locate
from mammoflow.pipeline.stages import NEEDS, STAGES
from mammoflow.registry import starting_points
from mammoflow.search import tuning
from mammoflow.training import inputs

_ON_MODELS = frozenset(("trunks", "mined", "retrained", "two_step", "external", "search", "ensemble", "evaluation"))
"""Stages that train models or run them, on GPUs where the config asks for them."""

_DECISIVE = ("images", "search")
"""Stages whose outcome decides what follows: which images could not be used; beside whom candidates stand."""

_JOBS = {
    "phantoms": "ingest",
    "images": "ingest",
    "patches": "ingest",
    "trunks": "train_patch",
    "mined": "train_patch",
    "retrained": "train_patch",
    "two_step": "two_step",
    "search": "tune_top_layers",
    "ensemble": "select_ensemble",
    "external": "external_validation",
    "recalibrated": "recalibrate",
    "registered": "select_ensemble",
    "evaluation": "evaluate",
    "report": "report",
}
"""The job that builds a stage by name."""


def ensure(stage: str, config: Config) -> Artefacts:
    """Build everything that a stage needs and the lake does not hold, and the stage itself.

    Raises:
        ConfigError: the config names what there is not, or asks for too many workers; before anything is written.
        SourceError: the source is not the release it is said to be; likewise.
        LakeError: an artefact to be reused was made by another version of the lake's layout; likewise.
        QuarantineError: more images than `compute.max_bad` could not be used; the good ones are kept.
        MammoflowError: any other error of a stage, which names its remedy.
    """
    wanted = _wanted(stage)
    artefacts = _open(config, wanted)
    if config.compute.retry_quarantined:
        artefacts = _retry(artefacts)
    missing = _missing(artefacts, wanted)
    session.preflight(config, artefacts.lake, models=not _ON_MODELS.isdisjoint(missing))
    _print_plan(artefacts, wanted, missing)
    for name in wanted:
        if not all(item.done for item in artefacts.of(name)):
            _build(name, artefacts)
        if name == "images":
            _check_quarantine(artefacts)
        if name in _DECISIVE:
            artefacts = locate(artefacts.config, artefacts.lake)
    return artefacts


def preview(config: Config) -> None:
    """Print what a search would build, train and cost, and write nothing.

    Raises:
        ConfigError, SourceError, LakeError: as in `ensure`.
        PreflightError: this cluster has no room for a candidate.
    """
    wanted = _wanted("search")
    artefacts = _open(config, wanted)
    _print_plan(artefacts, wanted, _missing(artefacts, wanted))
    session.join(artefacts.config, artefacts.lake)
    dry_run.show(artefacts)


def find(stages: Sequence[str], config: Config) -> Artefacts:
    """Return the artefacts of a config whose `stages` are complete, without building anything or joining a cluster.

    Raises:
        LakeError: a stage has not been run on this lake, or by another version of the lake's layout.
    """
    artefacts = _open(config, stages)
    for stage in stages:
        for item in artefacts.of(stage):
            if not item.done:
                raise LakeError(f"{item.url} is not complete; run jobs/{_JOBS[stage]}.py with the same flags first")
        lake.check_versions(artefacts.of(stage))
    return artefacts


_BEFORE_START = frozenset(("phantoms", "images", "patches"))
_AS_THEY_ARE = frozenset(("external", "recalibrated"))
"""Stages that take a registered ensemble's members as they are."""
_UNREGISTERED = _BEFORE_START | {"external"}
"""Stages of which no registered model comes."""


def _open(config: Config, wanted: Sequence[str]) -> Artefacts:
    """Say which lake is used and locate a config's artefacts in it, once what the wanted stages need is known to be.

    A champion to start from is one version from here on, whatever is promoted meanwhile.
    """
    root = Lake(lake.resolve_root(config.lake))
    print(f"mammoflow {config.name}: lake {root.root}", flush=True)
    if config.source is None and config.phantoms.patients == 0:
        raise ConfigError(f"recipe {config.name!r} draws no phantoms; give the release's folder with --source")
    start = None
    if config.start and not _BEFORE_START.issuperset(wanted):
        if not _UNREGISTERED.issuperset(wanted):
            starting_points.check_name(config)
        start = starting_points.find(config, root).name
    trunks = () if start else config.trunks
    asked = tuple(replace(each, weights=tracking.weights_of(root, each.weights)) for each in trunks)
    dataset = releases.resolve(config.dataset, config.source, config.phantoms.layout)
    config = replace(config, dataset=dataset, start=start, trunks=asked)
    tuning.plan(config)
    artefacts = locate(config, root)
    if not _AS_THEY_ARE.isdisjoint(wanted):
        starting_points.check_images(artefacts.begun[1], config)
    return artefacts


def _retry(artefacts: Artefacts) -> Artefacts:
    """Undo the shards of images of which something went to quarantine; return the artefacts after that."""
    images = artefacts.images
    lake.check_versions([images])
    with locks.hold(images.url, _say):
        again = shards.reopen(images)
    print(
        f"  {again} shard(s) of {images.url} held images or outlines in quarantine: they are decoded again", flush=True
    )
    return locate(artefacts.config, artefacts.lake)


_say = functools.partial(print, flush=True)


def _wanted(stage: str) -> list[str]:
    wanted = {stage}
    for name in reversed(STAGES):
        if name in wanted:
            wanted.update(NEEDS[name])
    return [name for name in STAGES if name in wanted]


def _missing(artefacts: Artefacts, wanted: Sequence[str]) -> list[str]:
    """Return the stages that are to be built; refuse what can be known by now to come to nothing."""
    missing = [name for name in wanted if not all(item.done for item in artefacts.of(name))]
    lake.check_versions([item for name in wanted for item in artefacts.of(name)])
    inputs.check_workers(artefacts.config, missing)
    return missing


def _print_plan(artefacts: Artefacts, wanted: list[str], missing: list[str]) -> None:
    for name in wanted:
        for item in artefacts.of(name):
            state = "reuse" if item.done else "build"
            inputs = [need for need in NEEDS[name] if need in missing and artefacts.of(need)]
            why = "" if item.done else f"  (needs {', '.join(inputs)})" if inputs else "  (not in the lake)"
            print(f"  {state}  {name:<10} {item.name}-{item.fingerprint}{why}", flush=True)


def _build(stage: str, artefacts: Artefacts) -> None:
    """Run one stage, nobody else writing there, and mark its artefacts complete, with how long it took."""
    missing = sorted((item for item in artefacts.of(stage) if not item.done), key=lambda item: item.url)
    print(f"{stage}:", flush=True)
    with ExitStack() as held:
        for item in missing:  # in one order, so that no two jobs wait for each other
            held.enter_context(locks.hold(item.url, _say))
        if all(item.done for item in missing):
            print(f"{stage}: built by another job meanwhile", flush=True)
            return
        started = time.monotonic()
        inputs = [item for need in NEEDS[stage] for item in artefacts.of(need)]
        for item in missing:
            lake.sweep(item.url)
            care.finish_removal(item)
        for item, facts in builders.BY_STAGE[stage](artefacts):
            item.finish(facts, inputs, seconds=round(time.monotonic() - started, 2))
            lake.remove(item.file("work"))
    print(f"{stage}: done in {time.monotonic() - started:.0f} s", flush=True)


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
