"""What the artefacts of a run come to: its figures, its report, the pages of its data. No Ray of its own."""

from typing import TypeVar

from mammoflow import lake, tracking
from mammoflow.ensemble import ensemble, evaluation, performance, selection
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.pool import PooledCandidate
from mammoflow.ensemble.split_door import open_scores
from mammoflow.errors import LakeError
from mammoflow.facts import codec
from mammoflow.facts.published import Reproduction, SiteRow, Summary, Transfer
from mammoflow.facts.stages import (
    EvaluationFacts,
    ImagesFacts,
    PatchesFacts,
    RankingRow,
    RegisteredFacts,
    SearchFacts,
    TrunkFacts,
    TwoStepFacts,
)
from mammoflow.lake import Artefact
from mammoflow.pipeline.graph import Artefacts
from mammoflow.pipeline.stages import FIGURES, REPRODUCTION, TRANSFER
from mammoflow.registry.registry import Registry
from mammoflow.rendering import marks
from mammoflow.reports import contact_sheet, qc, report, summary
from mammoflow.reports.inputs import Baseline

Figures = TypeVar("Figures", Transfer, Reproduction)


def load_ensemble(a: Artefacts) -> Ensemble:
    """Return the ensemble that was chosen on validation by the config's rule."""
    return load_ensembles(a)[a.config.ensemble.rule]


def load_ensembles(a: Artefacts) -> dict[str, Ensemble]:
    """Return what each rule chose on validation."""
    return ensemble.read_choices(a.ensemble.file("ensembles.json"))


def transferred(a: Artefacts) -> tuple[SiteRow, ...]:
    """Return what a registered ensemble of other data reaches on these: as registered, and recalibrated for them."""
    scored, (_, about) = a.one("external"), a.begun
    fresh = selection.recalibrate(open_scores(scored, "val", None), about.ensemble, a.config.ensemble)
    test = open_scores(scored, "test", fresh)
    return tuple(
        SiteRow(cutoff_of=name, reached=performance.measure(test, chosen))
        for name, chosen in (("as registered", about.ensemble), ("of this site", fresh))
    )


def baseline(a: Artefacts) -> Baseline:
    """Return the two-step baseline and its test scores."""
    return _baseline(a.one("two_step"))


def summarise(a: Artefacts) -> Summary:
    """Gather the figures of a finished run, as summary.json holds them."""
    chosen = load_ensemble(a)
    return summary.summarise(
        recipe=a.config.name,
        images=a.images.facts(ImagesFacts),
        patches=a.patches.facts(PatchesFacts),
        patch_accuracy=a.evaluation.facts(EvaluationFacts).patch_accuracy,
        patch_val_accuracy={name: item.facts(TrunkFacts).val_accuracy for name, item in a.classifiers.items()},
        ranking=ranking(a),
        val_scores=open_scores(a.ensemble, "val", None),
        test_scores=open_scores(a.evaluation, "test", chosen),
        chosen=chosen,
        registered=f"models:/{a.config.ensemble.model_name}@champion",
        seconds=a.seconds(),
    )


def tag_test_figures(a: Artefacts) -> None:
    """Write what the ensemble reached on test beside its registered version."""
    chosen = load_ensemble(a)
    reached = performance.measure(open_scores(a.evaluation, "test", chosen), chosen)
    auc, point = reached.score.flips, reached.at_cutoff
    figures = {"auc": auc.value, "sensitivity": point.sensitivity.value, "specificity": point.specificity.value}
    tags = {f"test_{name}": f"{value:.4f}" for name, value in figures.items()}
    if auc.by_patient:
        tags["test_auc_by_patient"] = f"{auc.by_patient.low:.4f} to {auc.by_patient.high:.4f}"
    model = a.registered.facts(RegisteredFacts)
    Registry(tracking.uri(a.lake)).version(f"models:/{model.name}/{model.version}").tag(tags)


def write_qc(a: Artefacts) -> str:
    """Write the contact sheet and the page that show what ingest made, and return where the page lies."""
    contact_sheet.write(a.images, a.patches, a.config.patches.side, marks.mark_of(a.images))
    return qc.write(a.config, a.images, a.patches)


def finished(a: Artefacts) -> dict[str, str]:
    """Return the model folders of the candidates that went through both stages, and of pooled ones."""
    searched = a.search.facts(SearchFacts).ranking
    folders = {row.name: a.search.file("candidates", row.name, "best") for row in searched if row.survived}
    return folders | {row.name: row.folder for row in a.pool}


def ranking(a: Artefacts) -> list[RankingRow | PooledCandidate]:
    """Return every candidate that may be scored: of the search, and pooled ones."""
    return [*a.search.facts(SearchFacts).ranking, *a.pool]


def write_report(a: Artefacts) -> str:
    """Write the report of a finished run and return where it lies."""
    chosen, model = load_ensemble(a), a.registered.facts(RegisteredFacts)
    inputs = report.ReportInputs(
        config=a.config,
        images=a.images,
        patches=a.patches,
        trunks=a.classifiers,
        search=a.search,
        test_scores=open_scores(a.evaluation, "test", chosen),
        ensemble=chosen,
        ensembles=load_ensembles(a),
        singles=selection.choose_singles(open_scores(a.ensemble, "val", None), ranking(a), a.config.ensemble),
        folders=finished(a),
        image_facts=evaluation.image_facts(a.images, "test", ensemble=chosen),
        baseline=next((_baseline(item) for item in a.of("two_step") if item.done), None),
        transfer=next(
            (
                found
                for found in _newest(a, TRANSFER, Transfer)
                if found.model == f"models:/{model.name}/{model.version}"
            ),
            None,
        ),
        reproduction=next(
            (found for found in _newest(a, REPRODUCTION, Reproduction) if found.search == a.search.fingerprint), None
        ),
        registered=model,
        patch_accuracy=a.evaluation.facts(EvaluationFacts).patch_accuracy,
        seconds=a.seconds(),
    )
    return report.write(inputs, a.report.file("report.html"))


def read_figures(artefact: Artefact, kind: type[Figures]) -> Figures:
    """Return the figures of an artefact that is made of those of several configs.

    Raises:
        LakeError: the file is missing, damaged, or of another version of mammoflow.
    """
    url = artefact.file(FIGURES)
    return codec.from_json(lake.read_bytes(url), kind, url)


def _baseline(made: Artefact) -> Baseline:
    """Return the two-step baseline that an artefact holds."""
    (choice,) = ensemble.read_choices(made.file("choice.json")).values()
    return Baseline(backbone=made.facts(TwoStepFacts).backbone, choice=choice, test=open_scores(made, "test", choice))


def _newest(a: Artefacts, stage: str, kind: type[Figures]) -> list[Figures]:
    """Return the figures of a stage's complete artefacts, newest first; those of earlier versions are left out."""
    done = sorted(lake.list_complete(a.lake, stage), key=lambda item: item.record().finished, reverse=True)
    figures = []
    for item in done:
        try:
            figures.append(read_figures(item, kind))
        except LakeError as error:
            print(f"  {item.key} is not shown: {error}", flush=True)
    return figures
