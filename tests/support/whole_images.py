"""Whole-image classifiers by the text of their top layers."""

from collections.abc import Sequence

from mammoflow.config import ImageConfig
from mammoflow.models import classifiers
from mammoflow.models.classifiers import Conversion, PatchClassifier, WholeImageClassifier
from mammoflow.models.devices import Precision
from mammoflow.models.top_kinds import parse


def candidates(
    patches: PatchClassifier, top_layers: Sequence[str], images: ImageConfig, seed: int, precision: Precision = "fp32"
) -> dict[str, WholeImageClassifier]:
    """Return `classifiers.candidates` of these top layers, by their candidates' names."""
    specs = [parse(text) for text in top_layers]
    named = {classifiers.candidate_name(patches.spec.backbone, spec): spec for spec in specs}
    return classifiers.candidates(patches, named, images, seed, precision)


def whole_image(patches: PatchClassifier, top_layers: str, images: ImageConfig, seed: int) -> Conversion:
    """Return `classifiers.whole_image` of these top layers."""
    return classifiers.whole_image(patches, parse(top_layers), images, seed, "fp32")
