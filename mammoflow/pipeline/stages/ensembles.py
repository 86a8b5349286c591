"""The stages that score, choose and register whole-image classifiers, and report on them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mammoflow import lake
from mammoflow.facts.stages import EnsembleFacts, EvaluationFacts, ExternalFacts, RegisteredFacts, ReportFacts
from mammoflow.lake import Artefact
from mammoflow.pipeline.stages.stage import Built, Stage

if TYPE_CHECKING:
    from mammoflow.pipeline.graph import Artefacts


def _locate_external(a: "Artefacts") -> Artefact | None:
    if not a.starts or not a.starts.registered:
        return None
    return a.lake.artefact("external", a.config.name, *a.usable, start=a.starts.identity)


def _build_external(a: "Artefacts") -> Built:
    from mammoflow.ensemble import evaluation
    from mammoflow.registry import starting_points

    out, (begun, model) = a.one("external"), a.begun
    folders = starting_points.fetch(begun, out)
    for split in ("val", "test"):
        scores = evaluation.score_split(folders, a.images, split, a.config.compute, ensemble=model.ensemble)
        lake.write_table(out.file(f"{split}.parquet"), scores)
    yield out, ExternalFacts(model=begun.name)


def _locate_recalibrated(a: "Artefacts") -> Artefact | None:
    from mammoflow import tracking

    external = a.of("external")
    return (
        a.lake.artefact("recalibrated", a.config.name, *external, a.config.ensemble, tracking.uri(a.lake))
        if external
        else None
    )


def _build_recalibrated(a: "Artefacts") -> Built:
    from mammoflow import tracking
    from mammoflow.ensemble import ensemble, selection
    from mammoflow.registry import model_card, registered_model, starting_points
    from mammoflow.registry.registry import Registry

    out, settings, (begun, model) = a.one("recalibrated"), a.config.ensemble, a.begun
    scores = lake.read_table(a.one("external").file("val.parquet"))
    chosen = selection.recalibrate(scores, model.ensemble, settings)
    card = replace(
        model.card,
        started_from=begun.name,
        recalibrated_on=model_card.data(a.config, a.images),
        validation=model_card.validation(scores, chosen, settings.cutoff),
    )
    uri = tracking.uri(a.lake)
    version = registered_model.register(
        Registry(uri),
        chosen,
        starting_points.fetch(begun, out),
        card,
        settings.model_name,
        model.images,
        precision=model.precision,
        profile=model.profile,
        validation=ensemble.average(scores, chosen),
    )
    yield out, RegisteredFacts(tracking_uri=tracking.public(uri), name=settings.model_name, version=version)


def _locate_ensemble(a: "Artefacts") -> Artefact:
    pool = {f"pool_{number}": row.run_id for number, row in enumerate(a.pool)}
    return a.lake.artefact("ensemble", a.config.name, a.search, ensemble=a.config.ensemble, **pool)


def _build_ensemble(a: "Artefacts") -> Built:
    from mammoflow.ensemble import ensemble, evaluation, selection
    from mammoflow.pipeline import outcome

    out = a.ensemble
    scores = evaluation.score_split(outcome.finished(a), a.images, "val", a.config.compute)
    by_rule = selection.choose_each(scores, outcome.ranking(a), a.config.ensemble)
    chosen = by_rule[a.config.ensemble.rule]
    lake.write_table(out.file("val.parquet"), scores)
    ensemble.write_choices(out.file("ensembles.json"), by_rule)
    yield out, EnsembleFacts(rule=chosen.rule, members=chosen.names, val_auc=chosen.val_auc)


def _locate_registered(a: "Artefacts") -> Artefact:
    from mammoflow import tracking

    return a.lake.artefact("registered", a.config.name, a.ensemble, tracking.uri(a.lake))


def _build_registered(a: "Artefacts") -> Built:
    from mammoflow import tracking
    from mammoflow.ensemble import ensemble, evaluation
    from mammoflow.pipeline import outcome
    from mammoflow.registry import model_card, registered_model
    from mammoflow.registry.registry import Registry

    chosen, config = outcome.load_ensemble(a), a.config
    scores = lake.read_table(a.ensemble.file("val.parquet"))
    begun = a.starts.name if a.starts else None
    card = model_card.write(
        config,
        a.images,
        code=tracking.code_tags(),
        started_from=begun,
        validation=model_card.validation(scores, chosen, config.ensemble.cutoff),
        artefacts={stage: tuple(item.fingerprint for item in a.of(stage)) for stage in a.by_stage},
    )
    uri, name = tracking.uri(a.lake), config.ensemble.model_name
    version = registered_model.register(
        Registry(uri),
        chosen,
        outcome.finished(a),
        card,
        name,
        config.images,
        precision=config.image_training.precision,
        profile=evaluation.training_profile(a.images, config.compute),
        validation=ensemble.average(scores, chosen),
    )
    yield a.registered, RegisteredFacts(tracking_uri=tracking.public(uri), name=name, version=version)


def _locate_evaluation(a: "Artefacts") -> Artefact:
    return a.lake.artefact("evaluation", a.config.name, a.ensemble)


def _build_evaluation(a: "Artefacts") -> Built:
    from mammoflow.ensemble import evaluation
    from mammoflow.pipeline import outcome

    chosen = outcome.load_ensemble(a)
    compute = a.config.compute
    scores = evaluation.score_split(outcome.finished(a), a.images, "test", compute, ensemble=chosen)
    lake.write_table(a.evaluation.file("test.parquet"), scores)
    accuracy = {
        name: evaluation.patch_accuracy(item.file("best"), a.patches, "test", compute, ensemble=chosen)
        for name, item in a.classifiers.items()
    }
    yield a.evaluation, EvaluationFacts(patch_accuracy=accuracy)


def _locate_report(a: "Artefacts") -> Artefact:
    return a.lake.artefact("report", a.config.name, a.evaluation, a.registered)


def _build_report(a: "Artefacts") -> Built:
    from mammoflow.pipeline import outcome

    outcome.tag_test_figures(a)
    yield a.report, ReportFacts(url=outcome.write_report(a))


STAGES = (
    Stage(
        name="external",
        needs=("images",),
        job="external_validation",
        facts=ExternalFacts,
        locate=_locate_external,
        build=_build_external,
        runs_models=True,
        start="scored",
    ),
    Stage(
        name="recalibrated",
        needs=("external",),
        job="recalibrate",
        facts=RegisteredFacts,
        locate=_locate_recalibrated,
        build=_build_recalibrated,
        start="recalibrated",
    ),
    Stage(
        name="ensemble",
        needs=("search",),
        job="select_ensemble",
        facts=EnsembleFacts,
        locate=_locate_ensemble,
        build=_build_ensemble,
        runs_models=True,
    ),
    Stage(
        name="registered",
        needs=("ensemble",),
        job="select_ensemble",
        facts=RegisteredFacts,
        locate=_locate_registered,
        build=_build_registered,
    ),
    Stage(
        name="evaluation",
        needs=("ensemble",),
        job="evaluate",
        facts=EvaluationFacts,
        locate=_locate_evaluation,
        build=_build_evaluation,
        runs_models=True,
    ),
    Stage(
        name="report",
        needs=("registered", "evaluation"),
        job="report",
        facts=ReportFacts,
        locate=_locate_report,
        build=_build_report,
    ),
)
