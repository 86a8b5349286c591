"""The view of a search, driven by events: lines in a log, a table in a terminal."""

import io

import pytest
from rich.console import Console

from mammoflow.training.progress import SearchProgress, spoken

NAMES = [f"resnet50-[{n}-8]x2" for n in range(1, 31)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(*, terminal: bool, concurrent: int = 2, height: int = 14) -> tuple[SearchProgress, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, force_terminal=terminal, width=120, height=height)
    return SearchProgress(14, concurrent, console, clock), text, clock


def figures(epoch: int, aucs: dict[str, float], seconds: float = 60.0) -> dict:
    return {"epoch": epoch, "images_per_s": 12.4, "seconds": seconds, "val_auc": aucs}


def test_a_log_has_a_line_for_each_thing_that_happens_and_no_codes() -> None:
    progress, text, clock = made(terminal=False)
    with progress:
        progress.add([(name, "Resnet-Resnet") for name in NAMES[:3]])
        progress.begin(1, 10, {"pack1": NAMES[:2], "pack2": NAMES[2:3]})
        clock.now = 61
        progress.epoch("pack1", figures(1, {NAMES[0]: 0.6, NAMES[1]: 0.71}))
        progress.failed(NAMES[2], "loss of it is nan")
        progress.stopped([NAMES[0]], 10)
        progress.finished([NAMES[1]])
    assert text.getvalue().splitlines() == [
        "  stage 1, to epoch 10 of 14: 3 candidate(s) in 2 pack(s)",
        "  pack1 epoch 1/10: 2 candidate(s), best validation AUC 0.710 (resnet50-[2-8]x2), 12 images/s, 61 s, "
        "about 10 min left of these packs",
        f"  loss of it is nan; the search goes on without {NAMES[2]}",
        f"  stopped at epoch 10: {NAMES[0]}",
    ]


def test_the_time_left_is_that_of_the_packs_at_so_many_at_a_time() -> None:
    progress, _, _ = made(terminal=False)
    progress.add([(name, "kind") for name in NAMES[:3]])
    progress.begin(1, 10, {name: [name] for name in NAMES[:3]})
    assert progress.seconds_left() is None
    progress.epoch(NAMES[0], figures(1, {NAMES[0]: 0.5}, seconds=10))
    assert progress.seconds_left() == pytest.approx((9 * 10 + 10 * 10 + 10 * 10) / 2)
    progress.epoch(NAMES[1], figures(1, {NAMES[1]: 0.5}, seconds=100))
    assert progress.seconds_left() == 9 * 100, "not before the slowest"
    for name in NAMES[:3]:
        progress.epoch(name, figures(10, {name: 0.5}))
    assert progress.seconds_left() == 0
    progress.begin(2, 14, {"alone": [NAMES[0]]})
    assert progress.seconds_left() == pytest.approx(4 * 60)


def test_the_table_is_no_higher_than_the_terminal_and_shows_the_best_that_train() -> None:
    progress, text, _ = made(terminal=True)
    with progress:
        progress.add([(name, "Resnet-Resnet") for name in NAMES])
        progress.begin(1, 10, {"pack": NAMES})
        progress.epoch("pack", figures(3, {name: 0.5 + n / 100 for n, name in enumerate(NAMES)}))
        progress.stopped(NAMES[-1:], 3)
    shown = io.StringIO()
    Console(file=shown, width=120).print(progress.view())
    lines = shown.getvalue().splitlines()
    assert len(lines) <= 14
    assert "29 living, 1 stopped, 0 failed, best AUC 0.790, 12 images/s" in lines[0]
    assert NAMES[-2] in lines[4], "as it is written, though it looks like markup"
    assert "3/14" in lines[4]
    assert "and 22 more" in lines[-1]
    assert NAMES[-1] not in shown.getvalue(), "stopped ones stand last"
    assert "\x1b[?25h" in text.getvalue(), "the cursor is back"


def test_an_error_gives_the_terminal_back() -> None:
    progress, text, _ = made(terminal=True)
    with pytest.raises(RuntimeError, match="bang"), progress:
        raise RuntimeError("bang")
    hidden, shown = text.getvalue().rfind("\x1b[?25l"), text.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_durations_are_spoken() -> None:
    assert [spoken(seconds) for seconds in (0, 0.42, 42, 99, 100, 5999, 6000, 86400)] == [
        *("0 s", "0.4 s", "42 s", "99 s", "2 min", "100 min", "1.7 h", "24.0 h")
    ]
