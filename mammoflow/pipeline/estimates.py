"""Cost of a run before anything is decoded: films, patches, operations. No files; needs no cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mammoflow.config import Config, TrunkConfig
from mammoflow.data.phantom.layouts import LAYOUTS
from mammoflow.data.releases import RELEASES
from mammoflow.errors import ConfigError
from mammoflow.search import capacity, rungs, tuning
from mammoflow.search.candidates import Candidate
from mammoflow.training import cost

_PATIENTS = {"inbreast": 72}  # of its training part
_TEST_70_30 = 0.3
_LESIONS = 1.15  # of a film
_TRAINED, _FLIPS = 3, 4  # forward passes that a training step costs; images behind a flip-averaged score
_BEST = 4  # kinds that the paper averages, and fine-tunes


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Cost of one step of a reproduction, all its stages."""

    what: str
    """The tables and figures that it is for."""
    recipe: str
    """Name of its config."""
    films: int
    """Films of all splits."""
    patches: int
    """Patches in an epoch of a patch classifier; 0 where none is trained."""
    flops: float
    """Operations [FLOP]."""
    more_flops: float
    """Most that `image_training.resume` can add where models have not converged [FLOP]."""


def of_config(what: str, config: Config, *, patches_alone: bool = False) -> Estimate:
    """Return the cost of a config, or with `patches_alone` of its patch classifiers.

    Raises:
        ConfigError: the number of films is not known.
    """
    films = _films(config)
    patches = _patches(config, films)
    patch_flops = sum(_patch_classifier_flops(config, trunk, patches) for trunk in config.trunks)
    flops, more = (0.0, 0.0) if patches_alone else _whole_image_flops(config, tuning.plan(config), films)
    return Estimate(
        what=what,
        recipe=config.name,
        films=sum(films.values()),
        patches=patches,
        flops=patch_flops + flops,
        more_flops=more,
    )


def of_transfer(what: str, config: Config, begun: Config, patients: int) -> Estimate:
    """Return the cost of fine-tuning as many models as the paper has kinds.

    Args:
        what: the table that it is for.
        config: of the transfer.
        begun: the config whose models are fine-tuned.
        patients: number to train on.

    Raises:
        ConfigError: the number of films is not known.
    """
    films = _films(config)
    in_training = _PATIENTS.get(config.dataset) or config.phantoms.patients * (1 - _TEST_70_30)
    used = round((films["train"] + films["val"]) * min(1.0, patients / in_training))
    val = round(used * config.splits.val)
    films = {"train": used - val, "val": val, "test": films["test"]}
    candidates = tuning.plan(begun)
    members = candidates[:: max(1, len(candidates) // _BEST)][:_BEST]
    flops, more = _whole_image_flops(replace(config, start=None, trunks=begun.trunks), members, films)
    return Estimate(what=what, recipe=config.name, films=sum(films.values()), patches=0, flops=flops, more_flops=more)


def _films(config: Config) -> dict[str, int]:
    """Return the approximate number of films of each split."""
    phantoms = config.phantoms
    if config.source is None and phantoms.patients:
        total = round(phantoms.patients * LAYOUTS[phantoms.layout].films_per_patient)
    else:
        total = _released_films(config.dataset)
    test = round(total * (_TEST_70_30 if config.splits.protocol == "70-30" else config.splits.test))
    val = round((total - test) * config.splits.val)
    return {"train": total - test - val, "val": val, "test": test}


def _released_films(dataset: str) -> int:
    """Return how many films a release holds, as its registry entry says."""
    films = RELEASES[dataset].films if dataset in RELEASES else None
    if films is None:
        known = ", ".join(name for name, release in RELEASES.items() if release.films)
        raise ConfigError(
            f"dataset is {dataset!r}, but the number of films is only known for {known}; decode the release "
            "with jobs/ingest.py, then estimate a search with jobs/tune_top_layers.py --dry-run"
        )
    return films


def _patches(config: Config, films: Mapping[str, int]) -> int:
    per_lesion = 1 if config.patches.set == "S1" else config.patches.per_lesion
    return round(2 * per_lesion * _LESIONS * films["train"])


def _patch_classifier_flops(config: Config, trunk: TrunkConfig, patches: int) -> float:
    """Return the operations of a patch classifier's training: those of a trunk grow with the area."""
    images = config.images
    image = cost.of_trunk(trunk.backbone, images.height, images.width, capacity.shape_of(config).dtype)
    area = config.patches.side**2 / (images.height * images.width)
    return _TRAINED * patches * sum(stage.epochs for stage in trunk.training.stages) * area * image.flops


def _whole_image_flops(
    config: Config, candidates: Sequence[Candidate], films: Mapping[str, int]
) -> tuple[float, float]:
    """Return the operations of whole-image classifiers, scoring included, and the most that resuming can add."""
    first, second = config.image_training.stages
    flops = more = 0.0
    for trunk in config.trunks:
        on_trunk = [candidate for candidate in candidates if candidate.backbone == trunk.backbone]
        for pack in rungs.cut(on_trunk, config.compute.pack) if on_trunk else ():
            flops += first.epochs * capacity.epoch_flops(config, pack, films, trunk_trained=False)
        for candidate in on_trunk:
            epoch = capacity.epoch_flops(config, [candidate], films, trunk_trained=True)
            image = sum(part.flops for part in capacity.costs(config, candidate))
            flops += second.epochs * epoch + _FLIPS * (films["val"] + films["test"]) * image
            more += config.image_training.resume * epoch
    return flops, more
