"""Numbers as text: one format for each kind of figure, on pages and in the terminal."""

from mammoflow.facts.results import (
    Auc,
    Difference,
    Interval,
    ListedAuc,
    Proportion,
)

NONE = "–"
"""Stands where there is no figure."""

Value = str | int | float | Auc | Difference | Interval | ListedAuc | Proportion | None
"""What a cell of a table may hold. An int is a count, a float a figure of three digits."""


def text(value: Value) -> str:
    """Return a value as tables show it."""
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Interval):
        return f"{value.low:.3f}–{value.high:.3f}"
    if isinstance(value, Difference):
        return _difference(value)
    if isinstance(value, Proportion):
        return f"{value.value:.3f} ({text(value.interval)}), {count(value.hits)} of {count(value.of)}"
    return f"{value.value:.3f}" + (f" ({text(value.by_patient)})" if value.by_patient else "")


def count(number: int) -> str:
    """Return a number with commas."""
    return f"{number:,}"


def share(part: float, whole: float) -> str:
    """Return a part in percent."""
    return f"{part / whole:.0%}" if whole else NONE


def short(value: float | None) -> str:
    """Return a published figure, which has two digits."""
    return NONE if value is None else f"{value:.2f}"


def p_value(p: float | None) -> str:
    """Return a p value."""
    if p is None:
        return "p unknown"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}"


def _difference(found: Difference) -> str:
    low, high = found.interval.low, found.interval.high
    return f"{found.value:+.3f} ({low:+.3f} to {high:+.3f})"
