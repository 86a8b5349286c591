"""The figures of one run, as `summary.json` and the last table of jobs show them. No Ray, MLflow, torch."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import performance
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.selection import Candidate
from mammoflow.facts.published import EnsembleFigures, ModelFigures, PatchSummary, Summary
from mammoflow.facts.stages import ImagesFacts, PatchAccuracy, PatchesFacts


def models(val_scores: pa.Table, test_scores: pa.Table, kinds: Mapping[str, str]) -> tuple[ModelFigures, ...]:
    """Return what each model reaches on validation and test, best validation A-AUC first."""
    val = ensembles.summarise(val_scores)
    rows = [
        ModelFigures(name=name, kind=kinds[name], val=val[name], test=test)
        for name, test in ensembles.summarise(test_scores).items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.val.flips.value))


def ensemble(val_scores: pa.Table, test_scores: pa.Table, chosen: Ensemble) -> EnsembleFigures:
    """Return what the ensemble reaches on validation and test."""
    reached = performance.measure(test_scores, chosen)
    return EnsembleFigures(
        members=chosen.names,
        val=ensembles.summarise_ensemble(val_scores, chosen),
        test=reached.score,
        at_cutoff=reached.at_cutoff,
    )


def patch_classifiers(
    test: Mapping[str, PatchAccuracy], val_accuracy: Mapping[str, float | None]
) -> PatchSummary | None:
    """Return the patch classifiers on test; None without any."""
    if not test:
        return None
    return PatchSummary(best=max(test, key=lambda name: val_accuracy[name] or 0.0), trunks=dict(test))


def summarise(
    *,
    recipe: str,
    images: ImagesFacts,
    patches: PatchesFacts,
    patch_accuracy: Mapping[str, PatchAccuracy],
    patch_val_accuracy: Mapping[str, float | None],
    ranking: Sequence[Candidate],
    val_scores: pa.Table,
    test_scores: pa.Table,
    chosen: Ensemble,
    registered: str,
    seconds: Mapping[str, float],
) -> Summary:
    """Gather what all stages found into the record of `summary.json`."""
    return Summary(
        recipe=recipe,
        images=images.images,
        patches={split: sum(counts.values()) for split, counts in patches.patches.items()},
        patch=patch_classifiers(patch_accuracy, patch_val_accuracy),
        models=models(val_scores, test_scores, {row.name: row.kind for row in ranking}),
        ensemble=ensemble(val_scores, test_scores, chosen),
        registered=registered,
        quarantined=images.quarantined,
        seconds=dict(seconds),
    )
