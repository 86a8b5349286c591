"""The card of a registered model: where it comes from, what it can do, what it is for. No Ray, no MLflow."""

from collections.abc import Mapping
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, StrictUndefined

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.ensemble import performance
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.facts.card import Card, CardCode, CardData, CardValidation, SplitCounts
from mammoflow.facts.results import Interval
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS
from mammoflow.registry.predictor import About
from mammoflow.rendering import marks

_LIMITS = (
    "Not a medical device; not for decisions on patients.",
    "Judged on images like those it was trained on. Other vendors, screen-film or digital, other populations and other "
    "ways of reduction change its scores: validate, and recalibrate, on images of the site where it is used.",
    "One image at a time: no comparison with earlier mammograms, no second view, no history.",
    "Probabilities hold for the share of cancers among the validation images, which is far above that of screening "
    "where a set was enriched.",
    "A heatmap shows where a score comes from, not the outline of a lesion.",
)


def write(
    config: Config,
    images: Artefact,
    *,
    code: Mapping[str, str],
    started_from: str | None,
    validation: CardValidation,
    artefacts: Mapping[str, tuple[str, ...]],
) -> Card:
    """Return the card of an ensemble that a run trained.

    Args:
        config: of the run.
        images: what was trained on.
        code: as `tracking.code_tags` gives it.
        started_from: the classifiers that training went on from.
        validation: of `validation`.
        artefacts: stage -> fingerprints of its artefacts.
    """
    return Card(
        recipe=config.name,
        config=lake.science(config),
        phantoms=marks.is_phantoms(images),
        started_from=started_from,
        recalibrated_on=None,
        intended_use="research; not a medical device",
        limits=_LIMITS,
        licence="code Apache-2.0; weights as the licence of the images allows that they were trained on.",
        data=data(config, images),
        code=CardCode(
            mammoflow=code["mammoflow"], source=code["source"], commit=code.get("mlflow.source.git.commit", "")
        ),
        validation=validation,
        artefacts=dict(artefacts),
    )


def data(config: Config, images: Artefact) -> CardData:
    """Return what a card says of a data set."""
    counts = images.facts(ImagesFacts)
    return CardData(
        dataset=f"{config.dataset} (phantoms)" if marks.is_phantoms(images) else config.dataset,
        protocol=f"protocol {config.splits.protocol}",
        **splits.same_data(images),
        rows=tuple(
            SplitCounts(
                split=split,
                images=counts.images.get(split, 0),
                malignant=counts.malignant.get(split, 0),
                patients=counts.patients.get(split, 0),
            )
            for split in SPLITS
        ),
    )


def validation(val_scores: pa.Table, chosen: Ensemble, cutoff_rule: str) -> CardValidation:
    """Return the ensemble's figures on validation.

    Args:
        val_scores: schema.SCORES of every member on validation.
        chosen: the ensemble.
        cutoff_rule: how its cut-off was chosen.
    """
    return CardValidation(
        reached=performance.measure(val_scores, chosen),
        patients=len(pc.unique(val_scores["patient_id"])),
        cutoff_rule=cutoff_rule,
    )


def render(name: str, about: About) -> str:
    """Return the card as Markdown.

    Args:
        name: of the registered model.
        about: what is packed.
    """
    text = files("mammoflow.registry").joinpath("model_card.md").read_text(encoding="utf-8")
    environment = Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # noqa: S701  # Markdown
    return environment.from_string(text).render(name=name, about=about, card=about.card, figures=_figures(about.card))


def _figures(card: Card) -> list[tuple[str, float, Interval | None]]:
    """Return name, value and interval of each figure on validation."""
    reached = card.validation.reached
    auc, point = reached.score.flips, reached.at_cutoff
    return [
        ("AUC (interval by patient)", auc.value, auc.by_patient),
        ("AUC (interval by DeLong)", auc.value, auc.delong),
        ("sensitivity", point.sensitivity.value, point.sensitivity.interval),
        ("specificity", point.specificity.value, point.specificity.interval),
        *((measure.name, measure.value, None) for measure in reached.measures),
    ]
