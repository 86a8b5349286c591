"""What the lake holds already of the stage graph, and what must be built. Last in the order of imports.

Every job names the stage it wants; `ensure` prints a plan, builds what is missing, in order, and returns all artefacts.
"""

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from mammoflow import cluster, dry_run, lake, lake_care, locks, tables, tracking
from mammoflow.config import Config
from mammoflow.data import ingest, releases, shards
from mammoflow.errors import ConfigError, LakeError, QuarantineError
from mammoflow.graph import NEEDS, STAGES, Artefacts, locate
from mammoflow.lake import Artefact, Lake
from mammoflow.results import (
    contact_sheet,
    ensemble,
    evaluation,
    model_card,
    qc,
    registered_model,
    report,
    search_figures,
    selection,
    starts,
    summary,
)
from mammoflow.results.report_inputs import PHANTOM_MARK, SEARCH_PICTURE
from mammoflow.training import inputs, mining, trunks, tuning

_ON_MODELS = frozenset(("trunks", "mined", "retrained", "search", "ensemble", "evaluation"))
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
    "search": "tune_top_layers",
    "ensemble": "select_ensemble",
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
    cluster.preflight(config, artefacts.lake, models=not _ON_MODELS.isdisjoint(missing))
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
    cluster.join(artefacts.config, artefacts.lake)
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
        lake_care.check_versions(artefacts.lake, artefacts.of(stage))
    return artefacts


_BEFORE_START = frozenset(("phantoms", "images", "patches"))


def _open(config: Config, wanted: Sequence[str]) -> Artefacts:
    """Say which lake is used and locate a config's artefacts in it, once what the wanted stages need is known to be.

    A champion to start from is one version from here on, whatever is promoted meanwhile.
    """
    root = Lake(lake.resolve_root(config.lake))
    print(f"mammoflow {config.name}: lake {root.root}", flush=True)
    if config.source is None and config.phantoms.patients == 0:
        raise ConfigError(f"recipe {config.name!r} draws no phantoms; give the release's folder with --source")
    start = None if _BEFORE_START.issuperset(wanted) or not config.start else starts.find(config, root).name
    trunks = () if start else config.trunks
    asked = tuple(replace(each, weights=tracking.weights_of(root, each.weights)) for each in trunks)
    dataset = releases.resolve(config.dataset, config.source, config.phantoms.layout)
    config = replace(config, dataset=dataset, start=start, trunks=asked)
    tuning.plan(config)
    return locate(config, root)


def _retry(artefacts: Artefacts) -> Artefacts:
    """Undo the shards of images of which something went to quarantine; return the artefacts after that."""
    images = artefacts.images
    lake_care.check_versions(artefacts.lake, [images])
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
    lake_care.check_versions(artefacts.lake, [item for name in wanted for item in artefacts.of(name)])
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
            lake_care.finish_removal(item)
        for item, figures in _BUILDERS[stage](artefacts):
            item.finish({**figures, "seconds": round(time.monotonic() - started, 2)}, inputs)
            lake.remove(item.file("work"))
    print(f"{stage}: done in {time.monotonic() - started:.0f} s", flush=True)


def _check_quarantine(artefacts: Artefacts) -> None:
    figures = artefacts.images.summary()
    bad, good = int(figures["quarantined"]), sum(figures["images"].values())
    limit = artefacts.config.compute.max_bad
    reasons = artefacts.images.file("quarantine.parquet")
    remedy = "mend the files and run jobs/ingest.py with the same flags and --retry-quarantined"
    if not good or bad > limit * (bad + good):
        tables.show_quarantine([artefacts.images], artefacts.config.source)
    if not good:
        raise QuarantineError(f"none of {bad} images could be used; their reasons stand in {reasons}; {remedy}")
    if bad > limit * (bad + good):
        raise QuarantineError(
            f"{bad} of {bad + good} images went to quarantine, at most {limit:.1%} may; their reasons stand in "
            f"{reasons}; {remedy}, or allow more with --max-bad"
        )


Built = list[tuple[Artefact, dict[str, Any]]]


def _build_phantoms(a: Artefacts) -> Built:
    out = a.of("phantoms")[0]
    return [(out, ingest.draw_phantoms(a.config, out))]


def _build_images(a: Artefacts) -> Built:
    return [(a.images, ingest.decode_images(a.config, a.source, a.images, salt=a.lake.salt))]


def _build_patches(a: Artefacts) -> Built:
    figures = ingest.cut_patches(a.config, a.images, a.patches)
    write_qc(a)
    return [(a.patches, figures)]


def _build_trunks(a: Artefacts) -> Built:
    missing = {name: item for name, item in a.trunks.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing)
    return [(missing[name], figures) for name, figures in trained.items()]


def _build_mined(a: Artefacts) -> Built:
    return [
        (
            a.mined[trunk.backbone],
            mining.mine(a.config, trunk, a.images, a.trunks[trunk.backbone], a.mined[trunk.backbone]),
        )
        for trunk in a.config.trunks
        if trunk.mined and not a.mined[trunk.backbone].done
    ]


def _build_retrained(a: Artefacts) -> Built:
    missing = {name: item for name, item in a.retrained.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing, mined=a.mined)
    return [(missing[name], figures) for name, figures in trained.items()]


def _build_search(a: Artefacts) -> Built:
    begun = starts.fetch(a.starts, a.search) if a.starts else None
    found = tuning.search(a.config, a.lake, a.images, a.classifiers, a.search, begun)
    picture = search_figures.search(found["ranking"], "" if a.config.source else PHANTOM_MARK, "png")
    lake.write_bytes(a.search.file(SEARCH_PICTURE), picture)
    tracking.Tracker.open(a.lake, tracking.SEARCHES).attach(found["run_id"], SEARCH_PICTURE, picture)
    return [(a.search, found)]


def _build_ensemble(a: Artefacts) -> Built:
    ranking = [*a.search.summary()["ranking"], *a.pool]
    scores = evaluation.score_split(
        _finished(a), a.images, "val", a.config.compute, precision=a.config.image_training.precision
    )
    by_rule = selection.choose_each(scores, ranking, a.config.ensemble)
    chosen = by_rule[a.config.ensemble.rule]
    lake.write_table(a.ensemble.file("val.parquet"), scores)
    lake.write_json(a.ensemble.file("ensembles.json"), {rule: ensemble.to_dict(each) for rule, each in by_rule.items()})
    return [(a.ensemble, {"members": list(chosen.names), "val_auc": chosen.val_auc})]


def _build_registered(a: Artefacts) -> Built:
    chosen = load_ensemble(a)
    scores = lake.read_table(a.ensemble.file("val.parquet"))
    begun = a.starts.name if a.starts else None
    card = model_card.facts(a.config, a.images, code=tracking.code_tags(), started_from=begun)
    card |= {
        "validation": model_card.validation(scores, chosen, a.config.ensemble.cutoff),
        "artefacts": {stage: [item.fingerprint for item in a.of(stage)] for stage in STAGES},
    }
    uri = tracking.uri(a.lake)
    version = registered_model.register(
        uri,
        chosen,
        _finished(a),
        card,
        a.config.ensemble.model_name,
        a.config.images,
        precision=a.config.image_training.precision,
        profile=evaluation.training_profile(a.images, a.config.compute),
        validation=ensemble.average(scores, chosen),
    )
    return [
        (a.registered, {"tracking_uri": tracking.public(uri), "name": a.config.ensemble.model_name, "version": version})
    ]


def _build_evaluation(a: Artefacts) -> Built:
    chosen = load_ensemble(a)
    compute, precision = a.config.compute, a.config.image_training.precision
    scores = evaluation.score_split(_finished(a), a.images, "test", compute, precision=precision, ensemble=chosen)
    lake.write_table(a.evaluation.file("test.parquet"), scores)
    precisions = {trunk.backbone: trunk.training.precision for trunk in a.config.trunks}
    accuracy = {
        name: evaluation.patch_accuracy(
            item.file("best"), a.patches, "test", compute, precision=precisions[name], ensemble=chosen
        )
        for name, item in a.classifiers.items()
    }
    return [(a.evaluation, {"patch_accuracy": accuracy})]


def _build_report(a: Artefacts) -> Built:
    tag_test_figures(a)
    return [(a.report, {"url": write_report(a)})]


def _finished(a: Artefacts) -> dict[str, str]:
    """Return the model folders of the candidates that went through both stages, and of those from elsewhere."""
    ranking = a.search.summary()["ranking"]
    own = {row["name"]: a.search.file("candidates", row["name"], "best") for row in ranking if row["survived"]}
    return own | {row["name"]: row["folder"] for row in a.pool}


def load_ensemble(a: Artefacts) -> ensemble.Ensemble:
    """Return the ensemble that was chosen on validation by the config's rule."""
    return load_ensembles(a)[a.config.ensemble.rule]


def load_ensembles(a: Artefacts) -> dict[str, ensemble.Ensemble]:
    """Return what each rule chose on validation."""
    by_rule = lake.read_json(a.ensemble.file("ensembles.json"))
    return {rule: ensemble.from_dict(values) for rule, values in by_rule.items()}


def summarise(a: Artefacts) -> dict[str, Any]:
    """Gather the figures of a finished run, as summary.json holds them."""
    return summary.summarise(
        recipe=a.config.name,
        images=a.images.summary(),
        patches=a.patches.summary(),
        patch_accuracy=a.evaluation.summary()["patch_accuracy"],
        patch_val_accuracy={name: item.summary()["val_accuracy"] for name, item in a.classifiers.items()},
        ranking=a.search.summary()["ranking"],
        val_scores=lake.read_table(a.ensemble.file("val.parquet")),
        test_scores=lake.read_table(a.evaluation.file("test.parquet")),
        chosen=load_ensemble(a),
        registered=f"models:/{a.config.ensemble.model_name}@champion",
        seconds=a.seconds(),
    )


def tag_test_figures(a: Artefacts) -> None:
    """Write what the ensemble reached on test beside its registered version."""
    row = summary.ensemble_row(
        lake.read_table(a.ensemble.file("val.parquet")),
        lake.read_table(a.evaluation.file("test.parquet")),
        load_ensemble(a),
    )
    low, high = row["ci95_patients"]
    figures = {name: f"{row[name]:.4f}" for name in ("test_auc", "sensitivity", "specificity")}
    tags = {"test_auc": figures["test_auc"], "test_ci95": f"{low:.4f} to {high:.4f}"}
    tags |= {f"test_{name}": figures[name] for name in ("sensitivity", "specificity")}
    model = a.registered.summary()
    registered_model.tag(tracking.uri(a.lake), f"models:/{model['name']}/{model['version']}", tags)


def write_qc(a: Artefacts) -> str:
    """Write the contact sheet and the page that show what ingest made, and return where the page lies."""
    contact_sheet.write(a.images, a.patches, a.config.patches.side, "" if a.config.source else PHANTOM_MARK)
    return qc.write(a.config, a.images, a.patches)


def write_report(a: Artefacts) -> str:
    """Write the report of a finished run and return where it lies."""
    inputs = report.ReportInputs(
        config=a.config,
        images=a.images,
        patches=a.patches,
        trunks=a.classifiers,
        search=a.search,
        val_scores=lake.read_table(a.ensemble.file("val.parquet")),
        test_scores=lake.read_table(a.evaluation.file("test.parquet")),
        ensemble=load_ensemble(a),
        registered=a.registered.summary(),
        patch_accuracy=a.evaluation.summary()["patch_accuracy"],
        seconds=a.seconds(),
    )
    return report.write(inputs, a.report.file("report.html"))


_BUILDERS: dict[str, Callable[[Artefacts], Built]] = {
    "phantoms": _build_phantoms,
    "images": _build_images,
    "patches": _build_patches,
    "trunks": _build_trunks,
    "mined": _build_mined,
    "retrained": _build_retrained,
    "search": _build_search,
    "ensemble": _build_ensemble,
    "registered": _build_registered,
    "evaluation": _build_evaluation,
    "report": _build_report,
}
