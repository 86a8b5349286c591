"""The site's interactive charts, as figures that Plotly's script draws. No files.

Shape letters: N images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import plotly.graph_objects as go

from mammoflow.facts.results import Auc, RocCurve
from mammoflow.lake import parse_json
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics.roc import FloatArray
from mammoflow.rendering.figures import COLOURS, GRID, INK, legend

Chart = dict[str, Any]
_GREY = "#b3bcc6"
_BINS = 40
_BELOW_1 = 1 - 1e-6  # a score of 1 would lie beyond the last bin


def roc(curves: Sequence[RocCurve], aucs: Mapping[str, Auc], strong: str) -> Chart:
    """Return ROC curves; the last trace is a point that the page moves along the strong one.

    Args:
        curves: one a model.
        aucs: model -> its AUC, for the legend.
        strong: name of the model that is drawn thick.
    """
    figure = go.Figure()
    for index, curve in enumerate(curves):
        thick = {"color": INK, "width": 3}
        line = thick if curve.name == strong else {"color": COLOURS[index % len(COLOURS)], "width": 1.3}
        across, upwards = ([round(rate, 4) for rate in rates] for rates in (curve.false_positive, curve.true_positive))
        figure.add_scatter(x=across, y=upwards, mode="lines", line=line, name=legend(curve.name, aucs[curve.name]))
    chance = {"color": _GREY, "dash": "dot", "width": 1}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=chance, showlegend=False, hoverinfo="skip")
    marker = {"size": 13, "color": COLOURS[1], "line": {"color": "white", "width": 2}}
    figure.add_scatter(x=[0], y=[0], mode="markers", marker=marker, name="at the threshold")
    _dress(figure, "1 - specificity", "sensitivity", height=520)
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.02, 1.02])
    return _plain(figure)


def scores(labels_N: npt.NDArray[Any], scores_N: FloatArray) -> Chart:
    """Return how the scores of benign and malignant images are spread; shape 0 is the threshold's line."""
    figure = go.Figure()
    bins = {"start": 0, "end": 1, "size": 1 / _BINS}
    for name, of_class, colour in (
        ("benign", labels_N != MALIGNANT, COLOURS[0]),
        ("malignant", labels_N == MALIGNANT, COLOURS[1]),
    ):
        figure.add_histogram(
            x=scores_N[of_class].clip(0, _BELOW_1), xbins=bins, name=name, marker={"color": colour}, opacity=0.6
        )
    figure.add_vline(x=0.5, line={"color": INK, "width": 2})
    figure.update_layout(barmode="overlay")
    _dress(figure, "score", "films", height=340)
    figure.update_xaxes(range=[0, 1])
    return _plain(figure)


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], members: Sequence[str]) -> Chart:
    """Return validation AUC by epoch of every candidate, members of the ensemble thick.

    Args:
        histories: name of a candidate -> its epochs, each with `val_auc`.
        members: names of those in the ensemble.
    """
    figure = go.Figure()
    for index, (name, history) in enumerate(histories.items()):
        colour = COLOURS[index] if index < len(COLOURS) else _GREY
        line = {"color": colour, "width": 3 if name in members else 1.2}
        epochs, aucs = [row["epoch"] for row in history], [round(row["val_auc"], 4) for row in history]
        figure.add_scatter(x=epochs, y=aucs, mode="lines+markers", line=line, marker={"size": 4}, name=name)
    _dress(figure, "epoch", "AUC on validation", height=380)
    return _plain(figure)


def _dress(figure: go.Figure, across: str, upwards: str, *, height: int) -> None:
    many = len(figure.data)
    figure.update_layout(
        template=None,
        height=height + 20 * many,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0},
        hovermode="closest",
    )
    for axes, title in ((figure.update_xaxes, across), (figure.update_yaxes, upwards)):
        axes(title=title, gridcolor=GRID, zeroline=False, linecolor=_GREY, showline=True)


def _plain(figure: go.Figure) -> Chart:
    return dict(parse_json(figure.to_json().encode()))
