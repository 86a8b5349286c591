"""One search over top layers, from its first leg to its ranking: what trains next, who goes on, who is set aside.

What it knows lies in the candidates' folders, so that an interrupted search, run again, goes on from there.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from mammoflow import lake as lakes
from mammoflow.config import Config
from mammoflow.errors import TrainingError
from mammoflow.facts.stages import ImagesFacts, SearchFacts
from mammoflow.search import capacity, rungs
from mammoflow.search.bank_job import BankJob
from mammoflow.search.budget import Budget
from mammoflow.search.candidates import Candidate
from mammoflow.search.progress import SearchProgress
from mammoflow.search.record import SearchRecord
from mammoflow.search.rungs import Leg
from mammoflow.search.sampling import Draws
from mammoflow.tracking import FINISHED
from mammoflow.training import trials
from mammoflow.training.loop import Figures

_STAGES = 2


class SearchRun:
    """Takes candidates from leg to leg, and knows who lives."""

    def __init__(
        self, config: Config, jobs: list[BankJob], record: SearchRecord, progress: SearchProgress, budget: Budget
    ) -> None:
        """Begin with the candidates of the trunks' jobs.

        Args:
            config: of the run.
            jobs: the stage-1 job of each trunk, with all candidates that are named.
            record: told of every candidate's epochs and end.
            progress: shows them.
            budget: how long it may run.
        """
        self._config, self._jobs, self._out = config, jobs, jobs[0].out
        self._record, self._progress, self._budget = record, progress, budget
        self._legs = rungs.legs(config)
        self._pruned: set[str] = set()
        self._halved: dict[str, int] = {}
        images = jobs[0].images.facts(ImagesFacts).images
        self._memory = capacity.worker(config, images).memory if config.compute.pack is None else 0
        self._draws = Draws(config, self._out)

    @property
    def _candidates(self) -> list[Candidate]:
        return [candidate for job in self._jobs for candidate in job.candidates]

    def run(self) -> SearchFacts:
        """Search, close all runs and return the ranking and who failed."""
        for job in self._jobs:
            self._take_in(job.candidates, job)
        self._record.close_others()
        first, second = ([leg for leg in self._legs if leg.stage == stage] for stage in (0, 1))
        new = [*self._candidates, *self._draw()]
        while new and not self._budget.over():
            self._train(new, first[0])
            new = self._draw()
        self._go_through(first)
        if not self._budget.over():
            self._keep(rungs.survivors(self._living(), self._out, self._config))
            self._go_through(second)
        return self._result()

    def _go_through(self, legs: Sequence[Leg]) -> None:
        """Take the living through the legs of a stage, and drop the lower part at each rung."""
        asynchronous = self._config.search.halving == "asynchronous"
        for leg in legs[:1] if asynchronous else legs:  # there, what follows a leg follows pack by pack
            if not self._budget.over():
                self._train(self._living(), leg)
            if leg.rung is not None and not asynchronous and not self._budget.over():
                self._keep(rungs.go_on(self._living(), self._out, leg.rung, self._config))

    def _living(self) -> list[Candidate]:
        return [c for c in self._candidates if c.name not in self._pruned and not self._failed(c)]

    def _train(self, candidates: Sequence[Candidate], leg: Leg) -> None:
        """Take candidates to the end of a leg, and asynchronously beyond it."""
        alive = {*self._living()}
        packs = rungs.packs(self._jobs, [c for c in candidates if c in alive], leg, self._most())
        jobs = [job for pack in packs for job in self._undone(pack)]
        self._begin(jobs)
        trials.run(jobs, self._config.compute, self._on_epoch, self._on_end, self._budget.over)

    def _most(self) -> dict[str, int]:
        """Return K of each trunk: by flag or from a worker's memory, less where that proved too much."""
        pack = self._config.compute.pack
        most = {
            job.name: pack or capacity.most_together(self._config, job.candidates, self._memory) for job in self._jobs
        }
        return {name: min(number, self._halved.get(name, number)) for name, number in most.items()}

    def _begin(self, jobs: Sequence[BankJob]) -> None:
        """Tell the progress of jobs that are about to run, or wait for room."""
        packs: dict[tuple[int, int], dict[str, list[str]]] = {}
        for job in jobs:
            names = [candidate.name for candidate in job.candidates]
            packs.setdefault((job.stage, self._last_epoch(job)), {})[job.name] = names
        for (stage, until), own in packs.items():
            self._progress.begin(stage + 1, until, own)

    def _last_epoch(self, job: BankJob) -> int:
        """Return the epoch, over both stages, that a job goes to."""
        epochs = [stage.epochs for stage in job.training.stages]
        return sum(epochs[: job.stage]) + (job.until or epochs[job.stage])

    def _on_epoch(self, pack: str, figures: Figures) -> None:
        self._record.epoch(figures)
        self._progress.epoch(pack, figures)
        self._budget.note()

    def _on_end(self, job: BankJob, refusal: trials.Refusal | None) -> list[BankJob]:
        """Return the jobs that follow from one that ended: what is left of its pack, or its next leg."""
        following = self._after(job) if refusal is None else self._left_of(job, refusal)
        self._begin(following)
        return following

    def _left_of(self, job: BankJob, refusal: trials.Refusal) -> list[BankJob]:
        """Return a pack without the candidate that can't go on, or in two halves where it is too large."""
        own = job.candidates
        if refusal.memory and len(own) > 1:
            half = math.ceil(len(own) / 2)
            self._progress.say(f"{job.name} does not fit in memory: its {len(own)} candidates train in two packs")
            self._halved |= {trunk.name: half for trunk in self._jobs if own[0] in trunk.candidates}
            halves = enumerate((own[:half], own[half:]), start=1)
            return [replace(job, name=f"{job.name}-{number}", candidates=part) for number, part in halves]
        name = refusal.model or own[0].name
        for candidate in own:
            if candidate.name == name:
                lakes.write_json(candidate.failure(self._out), {"reason": refusal.reason})
                self._record.end(candidate, f"failed: {refusal.reason}", "FAILED")
        self._progress.failed(name, refusal.reason)
        others = tuple(candidate for candidate in own if candidate.name != name)
        return [replace(job, candidates=others)] if others else []

    def _undone(self, job: BankJob) -> list[BankJob]:
        """Return a job if it is to be trained; if it is done, what follows from it."""
        return self._after(job) if job.done else [job]

    def _after(self, job: BankJob) -> list[BankJob]:
        """Return what is to be trained after a job that ended."""
        return [more for after in self._next_leg(job) for more in self._undone(after)]

    def _next_leg(self, job: BankJob) -> list[BankJob]:
        """Return the job that follows at once from one that came to its rung, without those who are dropped there."""
        if self._config.search.halving == "synchronous" or not job.done:
            return []
        here = next(n for n, leg in enumerate(self._legs) if (leg.stage, leg.until) == (job.stage, job.until))
        rung, after = self._legs[here].rung, self._legs[here + 1 : here + 2]
        stay = job.candidates
        if rung is not None:
            arrived = rungs.arrived(self._candidates, self._out, rung)
            kept = rungs.go_on(arrived, self._out, rung, self._config)
            stay = tuple(candidate for candidate in job.candidates if candidate in kept)
            self._prune([candidate for candidate in job.candidates if candidate not in stay])
        if not stay or not after or after[0].stage != job.stage:
            return []
        return [replace(job, until=after[0].until, candidates=stay)]

    def _keep(self, kept: Sequence[Candidate]) -> None:
        """Drop all living candidates but these."""
        self._prune([candidate for candidate in self._living() if candidate not in kept])

    def _prune(self, dropped: Sequence[Candidate]) -> None:
        by_epochs: dict[int, list[str]] = {}
        for candidate in dropped:
            result = candidate.read_result(self._out)
            epochs = result.epochs if result else 0
            lakes.write_json(candidate.stop(self._out), {"epochs": epochs})
            self._record.end(candidate, f"pruned at epoch {epochs}")
            by_epochs.setdefault(epochs, []).append(candidate.name)
        for epochs, names in sorted(by_epochs.items()):
            self._pruned.update(names)
            self._progress.stopped(names, epochs)

    def _take_in(self, candidates: Sequence[Candidate], job: BankJob) -> None:
        """Open the runs of a trunk's new candidates; those stopped at an earlier start stay so."""
        self._record.open(job, candidates)
        self._progress.add([(candidate.name, candidate.kind) for candidate in candidates])
        if self._config.search.halving == "asynchronous":
            self._prune([candidate for candidate in candidates if lakes.exists(candidate.stop(self._out))])

    def _draw(self) -> list[Candidate]:
        """Take in the next free candidates of every trunk."""
        new = []
        for number, job in enumerate(self._jobs):
            room = (self._config.search.max_trials or math.inf) - len(self._candidates)
            found = self._draws.next(job, room)
            self._jobs[number] = replace(job, candidates=(*job.candidates, *found))
            self._take_in(found, job)
            new += found
        return new

    def _result(self) -> SearchFacts:
        """Close the runs of the living, and return what `tuning.search` does."""
        living, out = self._living(), self._out
        failed = {c.name: lakes.read_json(c.failure(out))["reason"] for c in self._candidates if self._failed(c)}
        for candidate in living:
            self._record.end(candidate, self._state(candidate))
        self._progress.finished([candidate.name for candidate in living])
        results = {c: c.read_result(out) for c in self._candidates if not self._failed(c)}
        trained = {c: result for c, result in results.items() if result is not None}
        if not trained and failed:
            raise TrainingError(f"every candidate failed, the first so: {next(iter(failed.values()))}")
        if not trained:
            hours = self._config.search.max_hours
            raise TrainingError(f"no candidate came through an epoch in {hours} hours; give --max-hours more")
        ranking = [self._record.row(c, result, survived=c in living) for c, result in trained.items()]
        return SearchFacts(
            run_id=self._record.runs[""],
            ranking=tuple(sorted(ranking, key=lambda row: (-row.val_auc, row.name))),
            failed=failed,
            out_of_time=tuple(c.name for c in living if self._state(c) != FINISHED),
        )

    def _failed(self, candidate: Candidate) -> bool:
        return lakes.exists(candidate.failure(self._out))

    def _state(self, candidate: Candidate) -> str:
        """Return how far a living candidate came."""
        result = candidate.read_result(self._out)
        if result and result.stages == _STAGES:
            return FINISHED
        return f"out of time at epoch {result.epochs if result else 0}"
