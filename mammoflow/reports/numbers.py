"""Every number of the report, each computed once: the record of report.json, from which its tables are made.

No Ray, MLflow, torch.
"""

import pyarrow as pa

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import performance, subgroups
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.facts.published import (
    CandidateFigures,
    DataCounts,
    PaperRow,
    Report,
    Way,
)
from mammoflow.facts.results import Auc, CalibrationFigures, LevelFigures, Performance
from mammoflow.facts.stages import ImagesFacts, RankingRow
from mammoflow.metrics import calibration, levels, operating_points, resampling, roc
from mammoflow.metrics.calibration import Calibration
from mammoflow.metrics.levels import Level, Rule
from mammoflow.metrics.resampling import Resampling
from mammoflow.rendering import marks
from mammoflow.reports import paper_tables
from mammoflow.reports.inputs import ReportInputs

SHOWN_LEVELS: tuple[tuple[Level, Rule], ...] = (
    ("image", "mean"),
    ("breast", "mean"),
    ("breast", "max"),
    ("patient", "mean"),
    ("patient", "max"),
)

BASELINE = "two-step baseline"
_RULES = {"best_of_kinds": "mean of the best of each kind", "greedy": "greedy ensemble"}


def numbers(inputs: ReportInputs) -> Report:
    """Return every number of a finished run.

    Raises:
        SplitError: a split lacks a class, so that no AUC can be given.
    """
    config, images = inputs.config, inputs.images.facts(ImagesFacts)
    models = ensembles.summarise(inputs.test_scores)
    reached = performance.measure(inputs.test_scores, inputs.ensemble)
    return Report(
        recipe=config.name,
        dataset=config.dataset,
        protocol=config.splits.protocol,
        phantoms=marks.is_phantoms(inputs.images),
        registered=inputs.registered,
        data=DataCounts(
            images=images.images,
            malignant=images.malignant,
            patients=images.patients,
            quarantined=images.quarantined,
        ),
        patch_classifiers=dict(inputs.patch_accuracy),
        candidates=tuple(
            CandidateFigures(ranked=row, test=models.get(row.name), paper=paper(inputs, row)) for row in inputs.ranking
        ),
        pooled={name: score for name, score in models.items() if name not in {row.name for row in inputs.ranking}},
        ensemble=reached,
        compared=compared(inputs, reached),
        levels=by_level(inputs),
        calibration=reliability(inputs),
        subgroups=tuple(subgroups.table(inputs.test_ensemble, inputs.image_facts, inputs.ensemble.cutoff)),
        transfer=inputs.transfer,
        reproduction=inputs.reproduction,
        references=paper_tables.REFERENCES,
    )


def paper(inputs: ReportInputs, row: RankingRow) -> PaperRow | None:
    """Return the paper's figures of a candidate, where it has this very one; None elsewhere."""
    if not inputs.trunks or row.changes:
        return None
    return paper_tables.find(row.backbone, inputs.config.patches.set, row.top_layers)


def compared(inputs: ReportInputs, reached: Performance) -> tuple[Way, ...]:
    """Return the ways to a whole-image score beside each other on test, each frozen on validation.

    The two-step baseline, the best single model of each family by validation, and the ensemble of each rule.

    Args:
        inputs: the run.
        reached: by its own ensemble, which one of the rules chose.
    """
    ways = []
    base: pa.Table | None = None
    if (held := inputs.baseline) is not None:
        base = ensembles.average(held.test, held.choice)
        made_of = f"random forest on heatmaps of {held.backbone}"
        ways.append(_way(inputs, BASELINE, made_of, held.choice, performance.measure(held.test, held.choice), None))
    for family, chosen in inputs.singles.items():
        (member,) = chosen.members
        made_of = f"{member.backbone}: {member.top_layers}"
        figures = performance.measure(inputs.test_scores, chosen)
        ways.append(_way(inputs, family, made_of, chosen, figures, base))
    for rule, chosen in inputs.ensembles.items():
        made_of = f"{len(chosen.members)} models, of {sum(member.times for member in chosen.members)} shares"
        figures = reached if chosen == inputs.ensemble else performance.measure(inputs.test_scores, chosen)
        ways.append(_way(inputs, _RULES.get(rule, rule), made_of, chosen, figures, base, averaged=True))
    return tuple(ways)


def _way(
    inputs: ReportInputs,
    name: str,
    made_of: str,
    chosen: Ensemble,
    reached: Performance,
    base: pa.Table | None,
    *,
    averaged: bool = False,
) -> Way:
    """Return one way; `base` holds the baseline's rows that it is held against."""
    over = None
    if base is not None:
        labels_N, scores_N = ensembles.columns(ensembles.average(inputs.test_scores, chosen))
        over = roc.auc_difference(labels_N, scores_N, ensembles.columns(base)[1])
    return Way(
        name=name,
        made_of=made_of,
        members={member.name: member.times for member in chosen.members},
        val_auc=chosen.val_auc,
        reached=reached,
        over_baseline=over,
        paper_auc=paper_tables.WAYS.get(name) if inputs.trunks else None,
        averaged=averaged,
    )


def by_level(inputs: ReportInputs) -> tuple[LevelFigures, ...]:
    """Return the ensemble's test figures by image, breast and patient, views joined by mean or maximum."""
    figures = []
    for level, rule in SHOWN_LEVELS:
        rows = levels.group(inputs.test_ensemble, level, rule)
        labels_N, scores_N = ensembles.columns(rows)
        draws = Resampling(labels_N, levels.patients(rows))
        figures.append(
            LevelFigures(
                level=level,
                rule=rule,
                cases=len(labels_N),
                malignant=int(labels_N.sum()),
                auc=Auc(
                    value=roc.auc(labels_N, scores_N),
                    by_patient=resampling.interval(draws.aucs(scores_N)),
                    delong=roc.auc_interval(labels_N, scores_N),
                ),
                at_cutoff=operating_points.at_cutoff(labels_N, scores_N, inputs.ensemble.cutoff),
            )
        )
    return tuple(figures)


def reliability(inputs: ReportInputs) -> CalibrationFigures:
    """Return how well the ensemble's probabilities hold on test, before and after calibration."""
    labels_N, scores_N = ensembles.columns(inputs.test_ensemble)
    chosen = inputs.ensemble.calibration
    before, after = (calibration.reliability(labels_N, way.apply(scores_N)) for way in (Calibration(), chosen))
    return CalibrationFigures(kind=chosen.kind, before=before, after=after)
