"""A second round's patches: what the first round's classifier gets wrong all over the training images, by Ray Data.

The classifier runs over whole images, at every position of a grid (`classifiers.heatmap`), which costs a fraction of
judging as many patches alone; hard_patches.py chooses from what it says.

Shape letters: H, W image rows, columns [px]; M positions; C classes.
"""

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from mammoflow import lake
from mammoflow.config import Config, PatchConfig, TrunkConfig
from mammoflow.data import hard_patches, ingest, patches
from mammoflow.data.hard_patches import Scan
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.patches import CutEntry, CutJob
from mammoflow.data.ingest.shards import Done, Say
from mammoflow.errors import LakeError
from mammoflow.facts.stages import MinedFacts
from mammoflow.lake import Artefact
from mammoflow.models import STRIDE, classifiers, devices, model_files
from mammoflow.models.classifiers import PatchClassifier

STEP = 16
"""Distance of scored positions [px]: the trunk runs on the image, and on it less 16 rows, 16 columns, or both."""


def mine(
    config: Config, trunk: TrunkConfig, images: Artefact, first: Artefact, out: Artefact, say: Say = print
) -> MinedFacts:
    """Cut the training patches again, the share `trunk.hard_examples` of them where the classifier is most wrong.

    Args:
        config: the patch set and the seed, whose random patches stay where none is exchanged.
        trunk: whose classifier it is.
        images: complete artefact of `decode_images`; only the training split is read.
        first: the trained patch classifier.
        out: the artefact, shards of `schema.patches`; what it holds already is kept.
        say: takes progress lines.

    Raises:
        LakeError: the lake can't be read or written.
    """
    work = functools.partial(
        _mine_shard,
        config=config.patches,
        seed=config.seed,
        out=out.url,
        folder=first.file("best"),
        share=trunk.hard_examples,
        gpu=config.compute.gpu,
    )
    progress = shards.Progress("images mined", say, f"for {trunk.backbone}")
    jobs = ingest.shard_jobs(config, images, "train")
    ledger = shards.complete(work, jobs, out, CutEntry, progress, gpus=int(config.compute.gpu))
    return MinedFacts(
        patches=sum(sum(entry.patches.values()) for entry in ledger),
        mined=sum(entry.mined for entry in ledger),
    )


def _mine_shard(job: CutJob, config: PatchConfig, seed: int, out: str, folder: str, share: float, gpu: bool) -> Done:
    """Cut the patches of one shard of images; runs in a Ray Data task."""
    model = _classifier(folder).to(devices.find(gpu))
    torch.set_num_threads(1)  # the task has one core

    def choose(
        pixels_HW: NDArray[np.uint16], lesions: list[patches.Lesion], rng: np.random.Generator
    ) -> list[patches.Patch]:
        """Choose at random, then exchange a share for those that the model gets most wrong."""
        chosen = patches.cut(pixels_HW, lesions, config, rng)
        if not chosen:
            return chosen
        return hard_patches.exchange(chosen, pixels_HW, lesions, scan(model, pixels_HW), share, config)

    return ingest.cut_shard(job, choose, config, seed, out)


@functools.lru_cache(maxsize=1)  # on CPUs a process does many shards; on a GPU Ray starts one for each
def _classifier(folder: str) -> PatchClassifier:
    model = model_files.from_files(lake.read_folder(folder))
    if not isinstance(model, PatchClassifier):
        raise LakeError(f"{folder} holds no patch classifier; remove its artefact and train it again")
    return model.to(memory_format=torch.channels_last)


def scan(model: PatchClassifier, pixels_HW: NDArray[np.uint16]) -> Scan:
    """Score the patches of an image at positions `STEP` apart.

    Args:
        model: in eval mode.
        pixels_HW: uint16, no smaller than a patch.
    """
    side = model.spec.side
    corners, scores = [], []
    for top in range(0, STRIDE, STEP):
        for left in range(0, STRIDE, STEP):
            # Whole strides alone: nets of timm may pad other sizes so that their cells lie elsewhere.
            height, width = (size // STRIDE * STRIDE for size in pixels_HW[top:, left:].shape)
            part_HW = pixels_HW[top : top + height, left : left + width]
            if min(part_HW.shape) < side:
                continue
            with devices.autocast(next(model.parameters()).device, model.spec.precision):
                scores_UVC = classifiers.heatmap(model, torch.from_numpy(part_HW.copy()))
            rows, columns = (np.arange(0, size - side + 1, STRIDE) for size in part_HW.shape)
            rows, columns = rows[: scores_UVC.shape[0]], columns[: scores_UVC.shape[1]]
            corners.append(np.stack(np.meshgrid(rows + top, columns + left, indexing="ij"), axis=-1).reshape(-1, 2))
            scores.append(scores_UVC[: len(rows), : len(columns)].reshape(-1, scores_UVC.shape[2]))
    return Scan(np.concatenate(corners), np.concatenate(scores))
