"""Finished candidates of earlier searches that may join an ensemble: found by what they were trained and judged on.

No Ray, no torch. They must have seen the same images in the same splits, or their validation scores can't be compared;
and have been trained in the same arithmetic, as an ensemble predicts in one.
"""

from dataclasses import dataclass

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.lake import Artefact, Lake
from mammoflow.models.model_files import WEIGHTS_FILE
from mammoflow.tracking import SEARCHES, WEIGHTS_TAG, Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledCandidate:
    """A candidate of another search."""

    name: str
    """With a part of its run's id: two searches may hold the same top layers."""
    kind: str
    backbone: str
    top_layers: str
    """Its spec, and what was changed in its training."""
    folder: str
    """Of its model."""
    run_id: str


def find(config: Config, root: Lake, images: Artefact, search: Artefact) -> list[PooledCandidate]:
    """Return the candidates of other searches that the config lets in, best validation AUC first.

    Those whose weights are gone are named and left out.

    Args:
        config: with `ensemble.pool` and `ensemble.pool_size`.
        root: whose tracking server is asked.
        images: what they must have been trained on.
        search: whose own candidates are left out.

    Raises:
        TrackingError: the tracking server does not answer.
    """
    if config.ensemble.pool == "search" or not search.done:
        return []
    same = splits.same_data(images) | {"precision": config.image_training.precision}
    finished = Tracker.open(root, SEARCHES).finished(same, apart_from=search.url, most=config.ensemble.pool_size)
    usable = [run for run in finished if lake.exists(run[WEIGHTS_TAG])]
    if gone := [run["run_id"] for run in finished if run not in usable]:
        print(f"  {len(gone)} finished candidates have no weights any more: runs {', '.join(gone)}", flush=True)
    return [_pooled(run) for run in usable]


def _pooled(run: dict[str, str]) -> PooledCandidate:
    return PooledCandidate(
        name=f"{run['mlflow.runName']}-{run['run_id'][:8]}",
        kind=run["kind"],
        backbone=run["backbone"],
        top_layers=f"{run['top_layers']} {run['changes']}".strip(),
        folder=run[WEIGHTS_TAG].removesuffix(f"/{WEIGHTS_FILE}"),
        run_id=run["run_id"],
    )
