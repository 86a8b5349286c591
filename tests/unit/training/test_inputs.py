"""What can't be trained on is refused before any worker starts, with its counts."""

from pathlib import Path

import pytest

from mammoflow.config import ComputeConfig, PatchConfig
from mammoflow.errors import ConfigError, SplitError
from mammoflow.facts.stages import ImagesFacts, PatchesFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.training import inputs

GOOD = {"images": {"train": 8, "val": 3, "test": 4}, "malignant": {"train": 4, "val": 1, "test": 2}}


def images(tmp_path: Path, **changed: dict[str, int]) -> Artefact:
    made = Lake(str(tmp_path)).artefact("images", "made", changed)
    counts = {name: counts | changed.get(name, {}) for name, counts in GOOD.items()}
    facts = ImagesFacts(
        **counts,
        patients={},
        mean_grey=60.0 if counts["images"]["train"] else None,
        histogram=[],
        quarantined=0,
        outlines_missing=0,
        duplicates=0,
        left_out=None,
        source={},
    )
    made.finish(facts)
    return made


def test_the_mean_is_that_of_training_images(tmp_path: Path) -> None:
    assert inputs.mean_grey(images(tmp_path)) == 60.0
    with pytest.raises(SplitError, match="holds no training image"):
        inputs.mean_grey(images(tmp_path, images={"train": 0}))


def test_images_of_both_classes_and_enough_of_them_pass(tmp_path: Path) -> None:
    inputs.check_images(images(tmp_path), ComputeConfig(workers=3))


@pytest.mark.parametrize("malignant", [0, 3])
def test_a_split_left_with_one_class_is_named(malignant: int, tmp_path: Path) -> None:
    made = images(tmp_path, malignant={"val": malignant})
    with pytest.raises(SplitError, match=rf"^{malignant} of the 3 images left in val are malignant, but both classes"):
        inputs.check_images(made, ComputeConfig())


def test_more_workers_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compute.workers is 4, but must be at most 3, the images in val; use fewer"):
        inputs.check_images(images(tmp_path), ComputeConfig(workers=4))


def test_a_test_part_alone_trains_nothing(tmp_path: Path) -> None:
    nothing = {"train": 0, "val": 0}
    with pytest.raises(SplitError, match="none of the 4 images is for training"):
        inputs.check_images(images(tmp_path, images=nothing, malignant=nothing), ComputeConfig())


def test_patches_without_a_lesion_train_nothing(tmp_path: Path) -> None:
    made = Lake(str(tmp_path)).artefact("patches", "made")
    cut = {"train": {"background": 9, "malignant_mass": 0}}
    made.finish(PatchesFacts(patches=cut, below_min=0, unverified=0, quarantined=0))
    with pytest.raises(SplitError, match="no patch of a lesion is for training"):
        inputs.check_patches(images(tmp_path), made, PatchConfig())
