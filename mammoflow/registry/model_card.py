"""The card of a registered model: where it comes from, what it can do, what it is for. No Ray, no MLflow."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, StrictUndefined

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS
from mammoflow.metrics import calibration
from mammoflow.registry.predictor import About

_LIMITS = (
    "Not a medical device; not for decisions on patients.",
    "Judged on images like those it was trained on. Other vendors, screen-film or digital, other populations and other "
    "ways of reduction change its scores: validate, and calibrate anew, on images of the site where it is used.",
    "One image at a time: no comparison with earlier mammograms, no second view, no history.",
    "Probabilities hold for the share of cancers among the validation images, which is far above that of screening "
    "where a set was enriched.",
    "A heatmap shows where a score comes from, not the outline of a lesion.",
)


def facts(config: Config, images: Artefact, *, code: Mapping[str, str], started_from: str | None) -> dict[str, Any]:
    """Return what a card says of data, code and use, as plain values.

    Args:
        config: of the run.
        images: what was trained on.
        code: as `tracking.code_tags` gives it.
        started_from: the classifiers that training went on from.
    """
    return {
        "recipe": config.name,
        "config": lake.science(config),
        "phantoms": config.source is None,
        "started_from": started_from,
        "recalibrated_on": None,
        "intended_use": "research; not a medical device",
        "limits": list(_LIMITS),
        "licence": "code Apache-2.0; weights as the licence of the images allows that they were trained on.",
        "data": data(config, images),
        "code": {
            "mammoflow": code["mammoflow"],
            "source": code["source"],
            "commit": code.get("mlflow.source.git.commit", ""),
        },
    }


def data(config: Config, images: Artefact) -> dict[str, Any]:
    """Return what a card says of a data set, as plain values."""
    counted = images.summary()
    names = ("images", "malignant", "patients")
    return {
        "dataset": config.dataset if config.source else f"{config.dataset} (phantoms)",
        "protocol": f"protocol {config.splits.protocol}",
        **splits.same_data(images),
        "rows": [{"split": split, **{name: counted[name].get(split, 0) for name in names}} for split in SPLITS],
    }


def validation(val_scores: pa.Table, chosen: Ensemble, cutoff_rule: str) -> dict[str, Any]:
    """Return the ensemble's figures on validation, as plain values.

    Args:
        val_scores: schema.SCORES of every member on validation.
        chosen: the ensemble.
        cutoff_rule: how its cut-off was chosen.
    """
    means = ensembles.average(val_scores, chosen)
    found, point = ensembles.summarise(means)[ENSEMBLE], ensembles.performance(val_scores, chosen)
    labels_N, scores_N = ensembles.columns(means)
    probabilities_N = chosen.calibration.apply(scores_N)
    intervals = [
        ("AUC (interval by DeLong)", found["auc_tta"], found["ci95_tta"]),
        ("AUC (interval by patient)", found["auc_tta"], found["ci95_patients"]),
        ("sensitivity", point.sensitivity.value, (point.sensitivity.low, point.sensitivity.high)),
        ("specificity", point.specificity.value, (point.specificity.low, point.specificity.high)),
        ("expected calibration error", calibration.expected_error(labels_N, probabilities_N), (None, None)),
        ("Brier score", calibration.brier(labels_N, probabilities_N), (None, None)),
    ]
    return {
        "rows": [{"name": name, "value": value, "low": low, "high": high} for name, value, (low, high) in intervals],
        "images": found["images"],
        "malignant": found["malignant"],
        "patients": len(pc.unique(means["patient_id"])),
        "cutoff_rule": cutoff_rule,
    }


def render(name: str, about: About) -> str:
    """Return the card as Markdown.

    Args:
        name: of the registered model.
        about: what is packed; its `card` holds `facts`, and `validation` under that name.
    """
    text = files("mammoflow.registry").joinpath("model_card.md").read_text(encoding="utf-8")
    environment = Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # noqa: S701  # Markdown
    values = {"ensemble": about.ensemble, "members": about.ensemble.members, "images": asdict(about.images)}
    return environment.from_string(text).render(
        name=name, card=about.card, precision=about.precision, cutoff=about.ensemble.cutoff, **values
    )
