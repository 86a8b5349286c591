"""mammoflow's own metrics for Prometheus, beside Ray's: through ray.util.metrics. Imports Ray and facts alone.

The process that drives a job counts what its tasks and trials tell it anyway, so nothing is counted twice where Ray
runs a task again, and workers need no metrics of their own. Ray's agent of the node exports them as
`ray_mammoflow_...`, counters with `_total` at the end, for as long as the job runs.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge

from mammoflow.facts.training import EpochFigures


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    kind: Literal["counter", "gauge"]
    text: str
    tags: tuple[str, ...] = ()


METRICS = {
    "images_decoded": Metric("counter", "Images decoded into the lake, or tried to be"),
    "images_cut": Metric("counter", "Images cut into patches, or tried to be"),
    "patients_drawn": Metric("counter", "Phantom patients drawn"),
    "images_mined": Metric("counter", "Training images over which a patch classifier was run"),
    "images_scored": Metric("counter", "New images scored, or tried to be"),
    "patches": Metric("counter", "Patches cut"),
    "bytes_read": Metric("counter", "Bytes of images and outlines that were read from the source [B]"),
    "quarantined": Metric("counter", "Images that could not be used", ("stage",)),
    "training_images_per_second": Metric("gauge", "Images or patches trained on, in the last epoch [1/s]", ("run",)),
    "data_wait_share": Metric("gauge", "Share of the last epoch in which training waited for data [0-1]", ("run",)),
    "epoch": Metric("gauge", "Epochs that a training run has done", ("run",)),
    "validation_auc": Metric("gauge", "Validation AUC after the last epoch [0-1]", ("candidate",)),
    "validation_accuracy": Metric("gauge", "Validation accuracy of patch classifiers [0-1]", ("run",)),
    "candidates": Metric("gauge", "Candidates of the search by state", ("state",)),
}
"""Name -> metric; units in brackets."""


def count(name: str, value: float, **tags: str) -> None:
    """Add to a counter."""
    if value:
        _made(name).inc(value, tags)


def note(name: str, value: float, **tags: str) -> None:
    """Set a gauge."""
    _made(name).set(value, tags)


def of_epoch(run: str, figures: Mapping[str, EpochFigures]) -> None:
    """Take an epoch of a training run: a row for each of its models."""
    for model, row in figures.items():
        note("epoch", row.epoch, run=run)
        note("training_images_per_second", row.images_per_s, run=run)
        note("data_wait_share", row.data_wait, run=run)
        if row.val_accuracy is not None:
            note("validation_accuracy", row.val_accuracy, run=run)
        if row.val_auc is not None:
            note("validation_auc", row.val_auc, candidate=model)


def over(run: str) -> None:
    """Reset the speed of a training run that ended."""
    note("training_images_per_second", 0, run=run)


def states(counts: Mapping[str, int]) -> None:
    """Set the number of a search's candidates in each state."""
    for state, number in counts.items():
        note("candidates", number, state=state)


@functools.cache
def _made(name: str) -> Any:
    metric = METRICS[name]
    kind = {"counter": Counter, "gauge": Gauge}[metric.kind]
    return kind(f"mammoflow_{name}", description=metric.text, tag_keys=metric.tags)
