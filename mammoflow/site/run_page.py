"""The page of one run: a threshold to move, curves, and test films with maps of where their scores come from. No Ray.

Shape letters: N test images, H W rows and columns of an image [px], u v rows and columns of a map.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import track

from mammoflow import lake
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics.roc import FloatArray
from mammoflow.registry.predictor import Predictor
from mammoflow.registry.registry import Registry
from mammoflow.rendering import pages
from mammoflow.rendering import pictures as draw
from mammoflow.reports.pictures import pixels_of
from mammoflow.site import charts
from mammoflow.site.runs import Run

TEMPLATE = "run.html"
_FACTS = ("laterality", "view", "density", "vendor", "lesions")


def write(run: Run, folder: str, tracking_uri: str, cases: int, shared: dict[str, Any]) -> None:
    """Write a run's page and the pictures of its cases; the page last.

    Films are shown of registered runs alone, whose models the registry holds.

    Args:
        run: an evaluated run.
        folder: folder or URL of the page.
        tracking_uri: of the registry.
        cases: most films that are shown.
        shared: what every page of the site shows.

    Raises:
        LakeError: an artefact is incomplete, or `folder` can't be written.
        TrackingError: the registry does not hold the run's version.
    """
    (rule, frozen), *_ = run.ensembles().items()
    test = run.scores("test")
    mean = ensembles.average(test, frozen)
    labels_N, scores_N = ensembles.columns(mean)
    members = {name: ensembles.columns(ensembles.rows_of(test, name))[1] for name in frozen.names}
    shown = _cases(run, folder, tracking_uri, mean, members, cases) if run.version and cases else []
    said = {
        "cutoff": frozen.cutoff,
        "labels": labels_N.tolist(),
        "scores": scores_N.tolist(),
        "cases": shown,
        "charts": {
            "roc": charts.roc_curves(labels_N, {**members, ENSEMBLE: scores_N}, ENSEMBLE),
            "spread": charts.scores(labels_N, scores_N),
            "curves": charts.curves(_histories(run), frozen.names),
        },
    }
    context = {**shared, **_words(run, rule, frozen), "data": said, "films": len(labels_N)}
    lake.write_bytes(lake.join(folder, "index.html"), pages.render(TEMPLATE, context, "mammoflow.site"))


def _cases(
    run: Run, folder: str, tracking_uri: str, mean: pa.Table, members: Mapping[str, FloatArray], most: int
) -> list[dict[str, Any]]:
    """Write the pictures of a registered run's films, and return what the page says of them, highest score first."""
    model = Registry(tracking_uri).version(f"models:/{run.version}").load()
    picked = pick(*ensembles.columns(mean), most)
    films = track(_films(run, mean, picked), f"  films of {run.key}", len(picked))
    shown = [
        _case(run, model, folder, film, {name: each[film["at"]] for name, each in members.items()}) for film in films
    ]
    return sorted(shown, key=lambda case: -float(case["score"]))


def pick(labels_N: npt.NDArray[np.int64], scores_N: npt.NDArray[np.float64], most: int) -> list[int]:
    """Return which images are shown: of each class as many, evenly from the lowest score to the highest.

    Args:
        labels_N: 0 or 1, (N,).
        scores_N: (N,) [0-1].
        most: how many at most; where a class has too few, the other one has more.
    """
    classes = sorted((np.flatnonzero(labels_N == each) for each in np.unique(labels_N)), key=len)
    picked: list[int] = []
    for left, members in zip(range(len(classes), 0, -1), classes, strict=True):
        number = min(len(members), (most - len(picked)) // left)
        ranked = members[np.argsort(scores_N[members], kind="stable")]
        picked += ranked[np.linspace(0, len(ranked) - 1, number).round().astype(int)].tolist()
    return sorted(picked)


def _films(run: Run, mean: pa.Table, picked: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the row of each picked test image, its pixels uint16 (H, W), and `at`, its place among the scores."""
    places = {mean["image_id"][at].as_py(): at for at in picked}
    wanted = pa.array(list(places), pa.string())
    for shard in lake.iter_shards(run.images, "test"):
        here = pc.is_in(lake.read_table(shard, ["image_id"])["image_id"], wanted)
        if pc.any(here).as_py():
            rows = lake.read_table(shard, ["image_id", *_FACTS, "pixels"]).filter(here)
            for row, pixels_HW in zip(rows.drop_columns("pixels").to_pylist(), pixels_of(rows), strict=True):
                at = places[row["image_id"]]
                score, label = mean["score_tta"][at].as_py(), mean["label"][at].as_py()
                yield {**row, "pixels": pixels_HW, "at": at, "score": score, "label": label}


def _case(run: Run, model: Predictor, folder: str, about: dict[str, Any], members: dict[str, float]) -> dict[str, Any]:
    """Write a film's picture and return what the page says of it."""
    (map_uv,) = model.evidence(about["pixels"][None])
    shown_uv = map_uv * np.float32(about["score"])
    name = f"cases/{about['at']:05}.jpg"
    lake.write_bytes(lake.join(folder, name), draw.case(about["pixels"], draw.lesions_of(about), shown_uv, run.mark))
    kinds = sorted({f"{lesion['pathology']} {lesion['kind']}" for lesion in about["lesions"] or []})
    return {
        "at": about["at"],
        "src": name,
        "view": " ".join(about[each] for each in ("laterality", "view") if about[each]) or "view unknown",
        "density": about["density"],
        "vendor": about["vendor"],
        "lesions": kinds,
        "malignant": about["label"] == MALIGNANT,
        "score": about["score"],
        "probability": float(model.ensemble.calibration.apply([about["score"]])[0]),
        "members": {each: round(float(score), 3) for each, score in members.items()},
    }


def _histories(run: Run) -> dict[str, Any]:
    """Return every candidate's epochs, best candidate first."""
    return {
        row["name"]: lake.read_json(run.search.file("candidates", row["name"], "history.json")) for row in run.ranking
    }


def _words(run: Run, rule: str, frozen: Ensemble) -> dict[str, Any]:
    members = [
        pages.cells(each.name, each.kind, f"{each.val_auc:.3f}", each.times, strong=False) for each in frozen.members
    ]
    columns, classes = ["member", "kind", "validation A-AUC", "times"], ["path", "", "n", "n"]
    return {
        "name": run.evaluation.name,
        "key": run.key,
        "mark": run.mark,
        "images": run.images.key.partition("/")[2],
        "rule": rule.replace("_", " "),
        "version": run.version,
        "members": pages.table("Members of the ensemble, chosen on validation", columns, classes, members),
    }
