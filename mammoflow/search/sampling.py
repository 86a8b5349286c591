"""The free candidates of one search: drawn a few at a time, each time from what the earlier ones came to. No Ray."""

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.lake import Artefact
from mammoflow.search import rungs, spaces
from mammoflow.search.bank_job import BankJob
from mammoflow.search.candidates import Candidate, run_ground
from mammoflow.search.spaces import Choices


class Draws:
    """What has been drawn on each trunk, kept in the lake: an earlier start's draws are read, not drawn again."""

    def __init__(self, config: Config, out: Artefact) -> None:
        """Begin with none known.

        Args:
            config: of the run.
            out: artefact of the search.
        """
        self._config, self._out = config, out
        self._drawn: dict[str, list[tuple[Candidate, Choices]]] = {}

    def next(self, job: BankJob, room: float) -> list[Candidate]:
        """Return the next candidates of a trunk.

        Args:
            job: the trunk's stage-1 job with its candidates so far.
            room: how many more candidates there may be.

        Returns:
            At first those of an earlier start, if there were any; at most `search.at_a_time` new ones after that;
            none where all are drawn.
        """
        file = self._out.file("work", "drawn", f"{job.name}.json")
        if job.name not in self._drawn and lake.exists(file):
            known = [(Candidate.of(row["backbone"], row["written"]), row["choices"]) for row in lake.read_json(file)]
            self._drawn[job.name] = known
            return [candidate for candidate, _ in known]
        drawn = self._drawn.setdefault(job.name, [])
        search = self._config.search
        number = int(min(search.at_a_time, search.drawn - len(drawn), room))
        if number < 1:
            return []
        found = spaces.draw(
            search,
            job.backbone,
            run_ground(self._config, job.backbone),
            number,
            self._config.seed,
            [(choices, self._value(candidate)) for candidate, choices in drawn],
            [candidate.name for candidate in job.candidates],
        )
        drawn += [(one.candidate, one.choices) for one in found]
        rows = [{"backbone": c.backbone, "written": c.written, "choices": choices} for c, choices in drawn]
        lake.write_json(file, rows)
        return [one.candidate for one in found]

    def _value(self, candidate: Candidate) -> float | None:
        """Return what a candidate came to in its first leg; None where it could not go on."""
        if lake.exists(candidate.failure(self._out)):
            return None
        first = rungs.legs(self._config)[0]
        rung = first.until or self._config.image_training.stages[0].epochs
        return rungs.best_so_far(candidate, self._out, rung)
