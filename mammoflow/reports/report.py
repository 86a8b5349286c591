"""The report: everything that a run found, as one HTML file that opens offline. No Ray, no MLflow.

Pictures are inside the file. Where the run drew phantoms, every figure says so. report_tables.py and
report_pictures.py make the parts; report.html lays them out.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import mammoflow
from mammoflow import lake
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE
from mammoflow.rendering import figures, pages
from mammoflow.reports import cases, data_sets, numbers, pictures, results, tables
from mammoflow.reports.inputs import ReportInputs
from mammoflow.reports.summary import best_patch_classifier

__all__ = ["ReportInputs", "write"]


def write(inputs: ReportInputs, url: str) -> str:
    """Write the report, and beside it every number of it as JSON; return its URL.

    Args:
        inputs: a finished run.
        url: of the HTML file.

    Raises:
        LakeError: an artefact is incomplete, or `url` can't be written.
        SplitError: a split lacks a class, so that no AUC can be given.
    """
    found = numbers.numbers(inputs)
    lake.write_json(f"{url.removesuffix('.html')}.json", found)
    lake.write_bytes(url, pages.render("report.html", context(inputs, found)))
    return url


def context(inputs: ReportInputs, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows, as plain values."""
    config = inputs.config
    origin = (
        f"phantoms drawn by mammoflow in the layout {config.dataset}"
        if inputs.mark
        else f"{config.dataset} from {config.source}"
    )
    on = (
        f"trunks {', '.join(inputs.trunks)}; patches {config.patches.set}"
        if inputs.trunks
        else f"begun from {config.start}"
    )
    return {
        "name": config.name,
        "subtitle": f"Whole-image cancer classifiers: {origin}; {on}; seed {config.seed}.",
        "mark": inputs.mark,
        "size": f"{config.images.height} x {config.images.width}",
        "cards": _cards(inputs),
        "tables": tables.tables(inputs) | results.tables(found),
        "intensity": data_sets.intensity(inputs.images, data_sets.beside(inputs.images)),
        "cases": cases.cases(inputs),
        "reliability": _reliability(inputs, found["calibration"]),
        "references": found["references"],
        "patch_text": _patch_text(inputs) if inputs.trunks else "",
        "paper_note": _paper_note(inputs),
        "registered_text": f"Registered as models:/{inputs.registered['name']}/{inputs.registered['version']}.",
        "quarantine_text": tables.quarantine_text(inputs),
        **pictures.pictures(inputs),
        "seconds": _seconds(inputs.seconds),
        "config": json.dumps(asdict(config), indent=1),
        "version": mammoflow.__version__,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
    }


def _cards(inputs: ReportInputs) -> list[dict[str, str]]:
    """Return the headline figures."""
    test = ensembles.summarise(inputs.test_ensemble)[ENSEMBLE]
    point = ensembles.performance(inputs.test_scores, inputs.ensemble)
    films = inputs.images.summary()
    low, high = test["ci95_tta"]
    val_accuracy = {name: item.summary()["val_accuracy"] for name, item in inputs.trunks.items()}
    patch = best_patch_classifier(inputs.patch_accuracy, val_accuracy)
    cards = [
        {
            "what": "Ensemble AUC, test",
            "value": f"{test['auc_tta']:.3f}",
            "more": f"95% interval {low:.3f} to {high:.3f}",
        },
        {
            "what": "Sensitivity, test",
            "value": f"{point.sensitivity.value:.1%}",
            "more": f"{point.sensitivity.hits} of {point.sensitivity.of} malignant films",
        },
        {
            "what": "Specificity, test",
            "value": f"{point.specificity.value:.1%}",
            "more": f"{point.specificity.hits} of {point.specificity.of} benign films",
        },
        {
            "what": "Films",
            "value": f"{sum(films['images'].values()):,}",
            "more": f"of {sum(films['patients'].values()):,} patients; {films['quarantined']} quarantined",
        },
    ]
    if patch:
        chance = 1 / len(inputs.config.patches.classes)
        more = f"balanced {patch['balanced_accuracy']:.3f}, chance {chance:.2f}"
        cards.insert(3, {"what": "Patch accuracy, test", "value": f"{patch['accuracy']:.3f}", "more": more})
    return cards


def _reliability(inputs: ReportInputs, found: dict[str, Any]) -> dict[str, str]:
    """Return the reliability curve before and after calibration."""
    parts = {"scores as they are": found["before"]["bins"], f"calibrated ({found['kind']})": found["after"]["bins"]}
    errors = f"{found['before']['error']:.3f} before and {found['after']['error']:.3f} after"
    return pages.picture(
        figures.reliability("Reliability of the ensemble's probabilities on test", parts, inputs.mark),
        "svg+xml",
        f"Reliability curves of the ensemble on test; the expected calibration error is {errors} calibration",
        f"Films by rising probability, in ten parts of as many each; the expected error is {errors} calibration.",
    )


def _patch_text(inputs: ReportInputs) -> str:
    patches = inputs.config.patches
    around = "one centred on each lesion" if patches.set == "S1" else f"{patches.per_lesion} around each lesion"
    return (
        f"Set {patches.set}: {patches.side} px squares, {around}, and as many of background tissue of the same film, "
        "which hold no pixel of any lesion."
    )


def _paper_note(inputs: ReportInputs) -> str:
    if inputs.mark:
        return "The paper's figures are of CBIS-DDSM films, ours of phantoms: a reference, not a comparison."
    if inputs.config.dataset != "cbis_ddsm" or inputs.config.splits.protocol != "paper":
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
