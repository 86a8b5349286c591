"""Move the champion alias by rule, roll it back, and log every move. No Ray.

The log is one MLflow run per move: opened before the alias moves and closed after it. A kill in between leaves it open;
the next move checks the alias and closes the run as made or not made.
"""

import getpass
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from mammoflow.ensemble import ensemble
from mammoflow.errors import TrackingError
from mammoflow.facts.results import Difference, Interval
from mammoflow.metrics import resampling, roc
from mammoflow.metrics.resampling import Resampling
from mammoflow.registry.registry import CANDIDATE, CHAMPION, Registry
from mammoflow.tracking import Tracker

LEAST_DIFFERENCE = -0.02
"""The lower end of the 95% interval of the paired difference in validation AUC, new minus old, must be above this."""

EXPERIMENT = "promotions"
"""MLflow experiment of the log."""

Kind = Literal["promotion", "rollback"]

_FIGURES = ("value", "low", "high")
"""Parameters of the log that hold a difference and its interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One logged move of the champion alias."""

    kind: Kind
    """promotion, or rollback to the version that the champion replaced."""
    version: str
    """The champion from then on."""
    replaced: str
    """The champion before; empty where there was none."""
    forced: bool
    """Promoted without passing the comparison."""
    difference: Difference | None
    """In validation AUC, new minus old, with its interval by bootstrap of patients; None without a comparison."""
    by: str
    """Login name of who did it."""
    at: str
    """Start, UTC."""


def promote(registry: Registry, name: str, version: str | None = None, *, force: bool = False) -> Move:
    """Make a version the champion: unconditionally if it is the first, else only if it is not worse.

    Args:
        registry: where the model is registered.
        name: of the registered model.
        version: which one; the candidate where None.
        force: promote even if it is worse; the log says so.

    Raises:
        TrackingError: no such model or version; or without `force`, the lower end of the difference in validation AUC
            is not above `LEAST_DIFFERENCE`, or the two were validated on different images.
    """
    to = registry.version(f"models:/{name}@{CANDIDATE}" if version is None else f"models:/{name}/{version}").version
    old = registry.champion(name) or ""
    if old == to and (moves := history(registry, name)) and moves[0].version == to:
        return moves[0]  # the same command again
    difference = None if old in ("", to) else _compared(registry, name, old, to, force=force)
    return _move(registry, name, _now("promotion", to, old, forced=force and old != "", difference=difference))


def rollback(registry: Registry, name: str) -> Move:
    """Make the version that the champion replaced the champion again.

    Raises:
        TrackingError: no such model, no champion, or one that replaced none.
    """
    now = registry.version(f"models:/{name}@{CHAMPION}").version
    before = [move.replaced for move in history(registry, name) if move.kind == "promotion" and move.version == now]
    if not before or before[0] in ("", now):
        raise TrackingError(
            f"version {now} of {name} replaced no other when it became champion; name the version to promote "
            "with --version"
        )
    return _move(registry, name, _now("rollback", before[0], now, forced=False, difference=None))


def history(registry: Registry, name: str) -> list[Move]:
    """Return all moves of a model's champion, newest first."""
    tracker = Tracker.connect(registry.uri, EXPERIMENT)
    _close_interrupted(tracker, registry, name)
    return [_read(values) for values in tracker.search({"model": name}, status="FINISHED")]


def compare(registry: Registry, name: str, old: str, new: str) -> Difference:
    """Return the difference of two versions' validation AUCs on the same images, new minus old.

    Raises:
        TrackingError: they were not validated on the same images.
        LakeError: one was registered by an earlier version of mammoflow, without its validation scores.
    """
    before, after = (registry.version(f"models:/{name}/{version}").validation_scores() for version in (old, new))
    if not _same_images(before, after):
        raise TrackingError(
            f"versions {old} ({before.num_rows} images) and {new} ({after.num_rows}) of {name} were validated on "
            "different images, so their AUCs can't be compared; evaluate both on one set, then promote with --force"
        )
    labels_N, old_N = ensemble.columns(before)
    _, new_N = ensemble.columns(after)
    draws = Resampling(labels_N, before["patient_id"].to_pylist())
    interval = resampling.interval(draws.aucs(new_N) - draws.aucs(old_N))
    value = roc.auc(labels_N, new_N) - roc.auc(labels_N, old_N)
    return Difference(value=value, interval=interval)


def _compared(registry: Registry, name: str, old: str, new: str, *, force: bool) -> Difference | None:
    """Return the difference to the champion; refuse a worse version unless it is forced."""
    try:
        difference = compare(registry, name, old, new)
    except TrackingError:
        if force:
            return None
        raise
    if difference.interval.low <= LEAST_DIFFERENCE and not force:
        raise TrackingError(
            f"version {new} of {name} against the champion, version {old}: validation AUC {difference.value:+.4f} "
            f"(95% interval {difference.interval.low:+.4f} to {difference.interval.high:+.4f}), but the lower end "
            f"must be above {LEAST_DIFFERENCE:+.2f}; promote a better one, or validate on more images, or give --force"
        )
    return difference


def _same_images(before: pa.Table, after: pa.Table) -> bool:
    columns = ["image_id", "label"]
    return bool(before.select(columns).equals(after.select(columns)))


def _now(kind: Kind, version: str, replaced: str, *, forced: bool, difference: Difference | None) -> Move:
    """Return a move by this user, now."""
    by, at = getpass.getuser(), datetime.now(UTC).isoformat(timespec="seconds")
    return Move(kind=kind, version=version, replaced=replaced, forced=forced, difference=difference, by=by, at=at)


def _move(registry: Registry, name: str, move: Move) -> Move:
    """Log a move, make it, close the log entry."""
    tracker = Tracker.connect(registry.uri, EXPERIMENT)
    _close_interrupted(tracker, registry, name)
    run_id = tracker.start(f"{name} {move.replaced or 'none'} to {move.version}", params=_write(name, move), tags={})
    with tracker.closing([run_id]):
        registry.set_alias(name, CHAMPION, move.version)
    return move


def _close_interrupted(tracker: Tracker, registry: Registry, name: str) -> None:
    """Close the entry of a killed move: it was made if the champion is the version that it names."""
    for values in tracker.search({"model": name}, status="RUNNING"):
        made = registry.champion(name) == values["version"]
        tracker.end(values["run_id"], "FINISHED" if made else "KILLED")


def _write(name: str, move: Move) -> dict[str, Any]:
    difference = move.difference
    values = (difference.value, difference.interval.low, difference.interval.high) if difference else (math.nan,) * 3
    figures = dict(zip(_FIGURES, values, strict=True))
    plain = {key: getattr(move, key) for key in ("kind", "version", "replaced", "forced", "by", "at")}
    return {"model": name, **plain, **figures}


def _read(values: Mapping[str, str]) -> Move:
    value, low, high = (float(values[key]) for key in _FIGURES)
    difference = None if math.isnan(value) else Difference(value=value, interval=Interval(low=low, high=high))
    kind: Kind = "rollback" if values["kind"] == "rollback" else "promotion"
    plain = {key: values[key] for key in ("version", "replaced", "by", "at")}
    return Move(kind=kind, forced=values["forced"] == "True", difference=difference, **plain)
