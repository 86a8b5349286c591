"""Test films by what the ensemble makes of them, with maps of where its scores come from. No Ray, no MLflow.

Shape letters: H W rows and columns of an image [px], u v rows and columns of a map.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mammoflow.ensemble import prediction
from mammoflow.lake.schema import MALIGNANT, pixels_of
from mammoflow.registry.predictor import mean_evidence
from mammoflow.rendering import pages
from mammoflow.rendering import pictures as draw
from mammoflow.reports.inputs import ReportInputs
from mammoflow.reports.pictures import film

_EACH = 4
"""Films of each outcome."""

_OUTCOMES = {
    "True positives": (True, True, "descending"),
    "False positives": (False, True, "descending"),
    "False negatives": (True, False, "ascending"),
    "True negatives": (False, False, "ascending"),
}
"""Whether malignant, whether called so, and which scores come first: the most certain of each, right or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Test films of one outcome."""

    name: str
    count: int
    """Of all test films."""
    films: list[dict[str, str]]
    """Pictures of the most certain ones."""


def cases(inputs: ReportInputs) -> list[Outcome]:
    """Return the four outcomes, films sorted by score."""
    chosen = inputs.ensemble
    models = [prediction.whole_image(inputs.folders[name]) for name in chosen.names]
    scores = inputs.test_ensemble
    called = pc.greater_equal(scores["score_tta"], chosen.cutoff)
    outcomes = []
    for name, (malignant, positive, order) in _OUTCOMES.items():
        inside = pc.and_(pc.equal(pc.equal(scores["label"], MALIGNANT), malignant), pc.equal(called, positive))
        rows = scores.filter(inside).sort_by([("score_tta", order), ("image_id", "ascending")])
        films = [_film(inputs, models, row) for row in rows.slice(0, _EACH).to_pylist()]
        outcomes.append(Outcome(name=name, count=rows.num_rows, films=films))
    return outcomes


def _film(inputs: ReportInputs, models: list[Any], row: dict[str, Any]) -> dict[str, str]:
    """Return a film with its outlines, and beside it the map of its score."""
    shown = film(inputs.images, row["image_id"], inputs.ensemble)
    pixels_HW = pixels_of(shown)[0]
    (map_uv,) = mean_evidence(inputs.ensemble, models, pixels_HW[None])
    lesions = draw.lesions_of(shown.drop_columns("pixels").to_pylist()[0])
    probability = float(inputs.ensemble.calibration.apply([row["score_tta"]])[0])
    view = " ".join(row[name] for name in ("laterality", "view") if row[name]) or "view unknown"
    caption = f"{view}: score {row['score_tta']:.3f}, probability {probability:.3f}."
    data = draw.case(pixels_HW, lesions, map_uv * np.float32(row["score_tta"]), inputs.mark)
    alt = (
        f"Test film, {view}, with its lesions outlined, and a map of where its score {row['score_tta']:.3f} comes from"
    )
    return pages.picture(data, "jpeg", alt, caption)
