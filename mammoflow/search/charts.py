"""The picture of a search: AUC against weights and operations, and every candidate as a line over its settings.

matplotlib's Agg back end. No files, no global state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammoflow.facts.stages import RankingRow
from mammoflow.models.top_kinds import parse
from mammoflow.rendering.figures import FAINT, GRID, INK, encode

_MAP = "viridis"
_MOST_MARKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One upright of the lower picture."""

    name: str
    values: Sequence[Any]
    """One a row: numbers, or words."""
    log: bool = False

    def heights(self) -> list[float]:
        """Return where each row crosses it [0-1]."""
        if isinstance(self.values[0], str):
            words = sorted({*self.values})
            return [words.index(value) / max(1, len(words) - 1) for value in self.values]
        numbers = [math.log(value) if self.log else float(value) for value in self.values]
        low, high = min(numbers), max(numbers)
        return [(number - low) / (high - low) if high > low else 0.5 for number in numbers]

    def marks(self) -> list[tuple[float, str]]:
        """Return (height, words) of what is written beside it."""
        pairs = sorted({*zip(self.heights(), self.values, strict=True)})
        if len(pairs) > _MOST_MARKS and not isinstance(self.values[0], str):
            pairs = [pairs[0], pairs[-1]]
        return [(height, _words(value)) for height, value in pairs]


def _words(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def search(ranking: Sequence[RankingRow], mark: str, kind: Literal["svg", "png"]) -> bytes:
    """Draw a search's candidates.

    Args:
        ranking: as `tuning.search` returns it, best first.
        mark: kind of data, written into the picture.
        kind: of the picture.

    Returns:
        The encoded picture.
    """
    uprights = axes_of(ranking)
    several = len(uprights) > 1
    figure = Figure(figsize=(11, 8 if several else 4), layout="constrained", dpi=110)
    grid = figure.add_gridspec(2 if several else 1, 2, height_ratios=(1, 1.15) if several else (1,))
    aucs = [row.val_auc for row in ranking]
    colours = mpl.colormaps[_MAP](Normalize(min(aucs), max(max(aucs), min(aucs) + 1e-9))(aucs))
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    _scatter(left, ranking, colours, [row.parameters / 1e6 for row in ranking], "weights, trunk and top layers [M]")
    _scatter(right, ranking, colours, [row.gflops for row in ranking], "operations of one image [GFLOP]")
    if several:
        _parallel(figure.add_subplot(grid[1, :]), uprights, ranking, colours)
    title = f"{len(ranking)} candidate(s) by validation AUC, the best {ranking[0].name} ({aucs[0]:.3f})"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    if mark:
        figure.text(0.99, 0.99, mark, ha="right", va="top", fontsize=10, color=FAINT)
    return encode(figure, kind)


def front(costs: Sequence[float], aucs: Sequence[float]) -> list[int]:
    """Return the Pareto front, by cost: the candidates that none beats at the same or a smaller cost."""
    best: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -aucs[i])):
        if not best or aucs[index] > aucs[best[-1]]:
            best.append(index)
    return best


def _scatter(axes: Axes, ranking: Sequence[RankingRow], colours: Any, costs: Sequence[float], label: str) -> None:
    """Draw AUC against a cost; pruned candidates are hollow, the Pareto front a line."""
    aucs = [row.val_auc for row in ranking]
    for cost, auc, colour, row in zip(costs, aucs, colours, ranking, strict=True):
        face = colour if row.survived else "none"
        axes.plot(cost, auc, "o", markersize=8, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.6)
    best = front(costs, aucs)
    axes.plot([costs[i] for i in best], [aucs[i] for i in best], color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set_xlabel(label)
    axes.set_ylabel("validation AUC")
    axes.margins(0.08)
    if max(costs) > 4 * min(costs):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        "filled: trained to the end; hollow: pruned; dashed: none better at less cost", loc="left", fontsize=8
    )


def _parallel(axes: Axes, uprights: Sequence[_Axis], ranking: Sequence[RankingRow], colours: Any) -> None:
    """Draw each candidate as a line over its settings, its AUC last."""
    columns = [upright.heights() for upright in uprights]
    for index in reversed(range(len(ranking))):  # the best on top
        heights = [column[index] for column in columns]
        strong = index == 0
        width = 3.0 if strong else 1.5 if ranking[index].survived else 0.9
        alpha = 1.0 if strong or ranking[index].survived else 0.6
        axes.plot(range(len(uprights)), heights, color=colours[index], linewidth=width, alpha=alpha)
    for place, upright in enumerate(uprights):
        axes.axvline(place, color=FAINT, linewidth=1, zorder=0)
        for height, words in upright.marks():
            ground = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}
            axes.text(place + 0.02, height, words, fontsize=8, color=INK, va="center", bbox=ground, zorder=4)
    axes.set_xticks(range(len(uprights)), [upright.name for upright in uprights], fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(uprights) - 1 + 0.35)
    axes.set_ylim(-0.08, 1.08)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def axes_of(ranking: Sequence[RankingRow]) -> list[_Axis]:
    """Return the settings in which candidates differ, and their AUC."""
    specs = [parse(row.top_layers) for row in ranking]
    axes = [
        _Axis(name="trunk", values=[row.backbone for row in ranking]),
        _Axis(name="top layers", values=[spec.family for spec in specs]),
        _Axis(name="blocks", values=[len(spec.blocks) for spec in specs]),
        _Axis(name="repeats", values=[max((block.repeats for block in spec.blocks), default=0) for spec in specs]),
        _Axis(name="widest", values=[max((block.widest for block in spec.blocks), default=0) for spec in specs]),
        _Axis(name="weights [M]", values=[row.parameters / 1e6 for row in ranking], log=True),
        _Axis(name="lr", values=[row.lr for row in ranking], log=True),
        _Axis(name="decay", values=[row.weight_decay for row in ranking]),
        _Axis(name="dropout", values=[row.dropout for row in ranking]),
        _Axis(name="epochs", values=[row.epochs for row in ranking]),
    ]
    varied = [axis for axis in axes if len({*axis.values}) > 1]
    return [*varied, _Axis(name="AUC", values=[row.val_auc for row in ranking])]
