"""The paper's two-step baseline: heatmaps of a patch classifier, then a random forest on figures of their regions.

Heatmaps are made and reduced to figures in Ray tasks; only these come back. Needs ray; no MLflow.

Shape letters: N images, F figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from mammoflow.config import ComputeConfig, EnsembleConfig, TwoStepConfig
from mammoflow.ensemble import evaluation, forest, prediction, region_features, selection
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.forest import Forest
from mammoflow.ensemble.split_door import open_split
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SCORES, pixels_of

NAME = "two-step"
"""Of the baseline in the column `model` of a scores table."""

_FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (0, 1))
_PLAIN = 1


def fit(folder: str, images: Artefact, config: TwoStepConfig, compute: ComputeConfig, *, seed: int) -> Forest:
    """Fit the forest to the training images.

    Args:
        folder: folder or URL of a patch classifier.
        images: the images artefact.
        config: cut-offs, regions, forest.
        compute: a GPU for each task where it asks for GPUs.
        seed: of the forest.

    Raises:
        SplitError, LakeError: as in `evaluation.score_split`.
        ConfigError: fewer training images than a node must have to be split.
    """
    about, figures_NF = _figures(folder, images, "train", config, compute, None, flips=_PLAIN)
    return forest.fit(figures_NF[:, 0], about["label"].to_numpy().astype(np.int64), config, seed)


def score_split(
    fitted: Forest,
    folder: str,
    images: Artefact,
    split: str,
    config: TwoStepConfig,
    compute: ComputeConfig,
    *,
    frozen: Ensemble | None = None,
) -> pa.Table:
    """Score every image of a split; see `fit`.

    Args:
        split: train | val | test; test only with `frozen`.
        frozen: the baseline with its cut-off, of `choose`.

    Returns:
        schema.SCORES, model "two-step"; `score_tta` is the mean over the image's four flips, as for all models here.

    Raises:
        SplitError: the test split without a frozen choice, or an unknown split.
    """
    about, figures_NRF = _figures(folder, images, split, config, compute, frozen, flips=len(_FLIPS))
    scores_RN = np.stack([fitted.predict(figures_NF) for figures_NF in np.moveaxis(figures_NRF, 1, 0)])
    columns = {name: about[name] for name in about.column_names}
    columns |= {"model": [NAME] * about.num_rows, "score": scores_RN[0], "score_tta": scores_RN.mean(axis=0)}
    return pa.table({name: columns[name] for name in SCORES.names}).cast(SCORES).sort_by("image_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """The baseline as a candidate of the choice."""

    backbone: str
    name: str = NAME
    kind: str = NAME
    top_layers: str = "random forest"


def choose(val_scores: pa.Table, backbone: str, config: EnsembleConfig) -> Ensemble:
    """Freeze the baseline's cut-off and calibration on validation, as those of an ensemble of one.

    Raises:
        SplitError: a row of another split, or one class only.
    """
    return selection.choose(val_scores, [_Candidate(backbone=backbone)], config)


def _figures(
    folder: str,
    images: Artefact,
    split: str,
    config: TwoStepConfig,
    compute: ComputeConfig,
    frozen: Ensemble | None,
    *,
    flips: int,
) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Return what scores repeat of each image, and its figures under the first flips (N, flips, F)."""
    task = evaluation.task(_of_shards, compute)
    groups = evaluation.spread(open_split(images, split, frozen), 1, compute)
    parts = ray.get([task.remote(folder, group, compute, config, flips) for group in groups])
    about, figures = zip(*parts, strict=True)
    return pa.concat_tables(about), np.concatenate(figures)


def _of_shards(
    folder: str, shards: Sequence[str], compute: ComputeConfig, config: TwoStepConfig, flips: int
) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Return rows and figures of the images of these shards; runs in a Ray task."""
    model = prediction.patch_classifier(folder).to(evaluation.prepare(compute))

    def of(pixels_HW: npt.NDArray[Any]) -> list[npt.NDArray[np.float64]]:
        """Return the figures of an image under each flip."""
        flipped = [np.ascontiguousarray(np.flip(pixels_HW, axes)) for axes in _FLIPS[:flips]]
        maps = [prediction.heatmap(model, one) for one in flipped]
        return [region_features.features(map_uvC, config.cutoffs, config.regions) for map_uvC in maps]

    tables = [evaluation.read_images(shard) for shard in shards]
    figures = [of(pixels_HW) for rows in tables for pixels_HW in pixels_of(rows)]
    return pa.concat_tables([rows.drop_columns("pixels") for rows in tables]), np.array(figures)
