"""The report: everything that a run found, as one HTML file that opens offline. No Ray, no MLflow.

Pictures are inside the file. Where the run drew phantoms, every figure says so. numbers.py computes the figures,
result_tables.py, run_tables.py and pictures.py show them, report.html lays them out.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import mammoflow
from mammoflow import lake
from mammoflow.facts import codec
from mammoflow.facts.published import Report
from mammoflow.facts.results import CalibrationFigures, ListedAuc
from mammoflow.facts.stages import ImagesFacts, PatchesFacts, TrunkFacts
from mammoflow.rendering import figures, formats, pages
from mammoflow.rendering.tables import Table
from mammoflow.reports import cases, data_sets, numbers, pictures, quarantine, result_tables, run_tables, summary
from mammoflow.reports.inputs import ReportInputs

__all__ = ["ReportInputs", "write"]

_SHOWN = 40  # rows of quarantine in the page; the lake holds all


def write(inputs: ReportInputs, url: str) -> str:
    """Write the report, and beside it every number of it as JSON; return its URL.

    Args:
        inputs: a finished run.
        url: of the HTML file.

    Raises:
        LakeError: an artefact is incomplete, or `url` can't be written.
        SplitError: a split lacks a class, so that no AUC can be given.
    """
    report = numbers.numbers(inputs)
    lake.write_bytes(f"{url.removesuffix('.html')}.json", codec.to_json(report))
    lake.write_bytes(url, pages.render("report.html", context(inputs, report)))
    return url


def context(inputs: ReportInputs, report: Report) -> dict[str, Any]:
    """Return what the template shows."""
    config = inputs.config
    origin = (
        f"phantoms drawn by mammoflow in the layout {config.dataset}"
        if report.phantoms
        else f"{config.dataset} from {config.source}"
    )
    on = (
        f"trunks {', '.join(inputs.trunks)}; patches {config.patches.set}"
        if inputs.trunks
        else f"begun from {config.start}"
    )
    refused = quarantine.read((inputs.images, inputs.patches), config.source)
    return {
        "name": config.name,
        "subtitle": f"Whole-image cancer classifiers: {origin}; {on}; seed {config.seed}.",
        "mark": inputs.mark,
        "size": f"{config.images.height} x {config.images.width}",
        "cards": _cards(inputs, report),
        "tables": tables(inputs, report) | {"quarantine": quarantine.shown(refused, _SHOWN)},
        "intensity": data_sets.intensity(inputs.images, data_sets.beside(inputs.images)),
        "cases": cases.cases(inputs),
        "reliability": _reliability(report.calibration, inputs.mark),
        "references": report.references,
        "patch_text": _patch_text(inputs) if inputs.trunks else "",
        "paper_note": _paper_note(report),
        "registered_text": f"Registered as models:/{inputs.registered.name}/{inputs.registered.version}.",
        "quarantine_text": quarantine.text(refused, _SHOWN),
        **pictures.pictures(inputs, report),
        "seconds": _seconds(inputs.seconds),
        "config": json.dumps(asdict(config), indent=1),
        "version": mammoflow.__version__,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
    }


def tables(inputs: ReportInputs, report: Report) -> dict[str, Table | list[Table] | None]:
    """Return every table of figures by the name that the template knows; None where there is nothing to show."""
    images, patches = inputs.images, inputs.patches.facts(PatchesFacts)
    classes, chosen, paper = inputs.config.patches.classes, inputs.ensemble, bool(inputs.trunks)
    val = ListedAuc(value=chosen.val_auc, by_patient=chosen.val_by_patient, images=chosen.val_images)
    val_point = (chosen.val_sensitivity, chosen.val_specificity)
    transfer, reproduction = report.transfer, report.reproduction
    artefacts = [images, inputs.patches, *inputs.trunks.values(), inputs.search]
    return {
        "data": run_tables.data(images.facts(ImagesFacts), patches),
        "patches": run_tables.patches(patches, classes),
        "patch_accuracy": run_tables.patch_accuracy(inputs.patch_accuracy, inputs.trunks),
        "confusions": [run_tables.confusion(name, found, classes) for name, found in inputs.patch_accuracy.items()],
        "models": result_tables.models(report.candidates, chosen.names, report.ensemble, paper),
        "paper": result_tables.paper(),
        "ensemble": result_tables.ensemble(val, val_point, report.ensemble, paper),
        "artefacts": run_tables.artefacts(artefacts),
        "compared": result_tables.compared(report.compared),
        "shares": result_tables.shares(report.compared),
        "levels": result_tables.levels(report.levels),
        "calibration": result_tables.calibration(report.calibration),
        "subgroups": result_tables.subgroups(report.subgroups),
        "transfer": result_tables.transfer(transfer) if transfer else None,
        "matrix": result_tables.matrix(transfer.matrix) if transfer else None,
        "site": result_tables.site(transfer.model, transfer.site) if transfer else None,
        "paper_transfer": result_tables.paper_transfer() if transfer else None,
        "table_1": result_tables.table_1(reproduction.patch_classifiers) if reproduction else None,
        "other_set": result_tables.other_set(reproduction) if reproduction else None,
    }


def _cards(inputs: ReportInputs, report: Report) -> list[pages.Card]:
    """Return the headline figures."""
    auc, point, films = report.ensemble.score.flips, report.ensemble.at_cutoff, report.data
    hits = [(share, f"{share.hits} of {share.of}") for share in (point.sensitivity, point.specificity)]
    interval = f"95% interval by patient {formats.text(auc.by_patient)}"
    cards = [
        pages.Card(what="Ensemble AUC, test", value=f"{auc.value:.3f}", more=interval),
        *(
            pages.Card(what=f"{what}, test", value=f"{share.value:.1%}", more=f"{counts} {label} films")
            for what, label, (share, counts) in zip(
                ("Sensitivity", "Specificity"), ("malignant", "benign"), hits, strict=True
            )
        ),
        pages.Card(
            what="Films",
            value=formats.count(sum(films.images.values())),
            more=f"of {formats.count(sum(films.patients.values()))} patients; {films.quarantined} quarantined",
        ),
    ]
    val_accuracy = {name: item.facts(TrunkFacts).val_accuracy for name, item in inputs.trunks.items()}
    if patch := summary.patch_classifiers(inputs.patch_accuracy, val_accuracy):
        best, chance = patch.trunks[patch.best], 1 / len(inputs.config.patches.classes)
        more = f"balanced {best.balanced_accuracy:.3f}, chance {chance:.2f}"
        cards.insert(3, pages.Card(what="Patch accuracy, test", value=f"{best.accuracy:.3f}", more=more))
    return cards


def _reliability(found: CalibrationFigures, mark: str) -> dict[str, str]:
    """Return the reliability curve before and after calibration."""
    curves = {"raw scores": found.before.points, f"calibrated ({found.kind})": found.after.points}
    errors = f"{found.before.error:.3f} before and {found.after.error:.3f} after"
    return pages.picture(
        figures.reliability("Reliability of the ensemble's probabilities on test", curves, mark),
        "svg+xml",
        f"Reliability curves of the ensemble on test; the expected calibration error is {errors} calibration",
        f"Films by rising probability, in ten bins of equal size; the expected error is {errors} calibration.",
    )


def _patch_text(inputs: ReportInputs) -> str:
    patches = inputs.config.patches
    around = "one centred on each lesion" if patches.set == "S1" else f"{patches.per_lesion} around each lesion"
    return (
        f"Set {patches.set}: {patches.side} px squares, {around}, and an equal number of background tissue of the same "
        "film, which hold no pixel of any lesion."
    )


def _paper_note(report: Report) -> str:
    if report.phantoms:
        return "The paper's figures are of CBIS-DDSM films, ours of phantoms: a reference, not a comparison."
    if (report.dataset, report.protocol) != ("cbis_ddsm", "paper"):
        return (
            "The paper's figures are of its own split of CBIS-DDSM's training release: another benchmark than this one."
        )
    return "The paper's figures are of the same protocol, on its own random split."


def _seconds(seconds: dict[str, float]) -> list[dict[str, Any]]:
    longest = max([*seconds.values(), 1e-9])
    return [
        {"stage": stage, "seconds": f"{value:,.1f}", "width": max(2, round(240 * value / longest))}
        for stage, value in seconds.items()
    ]
