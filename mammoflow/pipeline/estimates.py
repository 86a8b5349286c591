"""What a run would cost before anything is decoded: films, patches, operations, GPU hours. No Ray, no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mammoflow.config import Config, TrunkConfig
from mammoflow.data.phantom.layouts import LAYOUTS
from mammoflow.data.releases import RELEASES
from mammoflow.search import rungs, tuning
from mammoflow.search.candidates import Candidate, run_ground
from mammoflow.training import cost
from mammoflow.training.cost import Cost

_PATIENTS = {"inbreast": 72}  # of its training part
_LESIONS = 1.15  # of a film
_TRAINED, _FLIPS = 3, 4  # passes forward that a training step is worth; images that an averaged score takes
_BEST = 4  # kinds that the paper averages, and trains on


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one step, all its stages."""

    what: str
    """What it is behind."""
    recipe: str
    """Name of its config."""
    films: int
    """Of all splits."""
    patches: int
    """Of an epoch of a patch classifier; 0 where none is trained."""
    flops: float
    """Operations [FLOP]."""
    more_flops: float
    """Most that `image_training.resume` can add where models have not converged [FLOP]."""


def of_config(what: str, config: Config, *, patches_alone: bool = False) -> Estimate:
    """Return what a config would cost; only its patch classifiers where `patches_alone`."""
    films = _films(config)
    patches = _patches(config, films)
    area = config.patches.side**2 / (config.images.height * config.images.width)  # operations grow with it
    flops = sum(
        _TRAINED * patches * sum(stage.epochs for stage in trunk.training.stages) * area * _trunk(config, trunk).flops
        for trunk in config.trunks
    )
    image, more = (0.0, 0.0) if patches_alone else _whole(config, tuning.plan(config), films)
    return Estimate(
        what=what,
        recipe=config.name,
        films=sum(films.values()),
        patches=patches,
        flops=flops + image,
        more_flops=more,
    )


def of_transfer(what: str, config: Config, begun: Config, patients: int) -> Estimate:
    """Return what training on with so many patients would cost: of as many models as the paper has kinds.

    Args:
        what: what it is behind.
        config: of the transfer.
        begun: the config whose models it goes on from.
        patients: to train on.
    """
    whole = _films(config)
    pool = whole["train"] + whole["val"]
    of_all = _PATIENTS.get(config.dataset) or config.phantoms.patients * (1 - 0.3)
    used = round(pool * min(1.0, patients / of_all))
    val = round(used * config.splits.val)
    films = {"train": used - val, "val": val, "test": whole["test"]}
    on = replace(config, start=None, trunks=begun.trunks)
    candidates = tuning.plan(begun)
    flops, more = _whole(on, candidates[:: max(1, len(candidates) // _BEST)][:_BEST], films)
    return Estimate(what=what, recipe=config.name, films=sum(films.values()), patches=0, flops=flops, more_flops=more)


def _films(config: Config) -> dict[str, int]:
    """Return the films of each split, about."""
    drawn = config.source is None and config.phantoms.patients
    layout = config.phantoms.layout if drawn else config.dataset
    release = RELEASES.get(layout) or RELEASES["cbis_ddsm"]  # `auto` before the source is listed
    real = release.films or RELEASES["cbis_ddsm"].films or 0
    total = round(config.phantoms.patients * LAYOUTS[layout].films_per_patient) if drawn else real
    test = 0.3 if config.splits.protocol == "70-30" else config.splits.test
    tested = round(total * test)
    val = round((total - tested) * config.splits.val)
    return {"train": total - tested - val, "val": val, "test": tested}


def _patches(config: Config, films: Mapping[str, int]) -> int:
    each = 1 if config.patches.set == "S1" else config.patches.per_lesion
    return round(2 * each * _LESIONS * films["train"])


def _whole(config: Config, candidates: Sequence[Candidate], films: Mapping[str, int]) -> tuple[float, float]:
    """Return the operations of whole-image classifiers, scoring included, and what can come on top."""
    first, second = config.image_training.stages
    train, val = films["train"], films["val"]
    flops = more = 0.0
    for trunk in config.trunks:
        own = [candidate for candidate in candidates if candidate.backbone == trunk.backbone]
        if not own:
            continue
        body, tops = _trunk(config, trunk), _tops(config, trunk, own)
        for pack in rungs.cut(own, config.compute.pack):
            heads = [tops[candidate.name] for candidate in pack]
            flops += first.epochs * cost.epoch_flops(body, heads, trunk_passes=1, train=train, val=val)
        for top in tops.values():
            one = cost.epoch_flops(body, [top], trunk_passes=_TRAINED, train=train, val=val)
            flops += second.epochs * one + _FLIPS * (val + films["test"]) * (body.flops + top.flops)
            more += config.image_training.resume * one
    return flops, more


def _trunk(config: Config, trunk: TrunkConfig) -> Cost:
    """Return what a trunk costs a whole image."""
    return cost.of_trunk(trunk.backbone, config.images.height, config.images.width, torch.bfloat16)


def _tops(config: Config, trunk: TrunkConfig, own: Sequence[Candidate]) -> dict[str, Cost]:
    """Return what each candidate's top layers cost an image, by its name."""
    ground = run_ground(config, trunk.backbone)
    return {each.name: cost.of_top(each.top_layers, ground, torch.bfloat16) for each in own}
