"""From models and a split to a scores table, in Ray tasks. Needs ray; no MLflow.

Whatever reads the test split takes the frozen `Ensemble` (split_door.py): members and cut-off are settled before the
first test image is seen.

Shape letters: N images, H W rows and columns [px], P patch side [px], C patch classes.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from mammoflow import lake
from mammoflow.cluster import nodes
from mammoflow.config import ComputeConfig
from mammoflow.ensemble import prediction
from mammoflow.ensemble import profile as profiles
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.profile import Profile
from mammoflow.ensemble.split_door import open_split
from mammoflow.errors import LakeError
from mammoflow.facts.stages import PatchAccuracy
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SCORES, pixels_of
from mammoflow.models import devices

_ABOUT = ["split", "image_id", "film_id", "patient_id", "laterality", "view", "label"]
"""Columns of an image that its score's row repeats."""


def score_split(
    models: Mapping[str, str],
    images: Artefact,
    split: str,
    compute: ComputeConfig,
    *,
    ensemble: Ensemble | None = None,
) -> pa.Table:
    """Score every image of a split with every model, plain and flip-averaged, as the registered model would.

    Args:
        models: candidate name -> folder or URL of its model.json and model.safetensors.
        images: the images artefact.
        split: train | val | test.
        compute: a GPU for each task where it asks for GPUs.
        ensemble: the frozen choice; without it the test split stays closed.

    Returns:
        schema.SCORES, one row for each model and image, sorted by both.

    Raises:
        SplitError: the test split without a frozen ensemble, or an unknown split.
        LakeError: the split has no images, or a model is missing.

    Source: paper, methods (augmented prediction: mean over identity, H, V and HV flips).
    """
    shards = open_split(images, split, ensemble)
    groups = spread(shards, len(models), compute)
    work = [(name, folder, group) for name, folder in sorted(models.items()) for group in groups]
    run = task(_score_shards, compute)
    tables = ray.get([run.remote(name, folder, group, compute) for name, folder, group in work])
    return pa.concat_tables(tables).sort_by([("model", "ascending"), ("image_id", "ascending")])


def image_facts(images: Artefact, split: str, *, ensemble: Ensemble | None = None) -> pa.Table:
    """Return facts about the images of a split that subgroups are made by.

    Args:
        images: the images artefact.
        split: train | val | test.
        ensemble: the frozen choice; without it the test split stays closed.

    Returns:
        `image_id`, `density` (BI-RADS 1-4, or null), `vendor` (or null), `kinds` (of its lesions, a list of mass,
        calcification, other), sorted by image.

    Raises:
        SplitError, LakeError: as in `score_split`.
    """
    columns = ["image_id", "density", "vendor", "lesions"]
    rows = pa.concat_tables([lake.read_table(shard, columns) for shard in open_split(images, split, ensemble)])
    kinds = [[lesion["kind"] for lesion in lesions or []] for lesions in rows["lesions"].to_pylist()]
    return (
        rows.drop_columns("lesions").append_column("kinds", pa.array(kinds, pa.list_(pa.string()))).sort_by("image_id")
    )


def training_profile(images: Artefact, compute: ComputeConfig) -> Profile:
    """Return what the training images look like, against which new images are held.

    Args:
        images: the images artefact.
        compute: CPUs of a task.

    Raises:
        LakeError: the split has no images.
    """
    shards = open_split(images, "train", None)
    on_cpus = replace(compute, gpu=False)
    run = task(_figures_of_shards, on_cpus)
    parts = ray.get([run.remote(group) for group in spread(shards, 1, on_cpus)])
    figures_NF, vendors = (list(itertools.chain.from_iterable(part)) for part in zip(*parts, strict=True))
    return profiles.fit(np.array(figures_NF), vendors)


def patch_accuracy(
    folder: str,
    patches: Artefact,
    split: str,
    compute: ComputeConfig,
    *,
    ensemble: Ensemble | None = None,
) -> PatchAccuracy:
    """Return how well a patch classifier names the patches of a split; `unverified` background is left out.

    Args:
        folder: folder or URL of its model.json and model.safetensors.
        patches: the patches artefact.
        split: train | val | test.
        compute: a GPU for each task where it asks for GPUs.
        ensemble: the frozen choice; without it the test split stays closed.

    Raises:
        SplitError: the test split without a frozen ensemble, or an unknown split.
        LakeError: the split has no patches, or the model is missing.
    """
    shards = open_split(patches, split, ensemble)
    run = task(_confuse_shards, compute)
    parts = ray.get([run.remote(folder, group, compute) for group in spread(shards, 1, compute)])
    confusion_CC = np.sum(parts, axis=0)
    of_class_C = confusion_CC.sum(axis=1)
    if not of_class_C.any():
        raise LakeError(f"{patches.url} holds no patch of split {split!r} with a certain label; sample more images")
    recall_C = np.diag(confusion_CC)[of_class_C > 0] / of_class_C[of_class_C > 0]
    return PatchAccuracy(
        accuracy=float(np.trace(confusion_CC) / of_class_C.sum()),
        balanced_accuracy=float(recall_C.mean()),
        confusion=confusion_CC.tolist(),
        patches=int(of_class_C.sum()),
    )


def spread(shards: Sequence[str], models: int, compute: ComputeConfig) -> list[list[str]]:
    """Deal the shards into as many groups as keep every CPU or GPU busy once; a group loads its model once."""
    slots = nodes.room(nodes.of_worker(compute))
    groups = min(len(shards), max(1, round(slots / models)))
    return [list(shards[start::groups]) for start in range(groups)]


def task(function: Callable[..., Any], compute: ComputeConfig) -> Any:
    """Return a function as a Ray task with the CPUs and GPU of one worker."""
    return ray.remote(num_cpus=compute.cpus_per_worker, num_gpus=1 if compute.gpu else 0)(function)


def _score_shards(name: str, folder: str, shards: Sequence[str], compute: ComputeConfig) -> pa.Table:
    """Score these shards with one model; runs in a Ray task."""
    model = prediction.whole_image(folder).to(prepare(compute))
    tables = []
    for shard in shards:
        rows = read_images(shard)
        plain_N, averaged_N = prediction.flip_averaged(model, pixels_of(rows))
        values = {column: rows[column] for column in _ABOUT}
        values |= {"model": [name] * rows.num_rows, "score": plain_N, "score_tta": averaged_N}
        tables.append(pa.table({column: values[column] for column in SCORES.names}).cast(SCORES))
    return pa.concat_tables(tables)


def _figures_of_shards(shards: Sequence[str]) -> tuple[list[npt.NDArray[np.float64]], list[str | None]]:
    """Return figures (F,) and vendor of each image of these shards; runs in a Ray task."""
    figures, vendors = [], []
    for shard in shards:
        rows = lake.read_table(shard, ["vendor", "pixels"])
        figures += [profiles.figures(pixels_HW) for pixels_HW in pixels_of(rows)]
        vendors += rows["vendor"].to_pylist()
    return figures, vendors


def _confuse_shards(folder: str, shards: Sequence[str], compute: ComputeConfig) -> npt.NDArray[np.int64]:
    """Count true against named classes over these shards, (C, C); runs in a Ray task."""
    model = prediction.patch_classifier(folder).to(prepare(compute))
    classes = len(model.spec.classes)
    confusion_CC = np.zeros((classes, classes), np.int64)
    for shard in shards:
        rows = lake.read_table(shard, ["label", "unverified", "pixels"])
        rows = rows.filter(pc.invert(rows["unverified"]))
        if rows.num_rows:
            named_N = prediction.name_patches(model, pixels_of(rows))
            np.add.at(confusion_CC, (rows["label"].to_numpy(), named_N), 1)
    return confusion_CC


def prepare(compute: ComputeConfig) -> torch.device:
    """Take no more threads in a task than it has CPUs, and return the device it has."""
    torch.set_num_threads(compute.cpus_per_worker)
    return devices.find(compute.gpu)


def read_images(shard: str) -> pa.Table:
    """Return what scores repeat of the images of a shard, and their pixels."""
    return lake.read_table(shard, [*_ABOUT, "pixels"])
