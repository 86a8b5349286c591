"""The figures of one run in one dict, as `summary.json` and the last table of jobs show them. No Ray, MLflow, torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.metrics import calibration


def model_rows(val_scores: pa.Table, test_scores: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return per-image AUCs of each model on validation and test, best validation first.

    `val_auc`, `test_auc` are of the plain score, `test_auc_tta` of the flip-averaged one, `ci95` is its interval.
    """
    val, test = ensembles.summarise(val_scores), ensembles.summarise(test_scores)
    rows = [
        {
            "name": name,
            "kind": kinds[name],
            "val_auc": val[name]["auc"],
            "val_auc_tta": val[name]["auc_tta"],
            "test_auc": figures["auc"],
            "test_auc_tta": figures["auc_tta"],
            "ci95": figures["ci95_tta"],
        }
        for name, figures in test.items()
    ]
    return sorted(rows, key=lambda row: -row["val_auc_tta"])


def ensemble_row(val_scores: pa.Table, test_scores: pa.Table, chosen: Ensemble) -> dict[str, Any]:
    """Return the ensemble's members, test AUC with interval, and sensitivity and specificity at its cut-off."""
    val = ensembles.summarise(ensembles.average(val_scores, chosen))[ENSEMBLE]
    test = ensembles.summarise(ensembles.average(test_scores, chosen))[ENSEMBLE]
    point = ensembles.performance(test_scores, chosen)
    return {
        "members": list(chosen.names),
        "val_auc": val["auc"],
        "val_auc_tta": val["auc_tta"],
        "test_auc": test["auc_tta"],
        "test_auc_plain": test["auc"],
        "ci95": test["ci95_tta"],
        "cutoff": chosen.cutoff,
        "sensitivity": point.sensitivity.value,
        "specificity": point.specificity.value,
    }


def at_site(scores: pa.Table, chosen: Ensemble) -> dict[str, Any]:
    """Return what an ensemble reaches on a split of another data set, at its own cut-off and by its own calibration.

    Args:
        scores: schema.SCORES of every member on that split.
        chosen: the ensemble.

    Returns:
        `auc`, `ci95` (by patient), `sensitivity`, `specificity` [0-1], `error` (expected calibration error), `brier`,
        `kind` of calibration, `cutoff`, `images`, `malignant`.
    """
    means = ensembles.average(scores, chosen)
    found, point = ensembles.summarise(means)[ENSEMBLE], ensembles.performance(scores, chosen)
    labels_N, scores_N = ensembles.columns(means)
    probabilities_N = chosen.calibration.apply(scores_N)
    return {
        "auc": found["auc_tta"],
        "ci95": found["ci95_patients"],
        "sensitivity": point.sensitivity.value,
        "specificity": point.specificity.value,
        "error": calibration.expected_error(labels_N, probabilities_N),
        "brier": calibration.brier(labels_N, probabilities_N),
        "kind": chosen.calibration.kind,
        "cutoff": chosen.cutoff,
        "images": found["images"],
        "malignant": found["malignant"],
    }


def best_patch_classifier(
    test: Mapping[str, Mapping[str, Any]], val_accuracy: Mapping[str, float | None]
) -> Mapping[str, Any] | None:
    """Return the test figures of the trunk whose patch classifier is best on validation; None where there is none."""
    if not test:
        return None
    return test[max(test, key=lambda name: val_accuracy[name] or 0.0)]


def summarise(
    *,
    recipe: str,
    images: Mapping[str, Any],
    patches: Mapping[str, Any],
    patch_accuracy: Mapping[str, Mapping[str, Any]],
    patch_val_accuracy: Mapping[str, float | None],
    ranking: Sequence[Mapping[str, Any]],
    val_scores: pa.Table,
    test_scores: pa.Table,
    chosen: Ensemble,
    registered: str,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Gather the summaries of all stages into the dict of `summary.json`."""
    best = best_patch_classifier(patch_accuracy, patch_val_accuracy)
    trunks = {
        name: {key: figures[key] for key in ("accuracy", "balanced_accuracy")}
        for name, figures in patch_accuracy.items()
    }
    return {
        "recipe": recipe,
        "images": dict(images["images"]),
        "patches": {split: sum(counts.values()) for split, counts in patches["patches"].items()},
        "patch": best
        and {"accuracy": best["accuracy"], "balanced_accuracy": best["balanced_accuracy"], "trunks": trunks},
        "models": model_rows(val_scores, test_scores, {row["name"]: row["kind"] for row in ranking}),
        "ensemble": ensemble_row(val_scores, test_scores, chosen),
        "registered": registered,
        "quarantined": images["quarantined"],
        "seconds": dict(seconds),
    }
