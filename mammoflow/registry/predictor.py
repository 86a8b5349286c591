"""A loaded ensemble: images in; probability, decision and members' scores out. No Ray, no MLflow.

Its folder holds data, never a pickle: `ensemble.json`, model.json and model.safetensors of each member, and the
ensemble's scores on validation.

Shape letters: N images, K members, H W rows and columns of the images the members were trained on [px], h w those
of an array handed in [px].
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch

from mammoflow import lake
from mammoflow.config import ImageConfig
from mammoflow.data import decode
from mammoflow.data.fit import plan_fit
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import prediction
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.profile import Profile
from mammoflow.errors import ConfigError, DecodeError, LakeError, naming
from mammoflow.facts import codec
from mammoflow.facts.card import Card
from mammoflow.models.classifiers import ImageSpec, WholeImageClassifier

ABOUT, VALIDATION = "ensemble.json", "validation.parquet"
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Contents of a predictor's ensemble.json."""

    layout: Literal[1] = 1
    """Version of this record."""
    ensemble: Ensemble
    """Members, cut-off and validation figures."""
    images: ImageConfig
    """Size and fit of the members' images."""
    precision: str
    """fp32 | bf16: the arithmetic of training, evaluation and prediction."""
    profile: Profile
    """Profile of the training images."""
    card: Card
    """Training data, validation figures, intended use and limits."""


class Predictor:
    """The loaded ensemble: images in; probability, decision and members' scores out."""

    def __init__(self, about: About, models: Sequence[WholeImageClassifier]) -> None:
        self.ensemble = about.ensemble
        self.images, self.profile = about.images, about.profile
        self._models = list(models)

    def to(self, device: torch.device) -> "Predictor":
        """Move the members to a device."""
        self._models = [model.to(device) for model in self._models]
        return self

    def score(self, pixels_NHW: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
        """Return the members' flip-averaged probabilities of malignant (N, K) [0-1] of images already reduced."""
        members_KN = [prediction.flip_averaged(model, pixels_NHW)[1] for model in self._models]
        return np.stack(members_KN, axis=1)

    def evidence(self, pixels_NHW: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Return the heatmaps of images of the members' size; see `mean_evidence`."""
        return mean_evidence(self.ensemble, self._models, pixels_NHW)

    def predict(self, inputs: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Score images; the entry point that MLflow calls.

        Args:
            inputs: a table with a column `path`, or a sequence of paths or URLs, of DICOM, PNG, TIFF, PGM or JPEG
                files; a table with a column `image`, the files' bytes themselves, as such or as base64; or one uint16
                array (N, h, w) or a sequence of (h, w) of any size, full range, air dark.
            params: ignored; part of MLflow's interface.

        Returns:
            A row per image: `score`, the mean of the members [0-1]; `probability`, the calibrated score [0-1];
            `malignant`, whether the score reaches the cut-off; and the score of each member under its name.

        Raises:
            DecodeError: a file or array is unreadable.
            ConfigError: inputs of another type.
        """
        items = _items(inputs)
        members_NK = np.empty((len(items), len(self.ensemble.members)))
        for start in range(0, len(items), _BATCH):
            batch = slice(start, start + _BATCH)
            members_NK[batch] = self.score(np.stack([self.read(item)[0] for item in items[batch]]))
        return self.table(members_NK)

    def table(self, members_NK: npt.NDArray[np.float64]) -> pd.DataFrame:
        """Return the members' scores (N, K) [0-1] as the table that `predict` returns."""
        score_N, probability_N, malignant_N = ensembles.decide(members_NK, self.ensemble)
        columns = {"score": score_N, "probability": probability_N, "malignant": malignant_N}
        return pd.DataFrame(columns | dict(zip(self.ensemble.names, members_NK.T, strict=True)))

    def read(self, item: str | Path | bytes | npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint16], str | None]:
        """Return a file or array as an image of the members' size, uint16 (H, W), and the vendor that the file names.

        Raises:
            DecodeError: the file or array is unreadable.
            ConfigError: an item of another type.
        """
        if isinstance(item, str | Path):
            image = decode.load_image(str(item), self.images)
            return image.pixels, image.identity.vendor
        if isinstance(item, bytes):
            with naming("image"):
                image = decode.decode_bytes(item, self.images)
            return image.pixels, image.identity.vendor
        if not isinstance(item, np.ndarray):
            raise ConfigError(f"an image is a {type(item).__name__}, but must be a path or a uint16 array; convert it")
        if item.dtype != np.uint16 or item.ndim != 2:
            raise DecodeError(
                f"an image of type {item.dtype} and shape {item.shape}, but uint16 (rows, columns) over 0-65535 is "
                "needed; rescale it (8 bits: times 257), or pass the file's path"
            )
        fit = plan_fit(item.shape[0], item.shape[1], self.images)
        return np.asarray(np.rint(fit.apply(item.astype(np.float32))), np.uint16), None


def mean_evidence(
    ensemble: Ensemble, models: Sequence[WholeImageClassifier], pixels_NHW: npt.NDArray[np.uint16]
) -> npt.NDArray[np.float32]:
    """Return heatmaps of what raises an ensemble's scores.

    Args:
        ensemble: its weights of members.
        models: its members, in order.
        pixels_NHW: uint16 (N, H, W), of the members' size.

    Returns:
        float32 (N, u, v): per cell of 32 px, the mean over members of its contribution to the logit of malignant,
        clipped at 0 and relative to the largest of the image; all 0 if no cell raises the score.

    Source: Draelos and Carin 2020 (HiResCAM).
    """
    times_K = [member.times for member in ensemble.members]
    maps_KNuv = [prediction.evidence(model, pixels_NHW) for model in models]
    mean_Nuv = np.maximum(np.average(maps_KNuv, axis=0, weights=times_K), 0)
    largest_N11 = mean_Nuv.max(axis=(1, 2), keepdims=True)
    shares_Nuv = np.divide(mean_Nuv, largest_N11, out=np.zeros_like(mean_Nuv), where=largest_N11 > 0)
    return np.asarray(shares_Nuv, np.float32)


def write_folder(url: str, about: About, members: Mapping[str, str], validation: pa.Table) -> list[ImageSpec]:
    """Write the folder of a predictor and return the members' specs.

    Args:
        url: the folder, created where absent.
        about: contents of its ensemble.json.
        members: candidate name -> folder or URL of its model.json and model.safetensors.
        validation: the ensemble's own rows (schema.SCORES) on validation, for comparison with later versions.

    Raises:
        LakeError: a member's model is missing or damaged, or takes images of another size.
    """
    lake.write_bytes(lake.join(url, ABOUT), codec.to_json(about))
    lake.write_table(lake.join(url, VALIDATION), validation)
    images = about.images
    specs = []
    for name in about.ensemble.names:
        spec = prediction.whole_image(members[name]).spec
        if (spec.height, spec.width, spec.fit) != (images.height, images.width, images.fit):
            raise LakeError(
                f"{name} takes images of {spec.height}x{spec.width} ({spec.fit}), not {images.height}x{images.width} "
                f"({images.fit}); choose members from one search"
            )
        lake.write_folder(lake.join(url, "members", name), lake.read_folder(members[name]))
        specs.append(spec)
    return specs


def read_folder(url: str) -> Predictor:
    """Load the predictor that `write_folder` wrote.

    Raises:
        LakeError: a file is missing, or of another version of mammoflow.
    """
    about = read_about(lake.join(url, ABOUT))
    models = [prediction.whole_image(lake.join(url, "members", name)) for name in about.ensemble.names]
    return Predictor(about, models)


def read_about(url: str) -> About:
    """Read a predictor's ensemble.json.

    Raises:
        LakeError: it is missing, or of another version of mammoflow.
    """
    data = lake.read_bytes(url)
    try:
        return codec.from_json(data, About, url)
    except LakeError as error:
        raise LakeError(f"{url} is of another version of mammoflow; register the ensemble again") from error


def _items(inputs: Any) -> list[Any]:
    """Return any accepted input as a list of paths, bytes of files, and arrays."""
    if isinstance(inputs, pd.DataFrame):
        named = [name for name in ("path", "image") if name in inputs.columns]
        if len(named) != 1:
            raise ConfigError(
                f"a table with the columns {list(inputs.columns)}, but one must be `path` or `image` (the file's "
                "bytes, or base64 of them); name it so"
            )
        values = inputs[named[0]].tolist()
        return values if named == ["path"] else [_file(value) for value in values]
    items = list(inputs) if isinstance(inputs, list | tuple | np.ndarray) else None
    if items is None or not all(isinstance(item, str | np.ndarray) for item in items):
        raise ConfigError(
            f"inputs of type {type(inputs).__name__} can't be read; give a table with a column `path`, a list of paths "
            "or uint16 arrays of rows and columns"
        )
    return items


def _file(value: Any) -> bytes:
    """Return the bytes of a file, given as such or as base64 from an HTTP request."""
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ConfigError(
            f"a column `image` with a value of type {type(value).__name__} that is no base64 ({error}); give the bytes "
            "of a DICOM, PNG, TIFF, PGM or JPEG file, or base64 of them"
        ) from error
