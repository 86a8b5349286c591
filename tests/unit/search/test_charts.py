"""The picture of a search: what it shows, and which candidates none beats."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.facts.stages import RankingRow
from mammoflow.search import charts

ROW = RankingRow(
    name="one",
    backbone="resnet50",
    top_layers="256x1,128x1",
    kind="Resnet-VGG",
    changes="",
    lr=1e-4,
    weight_decay=1e-3,
    dropout=0.0,
    val_auc=0.8,
    stage1_val_auc=0.7,
    best_epoch=40,
    epochs=50,
    parameters=28_500_000,
    gflops=177.8,
    epoch_seconds=None,
    memory_gib=None,
    run_id="one",
    survived=True,
)
OTHER = replace(
    ROW,
    name="two",
    top_layers="[512-512-1024]x2,[512-512-1024]x2",
    dropout=0.5,
    epochs=10,
    survived=False,
    val_auc=0.7,
    gflops=174.0,
    parameters=40_800_000,
)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_front_is_whom_none_beats(points: list[tuple[int, int]]) -> None:
    costs, aucs = zip(*points, strict=True)
    front = charts.front(costs, aucs)
    for index in range(len(points)):
        beaten = any(
            (costs[o] <= costs[index] and aucs[o] > aucs[index]) or (costs[o] < costs[index] and aucs[o] == aucs[index])
            for o in range(len(points))
        )
        if beaten:
            assert index not in front
    assert [costs[i] for i in front] == sorted({costs[i] for i in front})
    assert max(aucs) == aucs[front[-1]]


def test_axes_are_the_settings_in_which_candidates_differ() -> None:
    axes = charts.axes_of([ROW, OTHER])
    assert [axis.name for axis in axes] == [
        "top layers",
        "repeats",
        "widest",
        "weights [M]",
        "dropout",
        "epochs",
        "AUC",
    ]
    by_name = {axis.name: axis for axis in axes}
    assert by_name["top layers"].heights() == [1, 0], "words in order"
    assert by_name["AUC"].heights() == [1, 0]
    assert by_name["widest"].marks() == [(0, "256"), (1, "1024")]
    assert [axis.name for axis in charts.axes_of([ROW])] == ["AUC"]


@pytest.mark.parametrize("rows", [[ROW], [ROW, OTHER], [ROW, *[OTHER] * 70]])
def test_one_and_many_candidates_are_drawn(rows: list[RankingRow]) -> None:
    svg = charts.search(rows, "phantom data", "svg")
    marks = list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}use"))
    assert len(marks) > 2 * len(rows)
    png = charts.search(rows, "", "png")
    assert np.frombuffer(png[:8], np.uint8).tolist() == [137, 80, 78, 71, 13, 10, 26, 10]
