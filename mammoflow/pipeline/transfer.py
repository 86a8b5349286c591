"""A registered ensemble on another data set: as it is, recalibrated, and trained on with ever more patients there.

The paper's Table 4 with intervals, and beside it what each ensemble reaches on the other's test images. Every size is a
run of the pipeline of its own, so a rerun does what is missing; the test images are the same at every size.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import evaluation
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.errors import ConfigError
from mammoflow.lake import Artefact, Lake
from mammoflow.metrics import roc
from mammoflow.pipeline import build, outcome, stages
from mammoflow.pipeline.graph import Artefacts
from mammoflow.registry import starting_points


def run(config: Config) -> Artefact:
    """Do all sizes of `config.transfer`, and gather what came out.

    Args:
        config: of the new data, with `start`, a registered ensemble.

    Returns:
        The artefact whose `stages.FIGURES` holds `model` (what was begun from), `site` (`findings.transferred`),
        `rows` (one a size: `patients`, `images`, `malignant` to train on, `members` and `ensemble`, each with `auc` and
        `ci95`), `matrix` (one a model and test set: `model`, `data`, `auc`, `ci95`, `images`) and `curves` (ROC on test
        after the most patients).

    Raises:
        ConfigError: no sizes, or no registered ensemble.
        MammoflowError: as in `pipeline.ensure`.
    """
    if not config.transfer:
        raise ConfigError("transfer is empty; give the numbers of patients to train on, such as --transfer 20 40 72")
    whole = replace(config, splits=replace(config.splits, patients=None), transfer=())
    before = build.ensure("external", whole)
    config = replace(config, start=before.config.start)  # one version, whatever is promoted meanwhile
    runs = {patients: build.ensure("evaluation", _of(config, patients)) for patients in sorted({*config.transfer})}
    (scored,) = before.of("external")
    made = [each.evaluation for each in runs.values()]
    out = before.lake.artefact(stages.TRANSFER, config.name, scored, *made)
    if not out.done:
        found = {
            "model": str(config.start),
            "site": outcome.transferred(before),
            "rows": [_untouched(scored, before), *(_row(patients, each) for patients, each in runs.items())],
            "matrix": _matrix(before, runs[max(runs)], out),
            "curves": _curves(runs[max(runs)]),
        }
        lake.write_json(out.file(stages.FIGURES), found)
        out.finish({"sizes": [*runs]}, [scored, *made])
        lake.remove(out.file("work"))
    return out


def _of(config: Config, patients: int) -> Config:
    return replace(config, splits=replace(config.splits, patients=patients), transfer=())


def _untouched(scored: Artefact, before: Artefacts) -> dict[str, Any]:
    """Return the row of the ensemble as it is, trained on nobody here."""
    test = lake.read_table(scored.file("test.parquet"))
    return {"patients": 0, "images": 0, "malignant": 0, **_reached(test, before.begun[1].ensemble)}


def _curves(after: Artefacts) -> dict[str, dict[str, list[float]]]:
    """Return the ROC curves of the ensemble that saw most patients, and of its members, on test."""
    chosen = outcome.load_ensemble(after)
    test = lake.read_table(after.evaluation.file("test.parquet"))
    tables = {name: ensembles.rows_of(test, name) for name in chosen.names} | {
        ENSEMBLE: ensembles.average(test, chosen)
    }
    found = {}
    for name, rows in tables.items():
        false_positive, true_positive, _ = roc.roc_points(*ensembles.columns(rows))
        found[name] = {"false_positive": false_positive.tolist(), "true_positive": true_positive.tolist()}
    return found


def _row(patients: int, done: Artefacts) -> dict[str, Any]:
    films = done.images.summary()
    test = lake.read_table(done.evaluation.file("test.parquet"))
    used = {name: sum(films[name].get(split, 0) for split in ("train", "val")) for name in ("images", "malignant")}
    return {"patients": patients, **used, **_reached(test, outcome.load_ensemble(done))}


def _reached(test: pa.Table, chosen: Ensemble) -> dict[str, Any]:
    """Return AUC and interval of every model and of the ensemble."""
    of_models = ensembles.summarise(test)
    whole = ensembles.summarise(ensembles.average(test, chosen))[ENSEMBLE]
    return {"members": {name: _figures(each) for name, each in of_models.items()}, "ensemble": _figures(whole)}


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"auc": found["auc_tta"], "ci95": found["ci95_patients"], "images": found["images"]}


def _matrix(before: Artefacts, after: Artefacts, out: Artefact) -> list[dict[str, Any]]:
    """Return what the ensemble begun from and the one trained on reach, each on both data sets' test images."""
    (begun, about), own = before.begun, outcome.load_ensemble(after)
    (scored,) = before.of("external")
    here = lake.read_table(scored.file("test.parquet")), lake.read_table(after.evaluation.file("test.parquet"))
    rows = [
        {"model": name, "data": "this site", **_reached(test, chosen)["ensemble"]}
        for name, test, chosen in (("begun from", here[0], about.ensemble), ("trained on", here[1], own))
    ]
    origin = _origin(before.lake, about.card["data"]["images"])
    if origin is None:
        print("  the data that the ensemble comes from are not in this lake: it is not scored on them", flush=True)
        return rows
    compute = before.config.compute
    folders = {name: after.search.file("candidates", name, "best") for name in own.names}
    for name, models, chosen in (
        ("begun from", starting_points.fetch(begun, out), about.ensemble),
        ("trained on", folders, own),
    ):
        kept = {member: models[member] for member in chosen.names}
        test = evaluation.score_split(kept, origin, "test", compute, ensemble=chosen)
        rows.append({"model": name, "data": "where it began", **_reached(test, chosen)["ensemble"]})
    return rows


def _origin(root: Lake, fingerprint: str) -> Artefact | None:
    """Return the images of that fingerprint, where the lake holds them."""
    return next((item for item in lake.list_complete(root, "images") if item.fingerprint == fingerprint), None)
