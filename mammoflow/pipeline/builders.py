"""How each stage of the graph is built from the artefacts before it. pipeline.py says which are built, and when."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from mammoflow import lake, tracking
from mammoflow.data import ingest
from mammoflow.ensemble import ensemble, evaluation, forest, selection, two_step
from mammoflow.lake import Artefact
from mammoflow.pipeline import outcome
from mammoflow.pipeline.graph import Artefacts, two_step_backbone
from mammoflow.pipeline.stages import STAGES
from mammoflow.registry import model_card, registered_model, starting_points
from mammoflow.reports.inputs import PHANTOM_MARK
from mammoflow.search import PICTURE, charts, tuning
from mammoflow.training import mining, trunks

Built = list[tuple[Artefact, dict[str, Any]]]


def _build_phantoms(a: Artefacts) -> Built:
    out = a.of("phantoms")[0]
    return [(out, ingest.draw_phantoms(a.config, out))]


def _build_images(a: Artefacts) -> Built:
    return [(a.images, ingest.decode_images(a.config, a.source, a.images, salt=a.lake.salt))]


def _build_external(a: Artefacts) -> Built:
    (out,), (begun, about) = a.of("external"), a.begun
    folders = starting_points.fetch(begun, out)
    for split in ("val", "test"):
        scores = evaluation.score_split(folders, a.images, split, a.config.compute, ensemble=about.ensemble)
        lake.write_table(out.file(f"{split}.parquet"), scores)
    return [(out, {"model": begun.name})]


def _build_recalibrated(a: Artefacts) -> Built:
    (out,), (scored,), (begun, about) = a.of("recalibrated"), a.of("external"), a.begun
    settings, name = a.config.ensemble, a.config.ensemble.model_name
    scores = lake.read_table(scored.file("val.parquet"))
    chosen = selection.recalibrate(scores, about.ensemble, settings)
    site = model_card.data(a.config, a.images)
    card = {**about.card, "started_from": begun.name, "recalibrated_on": site}
    card["validation"] = model_card.validation(scores, chosen, settings.cutoff)
    uri, average = tracking.uri(a.lake), ensemble.average(scores, chosen)
    version = registered_model.register(
        uri,
        chosen,
        starting_points.fetch(begun, out),
        card,
        name,
        about.images,
        precision=about.precision,
        profile=about.profile,
        validation=average,
    )
    return [(out, {"tracking_uri": tracking.public(uri), "name": name, "version": version})]


def _build_patches(a: Artefacts) -> Built:
    figures = ingest.cut_patches(a.config, a.images, a.patches)
    outcome.write_qc(a)
    return [(a.patches, figures)]


def _build_trunks(a: Artefacts) -> Built:
    missing = {name: item for name, item in a.trunks.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing)
    return [(missing[name], asdict(facts)) for name, facts in trained.items()]


def _build_mined(a: Artefacts) -> Built:
    return [
        (
            a.mined[trunk.backbone],
            asdict(mining.mine(a.config, trunk, a.images, a.trunks[trunk.backbone], a.mined[trunk.backbone])),
        )
        for trunk in a.config.trunks
        if trunk.hard_examples and not a.mined[trunk.backbone].done
    ]


def _build_retrained(a: Artefacts) -> Built:
    missing = {name: item for name, item in a.retrained.items() if not item.done}
    trained = trunks.train(a.config, a.lake, a.images, a.patches, missing, mined=a.mined)
    return [(missing[name], asdict(facts)) for name, facts in trained.items()]


def _build_two_step(a: Artefacts) -> Built:
    (out,), backbone, compute = a.of("two_step"), two_step_backbone(a.config), a.config.compute
    folder, settings = a.classifiers[backbone].file("best"), a.config.two_step
    fitted = two_step.fit(folder, a.images, settings, compute, seed=a.config.seed)
    lake.write_bytes(out.file("forest.safetensors"), forest.to_bytes(fitted))
    run = partial(two_step.score_split, fitted, folder, a.images)
    val = run("val", settings, compute)
    frozen = two_step.choose(val, backbone, a.config.ensemble)  # before the first test image is read
    test = run("test", settings, compute, frozen=frozen)
    for split, scores in (("val", val), ("test", test)):
        lake.write_table(out.file(f"{split}.parquet"), scores)
    lake.write_json(out.file("choice.json"), ensemble.to_dict(frozen))
    return [(out, {"backbone": backbone, "val_auc": frozen.val_auc})]


def _build_search(a: Artefacts) -> Built:
    begun = starting_points.fetch(a.starts, a.search) if a.starts else None
    found = tuning.search(a.config, a.lake, a.images, a.classifiers, a.search, begun)
    picture = charts.search(found.ranking, "" if a.config.source else PHANTOM_MARK, "png")
    lake.write_bytes(a.search.file(PICTURE), picture)
    tracking.Tracker.open(a.lake, tracking.SEARCHES).attach(found.run_id, PICTURE, picture)
    return [(a.search, asdict(found))]


def _build_ensemble(a: Artefacts) -> Built:
    scores = evaluation.score_split(outcome.finished(a), a.images, "val", a.config.compute)
    by_rule = selection.choose_each(scores, outcome.ranking(a), a.config.ensemble)
    chosen = by_rule[a.config.ensemble.rule]
    lake.write_table(a.ensemble.file("val.parquet"), scores)
    lake.write_json(a.ensemble.file("ensembles.json"), {rule: ensemble.to_dict(each) for rule, each in by_rule.items()})
    return [(a.ensemble, {"rule": chosen.rule, "members": list(chosen.names), "val_auc": chosen.val_auc})]


def _build_registered(a: Artefacts) -> Built:
    chosen = outcome.load_ensemble(a)
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
        outcome.finished(a),
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
    chosen = outcome.load_ensemble(a)
    compute = a.config.compute
    scores = evaluation.score_split(outcome.finished(a), a.images, "test", compute, ensemble=chosen)
    lake.write_table(a.evaluation.file("test.parquet"), scores)
    accuracy = {
        name: evaluation.patch_accuracy(item.file("best"), a.patches, "test", compute, ensemble=chosen)
        for name, item in a.classifiers.items()
    }
    return [(a.evaluation, {"patch_accuracy": accuracy})]


def _build_report(a: Artefacts) -> Built:
    outcome.tag_test_figures(a)
    return [(a.report, {"url": outcome.write_report(a)})]


BY_STAGE: dict[str, Callable[[Artefacts], Built]] = {
    "phantoms": _build_phantoms,
    "images": _build_images,
    "external": _build_external,
    "recalibrated": _build_recalibrated,
    "patches": _build_patches,
    "trunks": _build_trunks,
    "mined": _build_mined,
    "retrained": _build_retrained,
    "two_step": _build_two_step,
    "search": _build_search,
    "ensemble": _build_ensemble,
    "registered": _build_registered,
    "evaluation": _build_evaluation,
    "report": _build_report,
}
"""Stage -> what builds its artefacts that are missing, and says of each what `done.json` is to hold."""
