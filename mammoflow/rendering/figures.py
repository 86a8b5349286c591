"""Curves of the report, drawn by matplotlib's Agg back end and returned as SVG. No files, no global state.

Every function takes plain values and a `mark`, which is written into the picture: what kind of data it shows.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammoflow.facts.results import Auc, ReliabilityPoint, RocCurve
from mammoflow.rendering import formats

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6a3d9a", "#8c564b")
"""Told apart by colour-blind readers too (Okabe and Ito, less yellow and black)."""

INK, FAINT, GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
_LONG = 30  # characters of a name in the legend that leave no room for a second one beside it
_SIZE = (5.4, 3.9)  # inches; on a phone the text stays readable at the width of the screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a figure."""

    name: str
    """What the legend says."""
    values: Sequence[float]
    """One value an epoch, from epoch 1."""
    colour: str
    """CSS colour."""
    dashed: bool = False
    """Drawn dashed, e.g. for training beside validation."""
    strong: bool = True
    """Drawn thick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One distribution of a figure."""

    name: str
    """What the legend says."""
    heights: npt.NDArray[np.float64]
    """(n,), how much lies in each bin."""
    edges: npt.NDArray[np.float64]
    """(n + 1,), where bins begin and end."""
    colour: str
    """CSS colour."""
    strong: bool = False
    """Drawn thick."""


def curves(title: str, lines: Sequence[Line], rates: Mapping[int, float], mark: str, limits: Any = None) -> bytes:
    """Draw curves over epochs, with a dotted line between stages and each one's learning rate.

    Args:
        title: what the figure shows.
        lines: the curves.
        rates: first epoch of each stage, counted from 1 -> its learning rate there (`stage_rates`).
        mark: kind of data, written below.
        limits: (lowest, highest) of the vertical axis; of the data where None.

    Returns:
        SVG.
    """
    wide, high = _SIZE
    long = any(len(line.name) >= _LONG for line in lines)  # then each has a line of the legend for itself
    figure = Figure(figsize=(wide, high + 0.17 * max(0, len(lines) * (1 if long else 0.5) - 3)), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        epochs = np.arange(1, len(line.values) + 1)
        # A single epoch has no line to see, only a point.
        axes.plot(
            epochs,
            line.values,
            color=line.colour,
            linestyle="--" if line.dashed else "-",
            linewidth=2 if line.strong else 1.2,
            marker="o" if len(epochs) < 15 else None,
            markersize=3.5,
            label=line.name,
        )
    for first, rate in rates.items():
        if first > 1:
            axes.axvline(first - 0.5, color=FAINT, linestyle=":", linewidth=1)
        above = axes.get_xaxis_transform()  # epochs across, 0-1 upwards
        ground = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}
        text = axes.text(first - 0.4, 0.98, f"lr {rate:g}", transform=above, va="top", rotation=90, bbox=ground)
        text.set(color=INK, fontsize=7)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(len(line.values) for line in lines) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if limits is not None:
        axes.set_ylim(*limits)
    _dress(figure, axes, title, mark)
    return encode(figure, "svg")


def roc(
    title: str,
    curves: Sequence[RocCurve],
    aucs: Mapping[str, Auc],
    strong: str,
    operating_point: tuple[float, float] | None,
    mark: str,
) -> bytes:
    """Draw ROC curves and an operating point.

    Args:
        title: what the figure shows.
        curves: one a model.
        aucs: model -> its AUC, for the legend.
        strong: model that is drawn thick: the ensemble.
        operating_point: 1 - specificity and sensitivity at the ensemble's cut-off [0-1]; None: not drawn.
        mark: kind of data, written below.

    Returns:
        SVG.
    """
    figure = Figure(figsize=(5.4, 5.7 + 0.19 * (len(curves) + 1)), layout="constrained")  # a line of legend each
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        thick = curve.name == strong
        axes.plot(
            curve.false_positive,
            curve.true_positive,
            color=INK if thick else COLOURS[index % len(COLOURS)],
            linewidth=2.8 if thick else 1.3,
            label=legend(curve.name, aucs[curve.name]),
            zorder=3 if thick else 2,
        )
    if operating_point is not None:
        label = "operating point (cut-off of validation)"
        axes.plot(*operating_point, "o", color=INK, markersize=8, zorder=4, label=label)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    _unit_square(axes)
    _dress(figure, axes, title, mark)
    return encode(figure, "svg")


def legend(name: str, auc: Auc) -> str:
    """Return what the legend says of a ROC curve."""
    return f"{name}: {formats.text(auc)}"


def reliability(title: str, parts: Mapping[str, Sequence[ReliabilityPoint]], mark: str) -> bytes:
    """Draw how often images of each probability are malignant; on the diagonal probabilities hold.

    Args:
        title: what the figure shows.
        parts: name of a curve -> its points.
        mark: kind of data, written below.

    Returns:
        SVG.
    """
    figure = Figure(figsize=(5.4, 5.7), layout="constrained")
    axes = figure.add_subplot()
    for colour, (name, points) in zip(COLOURS, parts.items(), strict=False):
        predicted, observed = [point.predicted for point in points], [point.observed for point in points]
        below = [point.observed - point.interval.low for point in points]
        above = [point.interval.high - point.observed for point in points]
        errors = np.clip([below, above], 0, None)
        axes.errorbar(
            predicted,
            observed,
            yerr=errors,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.3,
            capsize=2,
            label=name,
        )
    axes.set_xlabel("predicted probability of malignant")
    axes.set_ylabel("share that is malignant (95% interval)")
    _unit_square(axes)
    _dress(figure, axes, title, mark)
    return encode(figure, "svg")


def histogram(title: str, parts: Sequence[Histogram], axes_names: tuple[str, str], mark: str, *, log: bool) -> bytes:
    """Draw distributions over each other.

    Args:
        title: what the figure shows.
        parts: the distributions; the same edges are not asked for.
        axes_names: what stands below and beside the figure.
        mark: kind of data, written below.
        log: the vertical axis is logarithmic: a large share of air would else hide the rest.

    Returns:
        SVG.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    for part in parts:
        # On a logarithmic axis an empty bin is no place to draw to.
        heights = np.where(part.heights > 0, part.heights, np.nan) if log else part.heights
        width = 2.2 if part.strong else 1.3
        axes.stairs(heights, part.edges, color=part.colour, linewidth=width, label=part.name, baseline=None)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    _dress(figure, axes, title, mark)
    return encode(figure, "svg")


def stage_rates(history: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the first epoch of each stage, counted from 1, and its learning rate."""
    rates: dict[int, float] = {}
    for index, row in enumerate(history):
        if index == 0 or row["stage"] != history[index - 1]["stage"]:
            rates[index + 1] = float(row["lr"])
    return rates


def _unit_square(axes: Axes) -> None:
    """Show shares against shares, with the diagonal."""
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1, zorder=1)
    axes.set_box_aspect(1)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def _dress(figure: Figure, axes: Axes, title: str, mark: str) -> None:
    """Give a figure its title, legend below, light grid and mark."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 2 if all(len(text) < _LONG for text in axes.get_legend_handles_labels()[1]) else 1
    figure.legend(loc="outside lower left", ncols=columns, fontsize=8.5, frameon=False)
    if mark:
        axes.text(0.5, 0.5, mark, transform=axes.transAxes, ha="center", va="center", color=FAINT, alpha=0.45, zorder=1)


def encode(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Return a figure as a file; an SVG has its text as outlines, to look the same everywhere, and no date."""
    out = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    figure.savefig(out, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
    return out.getvalue()
