"""Pictures of the report, as data URIs with alt texts and captions for the template. No Ray, no MLflow.

Shape letters: H W rows and columns of an image [px], P patch side [px], u v rows and columns of a heatmap, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow import lake
from mammoflow.ensemble import performance, prediction
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.ensemble.split_door import open_split
from mammoflow.errors import LakeError
from mammoflow.facts.published import Report
from mammoflow.facts.stages import SearchFacts
from mammoflow.lake import Artefact
from mammoflow.lake.schema import BENIGN, MALIGNANT, pixels_of
from mammoflow.models.classifiers import PatchClassifier
from mammoflow.rendering import figures, pages
from mammoflow.rendering import pictures as draw
from mammoflow.reports.inputs import ReportInputs
from mammoflow.search import charts

_FILMS = 8
_PATCHES = 12
_COLUMNS = 6
_GREY = "#b3bcc6"


def pictures(inputs: ReportInputs, report: Report) -> dict[str, Any]:
    """Return every picture of the report by the name that the template knows."""
    return {
        "films": _films(inputs),
        "sheets": _sheets(inputs) if inputs.trunks else [],
        "trunk_curves": [picture for name in inputs.trunks for picture in _trunk_curves(inputs, name)],
        "candidate_curves": [picture for name in _backbones(inputs) for picture in _candidate_curves(inputs, name)],
        "search": _search(inputs),
        "roc": _roc(inputs, report),
        "transfer_roc": _transfer_roc(report, inputs.mark),
        "heatmaps": _heatmaps(inputs) if inputs.trunks else [],
    }


def _search(inputs: ReportInputs) -> dict[str, str]:
    """Return all candidates at a glance."""
    best, many = inputs.ranking[0], len(inputs.ranking)
    reached = f"the best, {best.written} on {best.backbone}, reaches {best.val_auc:.3f}"
    return pages.picture(
        charts.search(inputs.search.facts(SearchFacts).ranking, inputs.mark, "svg"),
        "svg+xml",
        f"Validation AUC of {many} candidates against their weights and operations, and over their settings; {reached}",
        f"All {many} candidates of the search; {reached}.",
    )


def _backbones(inputs: ReportInputs) -> list[str]:
    """Return the candidates' trunks, each once."""
    return list(dict.fromkeys([*inputs.trunks, *(row.backbone for row in inputs.ranking)]))


def _films(inputs: ReportInputs) -> list[dict[str, str]]:
    """Return training films of as many kinds and pathologies as the first shard holds."""
    shard = open_split(inputs.images, "train", None)[0]
    about = lake.read_table(shard, ["image_id", "label", "laterality", "view", "lesions"])
    rows = about.to_pylist()
    kinds = [sorted({(lesion["pathology"], lesion["kind"]) for lesion in row["lesions"] or []}) for row in rows]
    chosen = _varied([str(kind) for kind in kinds], _FILMS)
    pixels_NHW = pixels_of(lake.read_table(shard, ["pixels"]).take(chosen))
    films = []
    for index, pixels_HW in zip(chosen, pixels_NHW, strict=True):
        row = rows[index]
        lesions = " and ".join(f"{pathology} {kind}" for pathology, kind in kinds[index]) or "no lesion"
        view = " ".join(row[name] for name in ("laterality", "view") if row[name]) or "view unknown"
        data = draw.film(pixels_HW, draw.lesions_of(row), inputs.mark)
        films.append(pages.picture(data, "jpeg", f"Mammogram, {view}, outlined: {lesions}", f"{view}: {lesions}."))
    return films


def _varied(groups: Sequence[str], number: int) -> list[int]:
    """Return up to `number` indices, taking the first of each group, then the second of each, and so on."""
    seen: dict[str, int] = {}
    order = []
    for index, group in enumerate(groups):
        seen[group] = seen.get(group, 0) + 1
        order.append((seen[group], group, index))
    return [index for _, _, index in sorted(order)[:number]]


def _sheets(inputs: ReportInputs) -> list[dict[str, str]]:
    """Return a sheet of training patches for each class that has any."""
    found: dict[int, list[npt.NDArray[np.uint16]]] = {}
    for shard in open_split(inputs.patches, "train", None):
        labels_N = lake.read_table(shard, ["label"])["label"].to_numpy()
        wanted = [
            index
            for label in np.unique(labels_N)
            for index in np.flatnonzero(labels_N == label)[: _PATCHES - len(found.get(int(label), []))]
        ]
        if not wanted:
            continue
        for label, pixels_PP in zip(
            labels_N[wanted], pixels_of(lake.read_table(shard, ["pixels"]).take(wanted)), strict=True
        ):
            found.setdefault(int(label), []).append(pixels_PP)
        if len(found) == len(inputs.config.patches.classes) and min(map(len, found.values())) >= _PATCHES:
            break
    sheets = []
    for label, patches in sorted(found.items()):
        name = inputs.config.patches.classes[label].replace("_", " ")
        data = draw.sheet(patches, _COLUMNS, inputs.mark)
        sheets.append(
            pages.picture(data, "jpeg", f"{len(patches)} training patches of class {name}", f"{name.capitalize()}.")
        )
    return sheets


def _trunk_curves(inputs: ReportInputs, name: str) -> list[dict[str, str]]:
    """Return loss and validation accuracy of one patch classifier."""
    history = lake.read_json(inputs.trunks[name].file("history.json"))
    if not history:  # a trunk as initialised
        return []
    blue, red = figures.COLOURS[:2]
    rates = figures.stage_rates(history)
    losses = [
        figures.Line(name="training", values=[row["loss"] for row in history], colour=blue, dashed=True),
        figures.Line(name="validation", values=[row["val_loss"] for row in history], colour=red),
    ]
    accuracy = [figures.Line(name="validation", values=[row["val_accuracy"] for row in history], colour=red)]
    best = max(row["val_accuracy"] for row in history)
    return [
        pages.picture(
            figures.curves(f"{name}: loss of the patch classifier", losses, rates, inputs.mark),
            "svg+xml",
            f"Training and validation loss of the patch classifier {name} over {len(history)} epochs",
            f"{name}: mean cross-entropy by epoch, of training patches as augmented and of validation patches.",
        ),
        pages.picture(
            figures.curves(f"{name}: accuracy on validation patches", accuracy, rates, inputs.mark, (0, 1)),
            "svg+xml",
            f"Validation accuracy of the patch classifier {name} over {len(history)} epochs, at best {best:.3f}",
            f"{name}: accuracy by epoch, at best {best:.3f}.",
        ),
    ]


def _candidate_curves(inputs: ReportInputs, backbone: str) -> list[dict[str, str]]:
    """Return validation AUC and loss of every candidate on one trunk."""
    rows = [row for row in inputs.ranking if row.backbone == backbone]
    aucs, losses = [], []
    rates: dict[int, float] = {}
    for index, row in enumerate(rows):
        history = lake.read_json(inputs.search.file("candidates", row.name, "history.json"))
        rates |= figures.stage_rates(history)
        colour = figures.COLOURS[index] if index < len(figures.COLOURS) else _GREY
        top, member = row.written, row.name in inputs.ensemble.names
        auc, val_loss, loss = ([epoch[key] for epoch in history] for key in ("val_auc", "val_loss", "loss"))
        aucs.append(figures.Line(name=top, values=auc, colour=colour, strong=member))
        losses.append(figures.Line(name=top, values=val_loss, colour=colour, strong=member))
        losses.append(figures.Line(name=f"{top}, training", values=loss, colour=colour, dashed=True, strong=False))
    best = max(rows, key=lambda row: row.val_auc)
    reached = f"the best, {best.written}, reaches {best.val_auc:.3f}"
    return [
        pages.picture(
            figures.curves(f"{backbone} trunk: validation AUC", aucs, rates, inputs.mark),
            "svg+xml",
            f"Validation AUC by epoch of {len(rows)} top layers on the trunk {backbone}; {reached}",
            f"{backbone}: AUC on validation films by epoch; {reached}.",
        ),
        pages.picture(
            figures.curves(f"{backbone} trunk: loss", losses, rates, inputs.mark),
            "svg+xml",
            f"Training and validation loss by epoch of {len(rows)} top layers on the trunk {backbone}",
            f"{backbone}: loss on validation films (solid) and training films (dashed) by epoch.",
        ),
    ]


def _roc(inputs: ReportInputs, report: Report) -> dict[str, str]:
    """Return the ROC curves of members and ensemble on test, flip-averaged."""
    score, point = report.ensemble.score, report.ensemble.at_cutoff
    aucs = {row.ranked.name: row.test.flips for row in report.candidates if row.test}
    aucs |= {name: pooled.flips for name, pooled in report.pooled.items()} | {ENSEMBLE: score.flips}
    at = (1 - point.specificity.value, point.sensitivity.value)
    title = "ROC on test films: members and ensemble"
    curves = performance.roc_curves(inputs.test_scores, inputs.ensemble)
    return pages.picture(
        figures.roc(title, curves, aucs, ENSEMBLE, at, inputs.mark),
        "svg+xml",
        f"ROC curves of {len(inputs.ensemble.names)} members and their mean, whose AUC is {score.flips.value:.3f}; "
        f"at the cut-off its sensitivity is {at[1]:.3f} and its specificity {1 - at[0]:.3f}",
        f"A-AUC with 95% interval by patient, {score.images} test films, {score.malignant} of them malignant.",
    )


def _transfer_roc(report: Report, mark: str) -> dict[str, str] | None:
    """Return the ROC curves on other data, after training on there; None where that was not run."""
    if report.transfer is None:
        return None
    last = report.transfer.rows[-1]
    aucs = {name: score.flips for name, score in last.members.items()} | {ENSEMBLE: last.ensemble.flips}
    title = f"ROC on other data, {last.patients} patients to train on"
    return pages.picture(
        figures.roc(title, report.transfer.curves, aucs, ENSEMBLE, None, mark),
        "svg+xml",
        f"ROC curves on the other data's test images after training on there with {last.patients} patients; that of "
        f"the ensemble has an AUC of {last.ensemble.flips.value:.3f}",
        f"A-AUC with 95% interval by patient, {last.ensemble.images} test images.",
    )


def _heatmaps(inputs: ReportInputs) -> list[dict[str, str]]:
    """Return the test films that the ensemble scored highest and lowest in each class, with heatmaps of every trunk."""
    models = {name: prediction.patch_classifier(item.file("best")) for name, item in inputs.trunks.items()}
    shown = []
    for caption, image_id in _extremes(inputs).items():
        row = film(inputs.images, image_id, inputs.ensemble)
        pixels_HW = pixels_of(row)[0]
        lesions = draw.lesions_of(row.drop_columns("pixels").to_pylist()[0])
        maps = [_malignant(model, pixels_HW) for model in models.values()]
        data = draw.heatmaps(pixels_HW, lesions, maps, inputs.mark)
        caption = f"{caption} Heatmaps: {', '.join(models)}."
        shown.append(pages.picture(data, "jpeg", f"Test film and heatmaps over it. {caption}", caption))
    return shown


def _extremes(inputs: ReportInputs) -> dict[str, str]:
    """Return caption -> image_id of the highest and lowest ensemble score on test films of each class."""
    scores = inputs.test_ensemble.sort_by([("score_tta", "descending")])
    found = {}
    for label, word in ((MALIGNANT, "Malignant"), (BENIGN, "Benign")):
        rows = scores.filter(pc.equal(scores["label"], label)).to_pylist()
        for row, which in ((rows[0], "highest"), (rows[-1], "lowest")):
            called = "malignant" if row["score_tta"] >= inputs.ensemble.cutoff else "benign"
            found[f"{word}, {which} score: {row['score_tta']:.3f}, called {called}."] = row["image_id"]
    return found


def _malignant(model: PatchClassifier, pixels_HW: npt.NDArray[np.uint16]) -> draw.Heatmap:
    """Return the summed probability of the malignant classes over an image."""
    probability_uvC = prediction.heatmap(model, pixels_HW)
    classes = [index for index, name in enumerate(model.spec.classes) if name.startswith("malignant")]
    return draw.Heatmap(values=probability_uvC[..., classes].sum(axis=-1), side=model.spec.side)


def film(images: Artefact, image_id: str, frozen: Ensemble) -> pa.Table:
    """Return one test film's row of schema.images.

    Raises:
        LakeError: there is no such film.
    """
    for shard in open_split(images, "test", frozen):
        at = pc.index(lake.read_table(shard, ["image_id"])["image_id"], image_id).as_py()
        if at >= 0:
            return lake.read_table(shard, ["image_id", "lesions", "pixels"]).slice(at, 1)
    raise LakeError(f"{images.url} holds no test film {image_id}, which the scores name; evaluate again")
