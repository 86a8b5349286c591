"""What a person sees while a search runs: a live table in a terminal, plain lines in a job's log. Rich; no Ray.

A thread of rich's draws the table while the search goes on in another, so what it reads is replaced, never changed in
size. Names and reasons go through `Text`: they may look like rich's markup (`[512-512]x2`) or its emoji (`host:100:`).
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mammoflow.facts.training import EpochFigures

_AROUND = 8
"""Lines that are no candidate's: headline, the table's head and edges, "and more"; a last one stays free, as a table of
the terminal's whole height is scrolled when it is taken away, and its first line is left behind."""
_KIND, _PACK = 90, 110  # columns from which there is room for them: two names cut to the same help nobody
_STATE = 13  # "stopped at 50"; a reason stands in a line of its own, and must not push figures out
_ORDER = {"training": "green", "waiting": "", "done": "bold", "stopped": "dim", "failed": "red"}
"""States, as they stand in the table, and their styles."""


@dataclass(slots=True)
class _Row:
    """A candidate."""

    name: str
    kind: str
    pack: str = ""
    """The last one that it was in."""
    state: str = "waiting"
    detail: str = ""
    epoch: int = 0
    last: float | None = None
    best: float | None = None


@dataclass(slots=True)
class _Pack:
    """Candidates that train together: the rows that say so and go on."""

    stage: int
    until: int
    epoch: int = 0
    """0 before its first one: a resumed pack begins in the middle."""
    heard: float = 0.0
    """When that was, by the clock [s]."""
    images_per_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """Of each epoch, in this stage."""


class SearchProgress:
    """Hears of everything that happens in a search, and shows it."""

    def __init__(
        self,
        epochs: int,
        concurrent: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        heard: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        """Start the clock.

        Args:
            epochs: of both stages.
            concurrent: packs that train at a time, at most.
            console: where to write; standard output by default.
            clock: seconds.
            heard: told how many candidates are in which state whenever that changes.
        """
        self._epochs, self._concurrent, self._clock = epochs, concurrent, clock
        self._heard = heard
        self._console = console or Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty())
        self._started = clock()
        self._rows: dict[str, _Row] = {}
        self._packs: dict[str, _Pack] = {}
        self._live = Live(
            console=self._console, get_renderable=self.view, refresh_per_second=2, transient=True, screen=False
        )

    def __enter__(self) -> "SearchProgress":
        """Show the table, where there is a terminal that can."""
        if self._console.is_interactive:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the table on success, when the ranking follows; keep it on error."""
        self._live.transient = kind is None
        self._live.stop()

    def add(self, candidates: Iterable[tuple[str, str]]) -> None:
        """Take in candidates, by name and kind."""
        self._rows = self._rows | {name: _Row(name=name, kind=kind) for name, kind in candidates}

    def begin(self, stage: int, until: int, packs: Mapping[str, Sequence[str]]) -> None:
        """Hear of packs that train next, or wait for room; their candidates leave the packs that they were in.

        Args:
            stage: from 1.
            until: the epoch, over both stages, that they go to.
            packs: the names of each one's candidates.
        """
        begun = {name: _Pack(stage=stage, until=until) for name in packs}
        for name, pack in begun.items():
            if name in self._packs and self._packs[name].stage == stage:
                pack.seconds = self._packs[name].seconds
        self._packs = self._packs | begun
        for pack_name, names in packs.items():
            for name in names:
                self._rows[name].state, self._rows[name].pack = "waiting", pack_name
        self._tell()
        number = sum(len(names) for names in packs.values())
        self._line(f"stage {stage}, to epoch {until} of {self._epochs}: {number} candidate(s) in {len(packs)} pack(s)")

    def epoch(self, pack: str, figures: Mapping[str, EpochFigures]) -> None:
        """Take a pack's epoch: a row for each candidate."""
        own, first = self._packs[pack], next(iter(figures.values()))
        own.epoch, own.images_per_s = first.epoch, first.images_per_s
        own.heard = self._clock()
        own.seconds.append(first.seconds or 0.0)
        aucs = {name: row.val_auc or 0.0 for name, row in figures.items()}
        for name, auc in aucs.items():
            row = self._rows[name]
            row.state = "training" if own.epoch < own.until else "waiting"
            row.epoch, row.last, row.best = own.epoch, auc, auc if row.best is None else max(auc, row.best)
        self._tell()
        best = max(aucs, key=lambda name: aucs[name])
        self._line(
            f"{pack} epoch {own.epoch}/{own.until}: {len(aucs)} candidate(s), best validation AUC {aucs[best]:.3f} "
            f"({best}), {_speed(own.images_per_s)}, {spoken(self._clock() - self._started)}{self._left_in_words()}"
        )

    def stopped(self, names: Sequence[str], epoch: int) -> None:
        """Hear that candidates were dropped."""
        self._end(names, "stopped", f"at {epoch}")
        self._line(f"stopped at epoch {epoch}: {', '.join(names)}")

    def failed(self, name: str, reason: str) -> None:
        """Hear that a candidate can't go on."""
        self._end([name], "failed", reason)
        self.say(f"{reason}; the search goes on without {name}")

    def finished(self, names: Sequence[str]) -> None:
        """Hear that candidates came to their end."""
        self._end(names, "done", "")

    def say(self, line: str) -> None:
        """Write a line, above the table where there is one."""
        self._console.print(Text(f"  {line}"), soft_wrap=True)

    def _end(self, names: Sequence[str], state: str, detail: str) -> None:
        for name in names:
            self._rows[name].state, self._rows[name].detail = state, detail
        self._tell()

    def _tell(self) -> None:
        if self._heard:
            self._heard(self._counts())

    def _counts(self) -> dict[str, int]:
        return {state: sum(row.state == state for row in self._rows.values()) for state in _ORDER}

    def _line(self, line: str) -> None:
        """Write a line of a log; in a terminal the table says it."""
        if not self._console.is_interactive:
            self.say(line)

    def _open(self) -> dict[str, _Pack]:
        """Return the packs with epochs to come, and candidates to train in them."""
        used = {row.pack for row in self._rows.values() if row.state in ("training", "waiting")}
        return {name: pack for name, pack in self._packs.items() if name in used and pack.epoch < pack.until}

    def seconds_left(self) -> float | None:
        """Return how long the packs that have begun or wait will take, by the epochs so far [s].

        Packs that had no epoch yet are taken to be as fast as the others of their stage: an epoch of stage 2, which
        trains all layers, takes many times one of stage 1.

        Returns:
            None: not known yet, as there is a stage without an epoch.
        """
        spans = []
        for name, pack in self._open().items():
            known = pack.seconds or [s for p in self._packs.values() if p.stage == pack.stage for s in p.seconds]
            if not known:
                return None
            one = median(known)
            done = max((row.epoch for row in self._rows.values() if row.pack == name), default=0)
            since = min(self._clock() - pack.heard, one) if pack.epoch else 0.0
            spans.append((pack.until - done) * one - since)
        return max(sum(spans) / self._concurrent, max(spans)) if spans else 0.0

    def _left_in_words(self) -> str:
        left = self.seconds_left()
        return "" if not left else f", about {spoken(left)} left of these packs"

    def view(self) -> Group:
        """Return the headline and the table, at most as high as the terminal."""
        order = list(_ORDER)
        rows = sorted(self._rows.values(), key=lambda row: (order.index(row.state), -(row.best or 0), row.name))
        room = max(self._console.height - _AROUND, 3)
        kind, pack = (self._console.width >= least for least in (_KIND, _PACK))
        table = Table(box=SIMPLE_HEAD)
        table.add_column("candidate", overflow="ellipsis", no_wrap=True)
        if kind:
            table.add_column("kind", min_width=13, no_wrap=True)
        for name in ("epoch", "AUC", "best"):
            table.add_column(name, justify="right", min_width=5, no_wrap=True)
        table.add_column("state", width=_STATE, overflow="ellipsis", no_wrap=True)
        if pack:
            table.add_column("pack", overflow="ellipsis", no_wrap=True)
        for row in rows[:room]:
            epoch, last, best = (f"{row.epoch}/{self._epochs}" if row.epoch else "", _auc(row.last), _auc(row.best))
            state = " ".join(f"{row.state} {row.detail}".split())  # of one line, whatever the reason
            cells = [row.name, *[row.kind] * kind, epoch, last, best, state, *[row.pack] * pack]
            table.add_row(*map(Text, cells), style=_ORDER[row.state])
        more = [Text(f"and {len(rows) - room} more")] if len(rows) > room else []
        return Group(Text(self.headline(), no_wrap=True, overflow="ellipsis"), table, *more)

    def headline(self) -> str:
        """Return how the search stands: what trains and who lives in a line, how well and how long in another."""
        counts = self._counts()
        living = counts["training"] + counts["waiting"] + counts["done"]
        best = max((row.best for row in self._rows.values() if row.best is not None), default=None)
        going = self._open().values()
        running = [pack.images_per_s for pack in going if pack.epoch]
        stages = " and ".join(map(str, sorted({pack.stage for pack in going})))
        untils = ", ".join(map(str, sorted({pack.until for pack in going})))
        where = f"stage {stages}, to epoch {untils} of {self._epochs}: " if going else ""
        parts = [f"best AUC {best:.3f}"] if best is not None else []
        parts += [_speed(sum(running))] if running else []
        parts += [f"{spoken(self._clock() - self._started)} so far{self._left_in_words()}"]
        return f"{where}{living} living, {counts['stopped']} stopped, {counts['failed']} failed\n{', '.join(parts)}"


def _auc(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _speed(images_per_s: float) -> str:
    return f"{images_per_s:.{0 if images_per_s >= 10 else 1}f} images/s"


def spoken(seconds: float) -> str:
    """Return a duration for a person: `42 s`, `7 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
