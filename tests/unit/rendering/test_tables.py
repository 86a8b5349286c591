"""A table is built once: its figures look the same in the terminal and on a page."""

import pytest

from mammoflow import console
from mammoflow.facts.results import (
    Auc,
    Difference,
    Interval,
    ListedAuc,
    Proportion,
)
from mammoflow.rendering import formats, pages
from mammoflow.rendering.tables import Row, numbers, table, texts

INTERVAL = Interval(low=0.7, high=0.9)
AUC = Auc(value=0.8125, by_patient=INTERVAL, delong=Interval(low=0.6, high=0.95))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (INTERVAL, "0.700–0.900"),
        (AUC, "0.812 (0.700–0.900)"),
        (Auc(value=1.0, by_patient=None, delong=INTERVAL), "1.000"),
        (ListedAuc(value=0.5, by_patient=INTERVAL), "0.500 (0.700–0.900)"),
        (Proportion(value=0.5, interval=INTERVAL, hits=1000, of=2000), "0.500 (0.700–0.900), 1,000 of 2,000"),
        (Difference(value=0.02, interval=Interval(low=-0.01, high=0.05)), "+0.020 (-0.010 to +0.050)"),
    ],
)
def test_each_kind_of_figure_has_one_format(value: formats.Value, text: str) -> None:
    assert formats.text(value) == text


def test_both_renderers_show_the_same_cells(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(cells=("one <i>[b]", AUC, 1234), tag="member", strong=True), ("two", None, 0)]
    shown = table("Models & more", [*texts("model"), *numbers("A-AUC", "films")], rows)
    console.show_table(shown)
    printed = capsys.readouterr().out
    template = '{% from "parts.html" import table with context %}{{ table(shown) }}'
    page = pages.environment({"page.html": template}).get_template("page.html").render(shown=shown, mark="drawn")
    for text in ("0.812 (0.700–0.900)", "1,234", "–"):
        assert text in printed
        assert f">{text}</td>" in page
    assert "one <i>[b]" in printed
    assert 'one &lt;i&gt;[b] <span class="tag">member</span>' in page
    assert "Models &amp; more. <em>Drawn.</em>" in page
