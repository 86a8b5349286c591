"""Tables of results, made from their records alone, for pages and the terminal. No Ray, MLflow, torch, no files."""

from collections.abc import Sequence

from mammoflow.facts.published import (
    CandidateFigures,
    MatrixCell,
    PatchRow,
    Reproduction,
    SiteRow,
    Summary,
    Transfer,
    Way,
)
from mammoflow.facts.results import (
    CalibrationFigures,
    LevelFigures,
    ListedAuc,
    Performance,
    Subgroup,
)
from mammoflow.facts.stages import RankingRow
from mammoflow.rendering import formats
from mammoflow.rendering.formats import Value
from mammoflow.rendering.tables import Column, Row, Table, names, numbers, papers, table, texts
from mammoflow.reports import paper_tables

_AUC = "test A-AUC (95%, by patient)"


def _columns(reached: Performance) -> list[Column]:
    """Return the columns of what an ensemble reaches."""
    return numbers(_AUC, "sensitivity", "specificity", *(measure.name for measure in reached.measures))


def _cells(reached: Performance) -> list[Value]:
    """Return the cells of `_columns`."""
    point = reached.at_cutoff
    measures = (measure.value for measure in reached.measures)
    return [reached.score.flips, point.sensitivity.value, point.specificity.value, *measures]


def summary(found: Summary) -> Table:
    """Return every model of a run, and its ensemble."""
    ours = found.ensemble
    rows = [(row.name, row.kind, row.val.flips.value, row.test.plain.value, row.test.flips) for row in found.models]
    mean = (f"ensemble of {len(ours.members)}", "mean", ours.val.flips.value, ours.test.plain.value, ours.test.flips)
    title = f"Whole-image classifiers, per image, recipe {found.recipe}; 95% interval by patient"
    return table(title, [*texts("model", "kind"), *numbers("val A-AUC", "test AUC", _AUC)], [*rows, mean])


def ranking(rows: Sequence[RankingRow]) -> Table:
    """Return the candidates of a finished search, best first."""
    columns = [*_candidate_columns(), *texts("trained to")]
    cells = [(*_candidate(row), f"stage {2 if row.survived else 1}, epoch {row.epochs}") for row in rows]
    return table("Whole-image candidates, by validation AUC", columns, cells)


def models(candidates: Sequence[CandidateFigures], members: Sequence[str], ensemble: Performance, paper: bool) -> Table:
    """Return every candidate, finished or not, and the ensemble.

    Args:
        candidates: with the paper's figures where it has this very one.
        members: names of the ensemble's.
        ensemble: on test.
        paper: whether the paper's ensemble stands beside it.
    """
    rows = [
        Row(
            cells=(
                *_candidate(row.ranked),
                row.test.plain.value if row.test else None,
                row.test.flips if row.test else None,
                formats.short(row.paper.plain_auc) if row.paper else None,
                formats.short(row.paper.auc) if row.paper else None,
            ),
            tag="member" if row.ranked.name in members else "",
        )
        for row in candidates
    ]
    ours, theirs = ensemble.score, formats.short(paper_tables.ENSEMBLE_AUC) if paper else None
    about: list[Value] = ["Ensemble", f"mean of {len(members)}", *[""] * (len(_candidate_columns()) - 2)]
    rows.append(Row(cells=(*about, ours.plain.value, ours.flips, None, theirs), strong=True))
    title = (
        "Whole-image classifiers, best validation first; those without test figures did not go on to stage 2, whose "
        "epochs and memory are given"
    )
    columns = [*_candidate_columns(), *numbers("test AUC", _AUC), *papers("paper AUC", "paper A-AUC")]
    return table(title, columns, rows)


def _candidate_columns() -> list[Column]:
    return [
        *names("kind", "trunk"),
        Column(name="top layers", kind="lines"),
        *numbers("weights", "an epoch", "memory", "val AUC", "epoch"),
    ]


def _candidate(row: RankingRow) -> tuple[Value, ...]:
    return (
        row.kind,
        row.backbone,
        row.written.replace(",", ",\n"),
        f"{row.parameters / 1e6:.2f} M",
        None if row.epoch_seconds is None else f"{row.epoch_seconds:.1f} s",
        None if row.memory_gib is None else f"{row.memory_gib:.1f} GiB",
        row.val_auc,
        row.best_epoch,
    )


def compared(ways: Sequence[Way]) -> Table:
    """Return the ways to a whole-image score beside each other."""
    rows = [
        Row(
            cells=(
                way.name,
                way.made_of,
                way.val_auc,
                *_cells(way.reached),
                way.reached.score.flips.delong,
                way.over_baseline,
                formats.p_value(way.over_baseline.p) if way.over_baseline else None,
                None if way.paper_auc is None else formats.short(way.paper_auc),
            ),
            strong=way.averaged,
        )
        for way in ways
    ]
    columns = [*texts("way", "of"), *numbers("val A-AUC"), *_columns(ways[0].reached)]
    columns += [*numbers("A-AUC (95%, DeLong)", "over the baseline (95%, DeLong)", "p"), *papers("paper")]
    return table("Ways from patches to a whole-image score, each frozen on validation", columns, rows)


def shares(ways: Sequence[Way]) -> Table:
    """Return who is in each ensemble, and how often they count."""
    means = [way for way in ways if len(way.members) > 1]
    members = sorted({name for way in means for name in way.members})
    rows = [(name, *(way.members.get(name) for way in means)) for name in members]
    columns = [Column(name="model", kind="path"), *numbers(*(way.name for way in means))]
    return table("How often each model counts in the means", columns, rows)


def levels(rows: Sequence[LevelFigures]) -> Table:
    """Return the ensemble by image, breast and patient."""
    cells = [
        (
            row.level if row.level == "image" else f"{row.level}, {row.rule} over views",
            row.cases,
            row.malignant,
            row.auc,
            row.at_cutoff.sensitivity,
            row.at_cutoff.specificity,
        )
        for row in rows
    ]
    columns = [*names("by"), *numbers("cases", "malignant", "A-AUC (95%, by patient)")]
    columns += numbers("sensitivity (95%)", "specificity (95%)")
    title = "The ensemble on test by image, breast and patient, at the cut-off that was chosen for images"
    return table(title, columns, cells)


def calibration(found: CalibrationFigures) -> Table:
    """Return how well probabilities hold, before and after calibration."""
    rows = [
        ("raw scores", found.before.error, found.before.brier),
        (f"calibrated on validation ({found.kind})", found.after.error, found.after.brier),
    ]
    columns = [*names("probabilities"), *numbers("expected calibration error", "Brier score")]
    return table("How well probabilities hold on test", columns, rows)


def subgroups(groups: Sequence[Subgroup]) -> Table:
    """Return the ensemble on parts of the test split."""
    rows = [
        (f"{group.by}: {group.name}", group.images, group.malignant, group.auc, group.sensitivity, group.specificity)
        for group in groups
    ]
    columns = [*names("test films"), *numbers("films", "malignant", "A-AUC (95%, by patient)")]
    columns += numbers("sensitivity (95%)", "specificity (95%)")
    title = "The ensemble on parts of the test split; a film with a mass and a calcification counts in both"
    return table(title, columns, rows)


def site(model: str, rows: Sequence[SiteRow]) -> Table:
    """Return what a registered ensemble reaches on other data, as registered and recalibrated."""
    cells = [(row.cutoff_of, *_cells(row.reached), row.reached.calibration) for row in rows]
    score = rows[0].reached.score
    title = f"{model} without training there, on {score.images} test images, {score.malignant} of them malignant"
    columns = [*names("cut-off and calibration"), *_columns(rows[0].reached), *names("calibration")]
    return table(title, columns, cells)


def baseline(backbone: str, reached: Performance) -> Table:
    """Return what the two-step baseline reaches."""
    score = reached.score
    title = f"Two-step baseline on {score.images} test images, {score.malignant} of them malignant"
    return table(title, [*texts("heatmaps of"), *_columns(reached)], [(backbone, *_cells(reached))])


def transfer(found: Transfer) -> Table:
    """Return Table 4: test A-AUC by patients trained on."""
    members = [*found.rows[0].members]
    rows = [
        (
            row.patients or "none",
            row.images,
            *(row.members[name].flips if name in row.members else None for name in members),
            row.ensemble.flips,
        )
        for row in found.rows
    ]
    title = f"{found.model} trained on: test A-AUC (95%, by patient) by patients of the other data"
    return table(title, numbers("patients", "images", *members, "ensemble"), rows)


def matrix(found: Sequence[MatrixCell]) -> Table:
    """Return each ensemble on the test images of both data sets."""
    data, ensembles = (list(dict.fromkeys(values)) for values in zip(*((c.data, c.model) for c in found), strict=True))
    aucs = {(cell.model, cell.data): cell.score.flips for cell in found}
    rows = [(model, *(aucs.get((model, name)) for name in data)) for model in ensembles]
    title = "Each ensemble on the test images of both data sets: A-AUC (95%, by patient)"
    return table(title, [*names("ensemble"), *numbers(*data)], rows)


def table_1(rows: Sequence[PatchRow]) -> Table:
    """Return the paper's Table 1, and its figures."""
    cells = [
        (
            row.backbone,
            row.weights or "random",
            row.patch_set,
            row.test.accuracy,
            row.test.balanced_accuracy,
            row.best_epoch or None,
            formats.short(row.paper.accuracy) if row.paper else None,
            row.paper.epoch if row.paper else None,
        )
        for row in rows
    ]
    columns = [*names("trunk", "weights", "set"), *numbers("test accuracy", "balanced", "epoch")]
    return table("Table 1: patch classifiers", [*columns, *papers("paper", "paper's epoch")], cells)


def other_set(found: Reproduction) -> Table:
    """Return Table 2's row of the other patch set."""
    cells = [
        (
            found.patch_set,
            row.ranked.backbone,
            row.ranked.top_layers,
            row.test.plain if row.test else None,
            row.test.flips if row.test else None,
            row.ranked.best_epoch,
            formats.short(row.paper.plain_auc) if row.paper else None,
        )
        for row in found.other_set
    ]
    columns = [*names("set", "trunk", "top layers"), *numbers("test AUC (95%, by patient)", _AUC, "epoch")]
    return table("Table 2's row of the other patch set", [*columns, *papers("paper")], cells)


def ensemble(val: ListedAuc, val_point: tuple[float, float], test: Performance, paper: bool) -> Table:
    """Return the ensemble and its operating point on validation and test.

    Args:
        val: on validation.
        val_point: sensitivity and specificity there.
        test: on test.
        paper: whether the paper's ensemble stands beside it.
    """
    point = test.at_cutoff
    theirs: list[Value] = [None, None, None]
    if paper:
        theirs = [formats.short(paper_tables.ENSEMBLE_AUC), *paper_tables.ENSEMBLE_POINT]
    rows: list[list[Value]] = [
        ["A-AUC (95%, by patient)", val, test.score.flips, theirs[0]],
        ["A-AUC (95%, DeLong)", None, test.score.flips.delong, None],
        ["sensitivity (95%)", val_point[0], point.sensitivity, theirs[1]],
        ["specificity (95%)", val_point[1], point.specificity, theirs[2]],
        ["cut-off", f"{point.cutoff:.4f}", "as chosen on validation", None],
        ["films", val.images, test.score.images, None],
    ]
    columns = [*texts("figure"), *names("validation (chosen on)", "test"), *papers("paper (chosen on test)")]
    return table("The ensemble and its operating point", columns, rows)


def paper() -> Table:
    """Return the paper's own tables 2 and 3."""
    rows: list[tuple[Value, ...]] = [
        (
            str(row.table),
            row.backbone,
            row.patch_set,
            row.top_layers,
            formats.short(row.plain_auc),
            formats.short(row.auc),
            row.epoch,
        )
        for row in paper_tables.ROWS
    ]
    columns = [*names("table", "trunk", "patches", "top layers"), *numbers("AUC", "A-AUC", "epoch")]
    return table("Test figures as published, CBIS-DDSM", columns, rows, ours=False)


def paper_transfer() -> Table:
    """Return the paper's own Table 4."""
    kinds = [*paper_tables.TRANSFER[0][2]]
    rows: list[tuple[Value, ...]] = [
        (patients, images, *(formats.short(aucs[kind]) for kind in kinds))
        for patients, images, aucs in paper_tables.TRANSFER
    ]
    return table("Table 4 as published: INbreast", numbers("patients", "images", *kinds), rows, ours=False)
