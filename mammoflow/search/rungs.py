"""How a search goes: its legs, what is trained together in each, and who goes on. No Ray, no MLflow.

A leg takes all living candidates to an epoch, a rung; there they are ranked over all trunks and packs, and the lower
part is dropped (successive halving; asynchronously, each pack as soon as it comes). Everything follows from what the
candidates' folders hold, so that an interrupted search, run again, drops the same.

Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization"; Li et
al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mammoflow.config import Config
from mammoflow.lake import Artefact
from mammoflow.search.bank_job import BankJob
from mammoflow.search.candidates import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A part of a search's schedule."""

    stage: int
    """0 trains top layers on frozen trunks, 1 everything."""
    until: int | None
    """Epochs of the stage at its end; None: the stage's end."""
    rung: int | None
    """The same over both stages, where candidates are dropped; None: none are."""


def legs(config: Config) -> list[Leg]:
    """Return the legs of a config's search, in order."""
    found = []
    before = 0
    for number, stage in enumerate(config.image_training.stages):
        within = [rung for rung in config.search.rungs if before < rung < before + stage.epochs]
        found += [Leg(stage=number, until=rung - before, rung=rung) for rung in within]
        before += stage.epochs
        at_end = before if before in config.search.rungs and number == 0 else None
        found.append(Leg(stage=number, until=None, rung=at_end))
    return found


def packs(trunks: Sequence[BankJob], living: Iterable[Candidate], leg: Leg, most: Mapping[str, int]) -> list[BankJob]:
    """Return the jobs of a leg: in stage 1 packs of the candidates of each trunk, in stage 2 one for each candidate.

    Args:
        trunks: the stage-1 job of each trunk, with all its candidates.
        living: who goes on.
        leg: the part of the schedule.
        most: K by the name of a trunk's job, most candidates in a pack; unlimited where it is missing.
    """
    alive = frozenset(living)
    jobs = []
    for trunk in trunks:
        own = [candidate for candidate in trunk.candidates if candidate in alive]
        job = replace(trunk, stage=leg.stage, until=leg.until)
        if leg.stage == 1:
            jobs += [replace(job, name=f"{candidate.name}-stage2", candidates=(candidate,)) for candidate in own]
            continue
        made = [pack for group in _together(job, own) for pack in cut(group, most.get(trunk.name))]
        for number, pack in enumerate(made, start=1):
            name = trunk.name if len(made) == 1 else f"{trunk.name}-pack{number}"
            jobs.append(replace(job, name=name, candidates=tuple(pack)))
    return jobs


def cut(group: Sequence[Candidate], most: int | None) -> list[Sequence[Candidate]]:
    """Cut a group into packs of nearly equal size, none above `most`."""
    number = 1 if most is None else math.ceil(len(group) / most)
    size = math.ceil(len(group) / number)
    return [group[at : at + size] for at in range(0, len(group), size)]


def _together(job: BankJob, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Group candidates that can go on from one epoch: all of them, unless an interrupted run used different packs."""
    if not candidates:
        return []
    epochs = {candidate: job.common_epochs([candidate]) for candidate in candidates}
    if set.intersection(*epochs.values()) or not any(epochs.values()):
        return [list(candidates)]
    groups: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(max(epochs[candidate], default=0), []).append(candidate)
    return list(groups.values())


def go_on(living: Sequence[Candidate], out: Artefact, rung: int, config: Config) -> list[Candidate]:
    """Return who goes on from a rung: the upper share by best validation AUC so far; of equals the first by name.

    Where the best of each kind is wanted at the end, it is not dropped on the way.
    """
    best = {candidate: best_so_far(candidate, out, rung) for candidate in living}
    ranked = sorted(living, key=lambda candidate: (-best[candidate], candidate.name))
    kept = {*ranked[: math.ceil(config.search.keep * len(ranked))]}
    if config.search.survivors == "best_of_each_kind":
        kept |= {*best_of_each_kind(ranked)}
    return [candidate for candidate in living if candidate in kept]


def best_of_each_kind(ranked: Iterable[Candidate]) -> list[Candidate]:
    """Return the first of each kind."""
    first: dict[str, Candidate] = {}
    for candidate in ranked:
        first.setdefault(candidate.kind, candidate)
    return list(first.values())


def survivors(living: Sequence[Candidate], out: Artefact, config: Config) -> list[Candidate]:
    """Return who goes on from stage 1 to stage 2."""
    if config.search.survivors == "all":
        return list(living)
    rung = config.image_training.stages[0].epochs
    best = {candidate: best_so_far(candidate, out, rung) for candidate in living}
    return best_of_each_kind(sorted(living, key=lambda candidate: (-best[candidate], candidate.name)))


def arrived(candidates: Iterable[Candidate], out: Artefact, rung: int) -> list[Candidate]:
    """Return those that have come to a rung, whether they went on from there or not."""
    return [c for c in candidates if any(row.epoch >= rung for row in c.history(out))]


def best_so_far(candidate: Candidate, out: Artefact, rung: int) -> float:
    """Return the best validation AUC up to an epoch; .5 without an epoch."""
    aucs = [row.val_auc for row in candidate.history(out) if row.epoch <= rung]
    return max((auc for auc in aucs if auc is not None), default=0.5)
