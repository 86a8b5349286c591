"""Registered ensembles of made models, for tests: whatever scores on validation a test asks for."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from made_lake import MadeLake

from mammoflow import tracking
from mammoflow.ensemble import ensemble, profile
from mammoflow.ensemble.ensemble import Ensemble, Member
from mammoflow.lake.schema import SCORES
from mammoflow.registry import model_card, registered_model
from mammoflow.registry.registry import Registry


def members(made: MadeLake) -> tuple[Member, ...]:
    """Return the survivors of the made search."""
    fields = ("name", "kind", "backbone", "top_layers", "val_auc")
    return tuple(Member(**{key: getattr(row, key) for key in fields}) for row in made.ranking if row.survived)


def rows(model: str, labels: Sequence[int], scores: Sequence[float], women: Sequence[str] | None = None) -> pa.Table:
    """Return schema.SCORES of one model on validation, two films a woman where none are named."""
    ids = [f"film-{n:03}" for n in range(len(labels))]
    women = women or [f"P_{n // 2:03}" for n in range(len(labels))]
    values = [[model] * len(ids), ["val"] * len(ids), ids, ids, women, ["L"] * len(ids), ["CC"] * len(ids), labels]
    columns = [*values, scores, scores]
    return pa.Table.from_arrays([pa.array(v, f.type) for v, f in zip(columns, SCORES, strict=True)], schema=SCORES)


def drawn(frozen: Ensemble, *, lift: float = 1.0, images: int = 200, seed: int = 0) -> pa.Table:
    """Return validation scores of each member, apart by `lift` standard deviations; noise is that of the seed."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) // 2 % 2
    logits = {name: rng.normal(0, 1, images) + lift * labels for name in frozen.names}
    return pa.concat_tables([rows(name, labels, 1 / (1 + np.exp(-values))) for name, values in logits.items()])


def register(
    made: MadeLake,
    uri: str,
    frozen: Ensemble,
    name: str,
    val_scores: pa.Table | None = None,
    folders: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> str:
    """Register the ensemble as a run of the pipeline would, and return its version."""
    scores = drawn(frozen) if val_scores is None else val_scores
    judged = model_card.validation(scores, frozen, "youden")
    code = tracking.code_tags()
    card = model_card.write(made.config, made.images, code=code, started_from=None, validation=judged, artefacts={})
    average = ensemble.average(scores, frozen)
    images = made.config.images
    seen = profile.fit(np.array([[0.3] * len(profile.FIGURES), [0.7] * len(profile.FIGURES)]), [None, None])
    return registered_model.register(
        Registry(uri),
        frozen,
        folders or made.folders,
        card,
        name,
        images,
        precision=precision,
        profile=seen,
        validation=average,
    )
