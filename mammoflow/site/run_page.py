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
from mammoflow.ensemble import performance
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.ensemble.split_door import open_split
from mammoflow.lake.schema import MALIGNANT, pixels_of
from mammoflow.metrics.roc import FloatArray
from mammoflow.registry.predictor import Predictor
from mammoflow.registry.registry import Registry
from mammoflow.rendering import pages
from mammoflow.rendering import pictures as draw
from mammoflow.rendering.tables import Column, numbers, table, texts
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
    (rule, frozen), *_ = run.ensembles.items()
    test = run.test_scores()
    mean = ensembles.average(test, frozen)
    labels_N, scores_N = ensembles.columns(mean)
    members = {name: ensembles.columns(ensembles.rows_of(test, name))[1] for name in frozen.names}
    aucs = {name: score.flips for name, score in ensembles.summarise(pa.concat_tables([test, mean])).items()}
    data = {
        "cutoff": frozen.cutoff,
        "labels": labels_N.tolist(),
        "scores": scores_N.tolist(),
        "cases": _cases(run, folder, tracking_uri, frozen, mean, members, cases) if run.version and cases else [],
        "charts": {
            "roc": charts.roc(performance.roc_curves(test, frozen), aucs, ENSEMBLE),
            "spread": charts.scores(labels_N, scores_N),
            "curves": charts.curves(_histories(run), frozen.names),
        },
    }
    context = {**shared, **_words(run, rule, frozen), "data": data, "films": len(labels_N)}
    lake.write_bytes(lake.join(folder, "index.html"), pages.render(TEMPLATE, context, "mammoflow.site"))


def _cases(
    run: Run,
    folder: str,
    tracking_uri: str,
    frozen: Ensemble,
    mean: pa.Table,
    members: Mapping[str, FloatArray],
    most: int,
) -> list[dict[str, Any]]:
    """Write the pictures of a registered run's films, and return what the page shows of them, highest score first."""
    model = Registry(tracking_uri).version(f"models:/{run.version}").load()
    picked = pick(*ensembles.columns(mean), most)
    films = track(_films(run, frozen, mean, picked), f"  films of {run.key}", len(picked))
    shown = [
        _case(run, model, folder, film, {name: values[film["at"]] for name, values in members.items()})
        for film in films
    ]
    return sorted(shown, key=lambda case: -float(case["score"]))


def pick(labels_N: npt.NDArray[np.int64], scores_N: npt.NDArray[np.float64], most: int) -> list[int]:
    """Return which images are shown: an equal number of each class, evenly from the lowest score to the highest.

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


def _films(run: Run, frozen: Ensemble, mean: pa.Table, picked: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the row of each picked test image, its pixels uint16 (H, W), and `at`, its place among the scores."""
    places = {mean["image_id"][at].as_py(): at for at in picked}
    image_ids = pa.array(list(places), pa.string())
    for shard in open_split(run.images, "test", frozen):
        here = pc.is_in(lake.read_table(shard, ["image_id"])["image_id"], image_ids)
        if pc.any(here).as_py():
            rows = lake.read_table(shard, ["image_id", *_FACTS, "pixels"]).filter(here)
            for row, pixels_HW in zip(rows.drop_columns("pixels").to_pylist(), pixels_of(rows), strict=True):
                at = places[row["image_id"]]
                score, label = mean["score_tta"][at].as_py(), mean["label"][at].as_py()
                yield {**row, "pixels": pixels_HW, "at": at, "score": score, "label": label}


def _case(run: Run, model: Predictor, folder: str, film: dict[str, Any], members: dict[str, float]) -> dict[str, Any]:
    """Write a film's picture and return what the page shows of it."""
    (map_uv,) = model.evidence(film["pixels"][None])
    shown_uv = map_uv * np.float32(film["score"])
    name = f"cases/{film['at']:05}.jpg"
    lake.write_bytes(lake.join(folder, name), draw.case(film["pixels"], draw.lesions_of(film), shown_uv, run.mark))
    kinds = sorted({f"{lesion['pathology']} {lesion['kind']}" for lesion in film["lesions"] or []})
    return {
        "at": film["at"],
        "src": name,
        "view": " ".join(film[each] for each in ("laterality", "view") if film[each]) or "view unknown",
        "density": film["density"],
        "vendor": film["vendor"],
        "lesions": kinds,
        "malignant": film["label"] == MALIGNANT,
        "score": film["score"],
        "probability": float(model.ensemble.calibration.apply([film["score"]])[0]),
        "members": {each: round(float(score), 3) for each, score in members.items()},
    }


def _histories(run: Run) -> dict[str, Any]:
    """Return every candidate's epochs, best candidate first."""
    return {row.name: lake.read_json(run.search.file("candidates", row.name, "history.json")) for row in run.ranking}


def _words(run: Run, rule: str, frozen: Ensemble) -> dict[str, Any]:
    members = [(member.name, member.kind, member.val_auc, member.times) for member in frozen.members]
    columns = [Column(name="member", kind="path"), *texts("kind"), *numbers("validation A-AUC", "times")]
    return {
        "name": run.evaluation.name,
        "key": run.key,
        "mark": run.mark,
        "images": run.images.key.partition("/")[2],
        "rule": rule.replace("_", " "),
        "version": run.version,
        "members": table("Members of the ensemble, chosen on validation", columns, members),
    }
