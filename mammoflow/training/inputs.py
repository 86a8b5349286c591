"""What must be true of workers, images and patches before any classifier is trained. No Ray, no pixels."""

from collections.abc import Collection

from mammoflow.config import ComputeConfig, Config, PatchConfig, require
from mammoflow.errors import SplitError
from mammoflow.facts.stages import ImagesFacts, PatchesFacts
from mammoflow.lake import Artefact


def check_workers(config: Config, stages: Collection[str]) -> None:
    """Refuse more workers than a step has rows, before hours of work on the stages before.

    Args:
        config: of the run.
        stages: that are still to be built.

    Raises:
        ConfigError: names the batch that is too small.
    """
    batches = {"image_training.batch": config.image_training.batch} if "search" in stages else {}
    if {"trunks", "retrained"} & {*stages}:
        batches |= {f"the batch of {trunk.backbone}": trunk.training.batch for trunk in config.trunks}
    for name, batch in batches.items():
        require(
            config.compute.workers <= batch,
            "compute.workers",
            config.compute.workers,
            f"at most {batch}, {name}",
            "raise it, or use fewer workers",
        )


def check_images(images: Artefact, compute: ComputeConfig) -> None:
    """Refuse images that nothing can be trained or chosen on.

    Splits have both classes when they are drawn; here it is known what went to quarantine.

    Raises:
        SplitError: no images for training, or train or val without one of the classes.
        ConfigError: more workers than images in either.
    """
    facts = images.facts(ImagesFacts)
    films, malignant = facts.images, facts.malignant
    if not films["train"]:
        raise SplitError(
            f"none of the {films['test']} images is for training: the source holds an official test part only; "
            "add the training part to --source, or evaluate a model on it with jobs/score.py"
        )
    for split in ("train", "val"):
        if not 0 < malignant[split] < films[split]:
            raise SplitError(
                f"{malignant[split]} of the {films[split]} images left in {split} are malignant, but both classes are "
                f"needed; what was left out stands in {images.file('quarantine.parquet')}: mend it and run "
                "jobs/ingest.py with --retry-quarantined, or use more patients or other --splits"
            )
        require(
            compute.workers <= films[split],
            "compute.workers",
            compute.workers,
            f"at most {films[split]}, the images in {split}",
            "use fewer workers, or more images",
        )


def mean_grey(images: Artefact) -> float:
    """Return the mean grey value of the training images [0-255].

    Raises:
        SplitError: there are none.
    """
    mean = images.facts(ImagesFacts).mean_grey
    if mean is None:
        raise SplitError(f"{images.url} holds no training image; add the training part to --source")
    return mean


def check_patches(images: Artefact, patches: Artefact, config: PatchConfig) -> None:
    """Refuse patches among which no lesion is for training.

    Raises:
        SplitError: no lesion's patch is for training.
    """
    cut = patches.facts(PatchesFacts).patches["train"]
    if not sum(number for name, number in cut.items() if name != config.classes[0]):
        raise SplitError(
            "no patch of a lesion is for training: no training film has an outline that can be used; the reasons stand "
            f"in {images.file('quarantine.parquet')}; add the masks to --source"
        )
