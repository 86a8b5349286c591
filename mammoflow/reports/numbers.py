"""Every number of the report, as plain values: what report.json holds and its tables show. No Ray, MLflow, torch.

Shape letters: N images.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import subgroups
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.metrics import calibration, levels, operating_points, resampling, roc
from mammoflow.metrics.calibration import Calibration
from mammoflow.metrics.levels import Level, Rule
from mammoflow.metrics.resampling import Resampling
from mammoflow.reports import paper_tables, summary
from mammoflow.reports.inputs import ReportInputs

SHOWN_LEVELS: tuple[tuple[Level, Rule], ...] = (
    ("image", "mean"),
    ("breast", "mean"),
    ("breast", "max"),
    ("patient", "mean"),
    ("patient", "max"),
)


def numbers(inputs: ReportInputs) -> dict[str, Any]:
    """Return every number of a finished run.

    Raises:
        SplitError: a split lacks a class, so that no AUC can be given.
    """
    test = ensembles.summarise(inputs.test_scores)
    found: dict[str, Any] = _plain(
        {
            "recipe": inputs.config.name,
            "dataset": inputs.config.dataset,
            "protocol": inputs.config.splits.protocol,
            "phantoms": bool(inputs.mark),
            "registered": dict(inputs.registered),
            "data": {
                name: inputs.images.summary()[name] for name in ("images", "malignant", "patients", "quarantined")
            },
            "patch_classifiers": {name: dict(figures) for name, figures in inputs.patch_accuracy.items()},
            "candidates": [
                {**row, "test": test.get(row["name"]), "paper": paper(inputs, row)} for row in inputs.ranking
            ],
            "compared": compared(inputs),
            "levels": of_levels(inputs),
            "calibration": of_calibration(inputs),
            "subgroups": [
                asdict(group) for group in subgroups.table(inputs.test_ensemble, inputs.facts, inputs.ensemble.cutoff)
            ],
            "transfer": inputs.transfer,
            "reproduction": inputs.reproduction,
            "references": dict(paper_tables.REFERENCES),
        }
    )
    return found


def paper(inputs: ReportInputs, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the paper's figures of a candidate, where it has this very one; None elsewhere."""
    if not inputs.trunks or row["changes"]:
        return None
    found = paper_tables.find(row["backbone"], inputs.config.patches.set, row["top_layers"])
    return None if found is None else asdict(found)


def compared(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Return the ways to a whole-image score beside each other on test, each frozen on validation.

    The two-step baseline, the best single model of each family by validation, and the ensemble of each rule; of each
    `name`, `of` (what it is made of), `members` (how often each counts), `val_auc`, the figures of `summary.at_site`,
    `ci95_delong`, `partial_auc`, `over_baseline` (difference in AUC with interval and DeLong's p; None without a
    baseline), `paper` (AUC, or None).
    """
    ways = [*_singles(inputs), *_means(inputs)]
    base = None
    if inputs.baseline is not None:
        of = f"random forest on heatmaps of {inputs.baseline.backbone}"
        ways = [(_BASELINE, of, inputs.baseline.choice, inputs.baseline.test), *ways]
        base = ensembles.average(inputs.baseline.test, inputs.baseline.choice)
    return [_way(inputs, name, of, chosen, scores, base) for name, of, chosen, scores in ways]


_BASELINE = "two-step baseline"

Way = tuple[str, str, Ensemble, pa.Table]


def _singles(inputs: ReportInputs) -> list[Way]:
    """Return the best model of each family by validation AUC, as ensembles of one."""
    found: list[Way] = []
    for family, chosen in inputs.singles.items():
        member = chosen.members[0]
        found.append((family, f"{member.backbone}: {member.top_layers}", chosen, inputs.test_scores))
    return found


def _means(inputs: ReportInputs) -> list[Way]:
    """Return the ensemble of each rule."""
    said = {"best_of_kinds": "mean of the best of each kind", "greedy": "greedy ensemble"}
    found: list[Way] = []
    for rule, chosen in inputs.ensembles.items():
        of = f"{len(chosen.members)} models, of {sum(member.times for member in chosen.members)} shares"
        found.append((said.get(rule, rule), of, chosen, inputs.test_scores))
    return found


def _way(
    inputs: ReportInputs, name: str, of: str, chosen: Ensemble, scores: pa.Table, base: pa.Table | None
) -> dict[str, Any]:
    means = ensembles.average(scores, chosen)
    labels_N, scores_N = ensembles.columns(means)
    over = None
    if base is not None and name != _BASELINE:
        over = asdict(roc.auc_difference(labels_N, scores_N, ensembles.columns(base)[1]))
    return {
        "name": name,
        "of": of,
        "members": {member.name: member.times for member in chosen.members},
        "val_auc": chosen.val_auc,
        **summary.at_site(scores, chosen),
        "ci95_delong": list(roc.auc_interval(labels_N, scores_N)),
        "partial_auc": roc.partial_auc(labels_N, scores_N),
        "over_baseline": over,
        "paper": paper_tables.WAYS.get(name) if inputs.trunks else None,
    }


def of_levels(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Return the ensemble's test figures by image, breast and patient, views joined by mean or maximum.

    Of each `level`, `rule`, `cases`, `malignant`, `auc`, `ci95` (by patient), `sensitivity`, `specificity` at the
    images' cut-off.
    """
    found = []
    for level, rule in SHOWN_LEVELS:
        rows = levels.group(inputs.test_ensemble, level, rule)
        labels_N, scores_N = ensembles.columns(rows)
        point = operating_points.at_cutoff(labels_N, scores_N, inputs.ensemble.cutoff)
        found.append(
            {
                "level": level,
                "rule": rule,
                "cases": len(labels_N),
                "malignant": int(labels_N.sum()),
                "auc": roc.auc(labels_N, scores_N),
                "ci95": list(resampling.interval(Resampling(labels_N, levels.patients(rows)).aucs(scores_N))),
                "sensitivity": asdict(point.sensitivity),
                "specificity": asdict(point.specificity),
            }
        )
    return found


def of_calibration(inputs: ReportInputs) -> dict[str, Any]:
    """Return how well the ensemble's probabilities hold on test: `kind`, and `before` and `after` it was calibrated.

    Each holds `error` (expected calibration error), `brier` and `bins` (points of the reliability curve).
    """
    labels_N, scores_N = ensembles.columns(inputs.test_ensemble)
    ways = {"before": Calibration(), "after": inputs.ensemble.calibration}
    return {"kind": inputs.ensemble.calibration.kind} | {
        when: {
            "error": calibration.expected_error(labels_N, way.apply(scores_N)),
            "brier": calibration.brier(labels_N, way.apply(scores_N)),
            "bins": [asdict(each) for each in calibration.bins(labels_N, way.apply(scores_N))],
        }
        for when, way in ways.items()
    }


def _plain(value: Any) -> Any:
    """Return values that JSON holds: no NumPy numbers, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
