"""Curves: where a stage begins, and at which learning rate."""

from mammoflow.rendering import figures


def test_stages_are_found_with_their_first_learning_rate() -> None:
    stages, rates = [1, 1, 2, 3, 3], [1e-3, 5e-4, 1e-4, 1e-5, 1e-6]
    history = [{"stage": stage, "lr": rate} for stage, rate in zip(stages, rates, strict=True)]
    assert figures.stage_rates(history) == {1: 1e-3, 3: 1e-4, 4: 1e-5}
    assert figures.stage_rates([]) == {}


def test_curves_say_each_stages_learning_rate() -> None:
    line = figures.Line(name="validation", values=[0.9, 0.8, 0.7, 0.65], colour=figures.COLOURS[0])
    svg = figures.curves("a loss", [line], {1: 1e-3, 3: 1e-5}, "phantoms").decode()
    assert "lr 0.001" in svg
    assert "lr 1e-05" in svg
