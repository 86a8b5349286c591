"""Free candidates, drawn from a space of top layers and of changes to training. No Ray, no files.

A draw follows from the seed, the trunk, and what is known by then, so that a search that is resumed draws the same.

Source: Optuna (Akiba et al. 2019); TPE: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization".
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import BaseTrial, FixedTrial, TrialState, create_trial

from mammoflow.config import SearchConfig, SpaceConfig
from mammoflow.errors import SpecError
from mammoflow.models import top_layers
from mammoflow.models.top_layers import Ground
from mammoflow.search.candidates import Candidate, Changes

_MOST_TRIES = 200
"""Draws for one candidate: beyond it the space holds hardly any that is new and fits."""

Choices = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A free candidate, and the choices that it came from."""

    candidate: Candidate
    choices: Choices


def draw(
    config: SearchConfig,
    backbone: str,
    ground: Ground,
    number: int,
    seed: int,
    told: Sequence[tuple[Choices, float | None]],
    known: Sequence[str],
) -> list[Drawn]:
    """Draw the next candidates on a trunk.

    Args:
        config: sampler and space.
        backbone: of the trunk.
        ground: its feature maps, into which a candidate must fit.
        number: how many are wanted.
        seed: of the run.
        told: choices of earlier draws with the validation AUC that they came to; None where they could not go on.
        known: names of candidates that are not to be drawn again.

    Returns:
        As many as wanted, fewer where the space holds no more.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)  # it tells of every study
    study = optuna.create_study(direction="maximize", sampler=_sampler(config, f"{seed}/{backbone}/{len(told)}"))
    for choices, value in told:
        study.add_trial(_as_told(config.space, choices, value))
    found: dict[str, Drawn] = {}
    for _ in range(_MOST_TRIES * number):
        if len(found) == number:
            break
        trial = study.ask()
        candidate = Candidate.of(backbone, _write(config.space, trial))
        if candidate.name in known or candidate.name in found or not _fits(candidate, ground):
            study.tell(trial, state=TrialState.FAIL)
        else:
            found[candidate.name] = Drawn(candidate=candidate, choices=trial.params)
    return list(found.values())


def _sampler(config: SearchConfig, key: str) -> optuna.samplers.BaseSampler:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.at_a_time, constant_liar=True)


def _as_told(space: SpaceConfig, choices: Mapping[str, Any], value: float | None) -> optuna.trial.FrozenTrial:
    fixed = FixedTrial(dict(choices))
    _write(space, fixed)
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    return create_trial(state=state, value=value, params=fixed.params, distributions=fixed.distributions)


def _write(space: SpaceConfig, trial: BaseTrial) -> str:
    """Return the candidate that a trial chooses, as written."""
    kind = trial.suggest_categorical("kind", space.kinds)
    number = trial.suggest_categorical("blocks", space.blocks)
    repeats = trial.suggest_categorical("repeats", space.repeats)
    blocks = []
    for place in range(1, number + 1):
        channels = trial.suggest_categorical(f"channels{place}", space.channels)
        if kind == "vgg":
            blocks.append(f"{channels}x{repeats}")
        else:
            last = channels * trial.suggest_categorical(f"widening{place}", space.widening)
            blocks.append(f"[{channels}-{channels}-{last}]x{repeats}")
    if trial.suggest_categorical("heatmap", space.heatmap):
        blocks.insert(0, "heatmap")
    changes = Changes(
        lr=_rounded(trial.suggest_float("lr", *space.lr, log=True)),
        decay=_rounded(trial.suggest_float("decay", *space.decay, log=True)),
        dropout=trial.suggest_categorical("dropout", space.dropout),
    )
    return f"{','.join(blocks)} {changes.words()}"


def _rounded(factor: float) -> float:
    return float(f"{factor:.2g}")


def _fits(candidate: Candidate, ground: Ground) -> bool:
    try:
        top_layers.map_sizes(candidate.top_layers, ground)
    except SpecError:
        return False
    return True
