"""Which registered version is the champion: moved by rule, rolled back, and every move kept. No Ray, no torch.

The log is one MLflow run a move, beside the registry: written before the alias moves and closed after, so that a move
that a kill cut in two is known as made or not made by the next one.
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
from mammoflow.registry import registered_model
from mammoflow.registry.registered_model import CANDIDATE, CHAMPION
from mammoflow.tracking import Tracker

LEAST_DIFFERENCE = -0.02
"""A new champion's validation AUC may be this much lower at worst: the lower end of the 95% interval of the paired
difference lies above it."""

EXPERIMENT = "promotions"
"""MLflow experiment of the log."""

Kind = Literal["promotion", "rollback"]

_FIGURES = ("value", "low", "high")
"""Parameters of the log that hold a difference and its interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of the champion's alias, as the log holds it."""

    kind: Kind
    """promotion, or rollback to the version that the champion had replaced."""
    version: str
    """The champion from then on."""
    replaced: str
    """The champion before; empty where there was none."""
    forced: bool
    """Promoted whatever the comparison said."""
    difference: Difference | None
    """In validation AUC, new minus old, with its interval by bootstrap of patients; None where nothing was compared."""
    by: str
    """Login name of who did it."""
    at: str
    """When it began, UTC."""


def promote(tracking_uri: str, name: str, version: str | None = None, *, force: bool = False) -> Move:
    """Make a version the champion: the first one as it is, a later one if it is not worse than the champion.

    Args:
        tracking_uri: of the registry.
        name: of the registered model.
        version: which one; the candidate where None.
        force: promote whatever the comparison says; the log holds that it was.

    Raises:
        TrackingError: no such model or version; or without `force`, the lower end of the difference in validation AUC
            is not above `LEAST_DIFFERENCE`, or the two were validated on different images.
    """
    with registered_model.connect(tracking_uri) as client:
        wanted = f"models:/{name}@{CANDIDATE}" if version is None else f"models:/{name}/{version}"
        new = registered_model.find(client, wanted)
        held = client.get_registered_model(name).aliases.get(CHAMPION)
    to, old = str(new.version), "" if held is None else str(held)
    if old == to and (moves := history(tracking_uri, name)) and moves[0].version == to:
        return moves[0]  # as when the same command is run again
    found = None if old in ("", to) else _compared(tracking_uri, name, old, to, force=force)
    return _move(tracking_uri, name, _now("promotion", to, old, forced=force and old != "", difference=found))


def rollback(tracking_uri: str, name: str) -> Move:
    """Make the version the champion again that the present champion replaced when it was promoted.

    Raises:
        TrackingError: no such model, no champion, or one that replaced none.
    """
    with registered_model.connect(tracking_uri) as client:
        now = str(registered_model.find(client, f"models:/{name}@{CHAMPION}").version)
    before = [move.replaced for move in history(tracking_uri, name) if move.kind == "promotion" and move.version == now]
    if not before or before[0] in ("", now):
        raise TrackingError(
            f"version {now} of {name} replaced no other when it became champion; name the version that shall be it "
            "with --version"
        )
    return _move(tracking_uri, name, _now("rollback", before[0], now, forced=False, difference=None))


def history(tracking_uri: str, name: str) -> list[Move]:
    """Return every move of a model's champion that was made, newest first."""
    tracker = Tracker.connect(tracking_uri, EXPERIMENT)
    _settle(tracker, tracking_uri, name)
    return [_read(values) for values in tracker.search({"model": name}, status="FINISHED")]


def compare(tracking_uri: str, name: str, old: str, new: str) -> Difference:
    """Return how much larger a version's validation AUC is than another's, on the same images.

    Raises:
        TrackingError: they were not validated on the same images.
        LakeError: one was registered by an earlier version of mammoflow, without its validation scores.
    """
    before, after = (registered_model.validation_scores(tracking_uri, f"models:/{name}/{each}") for each in (old, new))
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


def _compared(tracking_uri: str, name: str, old: str, new: str, *, force: bool) -> Difference | None:
    """Return the difference to the champion; refuse a worse version unless it is forced."""
    try:
        found = compare(tracking_uri, name, old, new)
    except TrackingError:
        if force:
            return None
        raise
    low, high = found.interval.low, found.interval.high
    if low <= LEAST_DIFFERENCE and not force:
        raise TrackingError(
            f"version {new} of {name} against the champion, version {old}: validation AUC {found.value:+.4f} (95% "
            f"interval {low:+.4f} to {high:+.4f}), but the lower end must be above {LEAST_DIFFERENCE:+.2f}"
            "; promote a better one, or validate on more images, or give --force"
        )
    return found


def _same_images(before: pa.Table, after: pa.Table) -> bool:
    columns = ["image_id", "label"]
    return bool(before.select(columns).equals(after.select(columns)))


def _now(kind: Kind, version: str, replaced: str, *, forced: bool, difference: Difference | None) -> Move:
    """Return a move that this user makes now."""
    by, at = getpass.getuser(), datetime.now(UTC).isoformat(timespec="seconds")
    return Move(kind=kind, version=version, replaced=replaced, forced=forced, difference=difference, by=by, at=at)


def _move(tracking_uri: str, name: str, move: Move) -> Move:
    """Write a move down, make it, and close what was written."""
    tracker = Tracker.connect(tracking_uri, EXPERIMENT)
    _settle(tracker, tracking_uri, name)
    run_id = tracker.start(f"{name} {move.replaced or 'none'} to {move.version}", params=_write(name, move), tags={})
    with tracker.closing([run_id]), registered_model.connect(tracking_uri) as client:
        client.set_registered_model_alias(name, CHAMPION, move.version)
    return move


def _settle(tracker: Tracker, tracking_uri: str, name: str) -> None:
    """Close what a killed move left open: it was made if the champion is the version that it names."""
    for values in tracker.search({"model": name}, status="RUNNING"):
        with registered_model.connect(tracking_uri) as client:
            champion = client.get_registered_model(name).aliases.get(CHAMPION)
        tracker.end(values["run_id"], "FINISHED" if str(champion) == values["version"] else "KILLED")


def _write(name: str, move: Move) -> dict[str, Any]:
    found = move.difference
    values = (found.value, found.interval.low, found.interval.high) if found else (math.nan,) * 3
    figures = dict(zip(_FIGURES, values, strict=True))
    plain = {key: getattr(move, key) for key in ("kind", "version", "replaced", "forced", "by", "at")}
    return {"model": name, **plain, **figures}


def _read(values: Mapping[str, str]) -> Move:
    value, low, high = (float(values[key]) for key in _FIGURES)
    found = None if math.isnan(value) else Difference(value=value, interval=Interval(low=low, high=high))
    kind: Kind = "rollback" if values["kind"] == "rollback" else "promotion"
    plain = {key: values[key] for key in ("version", "replaced", "by", "at")}
    return Move(kind=kind, forced=values["forced"] == "True", difference=found, **plain)
