"""Finished candidates of earlier searches that may join an ensemble: found by what they were trained and judged on.

No Ray, no torch. They must have seen the same images in the same splits, or their validation scores say nothing of
each other; and have been trained in the same arithmetic, for an ensemble predicts in one.
"""

from typing import Any

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.lake import Artefact, Lake
from mammoflow.models.model_files import WEIGHTS_FILE
from mammoflow.tracking import SEARCHES, WEIGHTS_TAG, Tracker


def find(config: Config, root: Lake, images: Artefact, search: Artefact) -> list[dict[str, Any]]:
    """Return the candidates of other searches that the config lets in, best validation AUC first.

    Args:
        config: with `ensemble.pool` and `ensemble.pool_size`.
        root: whose tracking server is asked.
        images: what they must have been trained on.
        search: whose own candidates are left out.

    Returns:
        Of each `name` (with a part of its run's id: two searches may hold the same top layers), `kind`, `backbone`,
        `top_layers`, `folder` of its model and `run_id`. Those whose weights are gone are named and left out.

    Raises:
        TrackingError: the tracking server does not answer.
    """
    if config.ensemble.pool == "search" or not search.done:
        return []
    wanted = splits.same_data(images) | {"precision": config.image_training.precision}
    tracker = Tracker.open(root, SEARCHES)
    found = tracker.finished(wanted, apart_from=search.url, most=config.ensemble.pool_size)
    there = [row for row in found if lake.exists(row[WEIGHTS_TAG])]
    if gone := [row["run_id"] for row in found if row not in there]:
        print(f"  {len(gone)} finished candidates have no weights any more: runs {', '.join(gone)}", flush=True)
    return [_row(row) for row in there]


def _row(run: dict[str, str]) -> dict[str, Any]:
    top, changes = run["top_layers"], run["changes"]
    return {
        "name": f"{run['mlflow.runName']}-{run['run_id'][:8]}",
        "kind": run["kind"],
        "backbone": run["backbone"],
        "top_layers": f"{top} {changes}".strip(),
        "folder": run[WEIGHTS_TAG].removesuffix(f"/{WEIGHTS_FILE}"),
        "run_id": run["run_id"],
    }
