"""How a trained classifier is loaded and run: the one code path of evaluation and of the registered model.

No Ray, MLflow, nothing that trains: a registered model brings this module along.

Models are judged, and later used, in the precision that they were trained in, which their spec records: a registered
model's scores are those that members and cut-off were chosen on, to within rounding.
Weights lie channels-last, which the convolutions of CPUs and GPUs want.

Shape letters: N images, H W rows and columns [px].
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.models import classifiers, devices, model_files
from mammoflow.models.classifiers import PatchClassifier, WholeImageClassifier

FILMS = 4
"""Images at a time; more fall out of a CPU core's cache. A score depends on how many there are, by rounding."""
_PATCHES = 16


def whole_image(folder: str) -> WholeImageClassifier:
    """Load a whole-image classifier in eval mode on the CPU.

    Args:
        folder: folder or URL of its model.json and model.safetensors.

    Raises:
        LakeError: not there, damaged, or a patch classifier.
    """
    model = model_files.from_files(lake.read_folder(folder))
    if not isinstance(model, WholeImageClassifier):
        raise LakeError(f"{folder} holds a patch classifier; only whole-image classifiers can be averaged")
    return model.to(memory_format=torch.channels_last)


def patch_classifier(folder: str) -> PatchClassifier:
    """Load a patch classifier in eval mode on the CPU.

    Args:
        folder: folder or URL of its model.json and model.safetensors.

    Raises:
        LakeError: not there, damaged, or a whole-image classifier.
    """
    model = model_files.from_files(lake.read_folder(folder))
    if not isinstance(model, PatchClassifier):
        raise LakeError(f"{folder} holds a whole-image classifier, but a patch classifier is needed")
    return model.to(memory_format=torch.channels_last)


def flip_averaged(
    model: WholeImageClassifier, pixels_NHW: NDArray[np.uint16]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score images as they are, and averaged over flips, a few at a time.

    Args:
        model: of `whole_image`, on any device.
        pixels_NHW: uint16 (N, H, W), over the full range.

    Returns:
        score_N, score_tta_N: float64 (N,), probability of malignant [0-1]: plain, and the mean over four flips.

    Source: paper, methods (augmented prediction).
    """
    with _autocast(model):
        parts = [classifiers.flip_averaged(model, batch) for batch in torch.split(_tensor(pixels_NHW), FILMS)]
    plain_N, averaged_N = (np.concatenate(part) for part in zip(*parts, strict=True))
    return plain_N, averaged_N


def evidence(model: WholeImageClassifier, pixels_NHW: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Say where in images a score comes from, a few at a time: `classifiers.evidence`, (N, u, v) [logit].

    Args:
        model: of `whole_image`, on any device.
        pixels_NHW: uint16 (N, H, W), over the full range.
    """
    with _autocast(model):
        parts = [classifiers.evidence(model, batch) for batch in torch.split(_tensor(pixels_NHW), FILMS)]
    return np.concatenate(parts)


@torch.inference_mode()
def name_patches(model: PatchClassifier, pixels_NPP: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the class that a patch classifier names for each patch, int64 (N,).

    Args:
        model: of `patch_classifier`, on any device.
        pixels_NPP: uint16 (N, P, P), over the full range; P patch side [px].
    """
    with _autocast(model):
        batches = torch.split(_tensor(pixels_NPP), _PATCHES)
        named = [model(classifiers.to_input(batch.to(_device(model)))).argmax(1).cpu() for batch in batches]
    return np.concatenate([batch_N.numpy() for batch_N in named])


def heatmap(model: PatchClassifier, pixels_HW: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return a patch classifier's probabilities over a whole image (u, v, C) [0-1]; see `classifiers.heatmap`.

    Args:
        model: of `patch_classifier`, on any device.
        pixels_HW: uint16 (H, W), over the full range.
    """
    with _autocast(model):
        return classifiers.heatmap(model, _tensor(pixels_HW))


def _autocast(model: WholeImageClassifier | PatchClassifier) -> torch.autocast:
    return devices.autocast(_device(model), model.spec.precision)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _tensor(pixels_NHW: NDArray[np.uint16]) -> Tensor:
    """Return a view; of a copy where the memory is read-only (Arrow's), as torch wants it writable."""
    return torch.from_numpy(pixels_NHW if pixels_NHW.flags.writeable else pixels_NHW.copy())
