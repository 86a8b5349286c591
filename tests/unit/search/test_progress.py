"""The view of a search, driven by events: lines in a log, a table in a terminal."""

import contextlib
import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from mammoflow.facts.training import EpochFigures
from mammoflow.search.progress import SearchProgress, spoken

NAMES = [f"resnet50-[{n}-8]x2" for n in range(1, 31)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(
    *, terminal: bool, concurrent: int = 2, height: int = 14, width: int = 120
) -> tuple[SearchProgress, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text, force_terminal=terminal, force_interactive=terminal, width=width, height=height, _environ={}
    )
    return SearchProgress(14, concurrent, console, clock), text, clock


def drawn(progress: SearchProgress, width: int = 120) -> list[str]:
    shown = io.StringIO()
    Console(file=shown, width=width, _environ={}).print(progress.view())
    return shown.getvalue().splitlines()


def figures(
    epoch: int, aucs: dict[str, float], seconds: float = 60.0, images_per_s: float = 12.4
) -> dict[str, EpochFigures]:
    return {
        name: EpochFigures(
            epoch=epoch,
            epochs=14,
            stage=1,
            lr=1e-3,
            loss=0.5,
            images_per_s=images_per_s,
            data_wait=0.0,
            val_auc=auc,
            seconds=seconds,
        )
        for name, auc in aucs.items()
    }


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
    progress, _, clock = made(terminal=False)
    progress.add([(name, "kind") for name in NAMES[:3]])
    progress.begin(1, 10, {name: [name] for name in NAMES[:3]})
    assert progress.seconds_left() is None
    progress.epoch(NAMES[0], figures(1, {NAMES[0]: 0.5}, seconds=10))
    assert progress.seconds_left() == pytest.approx((9 * 10 + 10 * 10 + 10 * 10) / 2)
    progress.epoch(NAMES[1], figures(1, {NAMES[1]: 0.5}, seconds=100))
    assert progress.seconds_left() == 9 * 100, "not before the slowest"
    clock.now = 30
    assert progress.seconds_left() == 9 * 100 - 30, "it goes down between epochs"
    clock.now = 500
    assert progress.seconds_left() == 9 * 100 - 100, "by no more than the epoch that is late"
    for name in NAMES[:3]:
        progress.epoch(name, figures(10, {name: 0.5}))
    assert progress.seconds_left() == 0


def test_the_time_left_of_a_stage_is_not_told_by_the_speed_of_another() -> None:
    progress, _, _ = made(terminal=False)
    progress.add([(NAMES[0], "kind")])
    progress.begin(1, 5, {"pack": NAMES[:1]})
    progress.epoch("pack", figures(5, {NAMES[0]: 0.5}, seconds=10))
    progress.begin(1, 10, {"pack": NAMES[:1]})
    assert progress.seconds_left() == 5 * 10, "the next leg, as the one before"
    progress.epoch("pack", figures(10, {NAMES[0]: 0.5}, seconds=10))
    progress.begin(2, 14, {"alone": NAMES[:1]})
    assert progress.seconds_left() is None
    assert "left" not in progress.headline()
    progress.epoch("alone", figures(11, {NAMES[0]: 0.5}, seconds=300))
    assert progress.seconds_left() == 3 * 300


def test_packs_that_were_cut_anew_or_have_nobody_left_count_no_more() -> None:
    progress, _, _ = made(terminal=False, concurrent=1)
    progress.add([(name, "kind") for name in NAMES[:3]])
    progress.begin(1, 10, {"large": NAMES[:2], "other": NAMES[2:3]})
    progress.epoch("other", figures(1, {NAMES[2]: 0.5}, seconds=10))
    assert progress.seconds_left() == 10 * 10 + 9 * 10
    progress.begin(1, 10, {"large-1": NAMES[:1], "large-2": NAMES[1:2]})
    assert progress.seconds_left() == 2 * 10 * 10 + 9 * 10
    progress.epoch("large-1", figures(1, {NAMES[0]: 0.5}, seconds=10))
    assert "25 images/s" in progress.headline()
    progress.failed(NAMES[0], "loss is nan")
    progress.stopped(NAMES[1:2], 1)
    assert progress.seconds_left() == 9 * 10
    assert "12 images/s" in progress.headline()
    progress.epoch("other", figures(10, {NAMES[2]: 0.5}, seconds=10))
    assert progress.seconds_left() == 0
    assert "images/s" not in progress.headline()


def test_a_pack_goes_on_in_the_middle_after_a_restart() -> None:
    progress, text, _ = made(terminal=False)
    progress.add([(NAMES[0], "kind")])
    progress.begin(1, 10, {"pack": NAMES[:1]})
    progress.epoch("pack", figures(7, {NAMES[0]: 0.5}, seconds=100))
    assert progress.seconds_left() == 3 * 100
    assert "pack epoch 7/10" in text.getvalue()


def test_the_table_is_no_higher_than_the_terminal_and_shows_the_best_that_train() -> None:
    progress, text, _ = made(terminal=True)
    with progress:
        progress.add([(name, "Resnet-Resnet") for name in NAMES])
        progress.begin(1, 10, {"pack": NAMES})
        progress.epoch("pack", figures(3, {name: 0.5 + n / 100 for n, name in enumerate(NAMES)}))
        progress.stopped(NAMES[-1:], 3)
    lines = drawn(progress)
    assert len(lines) == 13, "one less than the terminal"
    assert lines[0] == "stage 1, to epoch 10 of 14: 29 living, 1 stopped, 0 failed"
    assert lines[1] == "best AUC 0.790, 12 images/s, 0 s so far, about 7 min left of these packs"
    assert lines[5].split() == [NAMES[-2], "Resnet-Resnet", "3/14", "0.780", "0.780", "training", "pack"]
    assert NAMES[-3] in lines[6], "best first"
    assert lines[-1] == "and 24 more"
    assert NAMES[-1] not in "".join(lines), "stopped ones stand last"
    assert "\x1b[?25h" in text.getvalue(), "the cursor is back"


def test_what_looks_like_markup_stands_as_it_is_written_and_a_reason_takes_one_line() -> None:
    progress, text, _ = made(terminal=False)
    progress.add([("[red]a[/red]", "[bold]K[/bold]"), *[(name, "kind") for name in NAMES]])
    progress.begin(1, 10, {"[1]": ["[red]a[/red]"]})
    for name in ("[red]a[/red]", *NAMES):
        progress.failed(name, "10.0.0.1:100: gone\nand [/nothing] helps :x:")
    assert "  10.0.0.1:100: gone\nand [/nothing] helps :x:; the search" in text.getvalue()
    lines = drawn(progress, width=200)
    assert len(lines) == 13, "one less than the terminal"
    assert "[red]a[/red]" in lines[5]
    assert "[bold]K[/bold]" in lines[5]
    assert "failed 10.0." in lines[5]
    assert lines[3].split() == ["candidate", "kind", "epoch", "AUC", "best", "state", "pack"], "none is pushed out"


@pytest.mark.parametrize(("width", "kind", "pack"), [(80, False, False), (100, True, False), (120, True, True)])
def test_kind_and_pack_are_left_out_where_there_is_no_room(width: int, kind: bool, pack: bool) -> None:
    progress, _, _ = made(terminal=True, width=width)
    names = ["resnet50-[192-192-768]x2-h", "resnet50-[192-192-768]x3-h"]
    progress.add([(name, "Resnet-Resnet") for name in names])
    progress.begin(1, 10, {"resnet50-stage1-pack2": names})
    progress.epoch("resnet50-stage1-pack2", figures(10, dict.fromkeys(names, 0.75)))
    progress.stopped(names, 10)
    lines = drawn(progress, width)
    assert [line.split()[0] for line in lines[5:7]] == names, "whole, as they differ at their end"
    for line in lines[5:7]:
        assert "10/14   0.750   0.750   stopped at 10" in line
        assert ("Resnet-Resnet" in line, "resnet50-stage1-pack2" in line) == (kind, pack)


def test_a_terminal_that_cannot_go_back_gets_lines() -> None:
    text = io.StringIO()
    progress = SearchProgress(14, 1, Console(file=text, force_terminal=True, _environ={"TERM": "dumb"}))
    with progress:
        progress.add([(NAMES[0], "kind")])
        progress.begin(1, 10, {"pack": NAMES[:1]})
    assert text.getvalue() == "  stage 1, to epoch 10 of 14: 1 candidate(s) in 1 pack(s)\n"


def test_candidates_come_while_the_table_is_drawn() -> None:
    progress, _, _ = made(terminal=True)
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            progress.view()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw)
        try:
            for number in range(3000):
                progress.add([(f"{number}", "kind")])
                progress.begin(1, 10, {f"pack{number}": [f"{number}"]})
                progress.begin(1, 10, {"shared": [f"{number}"]})
        finally:
            over.set()
            sys.setswitchinterval(before)
    assert drawing.exception() is None


def test_an_error_gives_the_terminal_back() -> None:
    progress, text, _ = made(terminal=True)
    with pytest.raises(RuntimeError, match="bang"), progress:
        raise RuntimeError("bang")
    hidden, shown = text.getvalue().rfind("\x1b[?25l"), text.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_the_table_goes_at_the_end_and_stays_after_an_error() -> None:
    for error in (None, RuntimeError("bang")):
        progress, text, _ = made(terminal=True)
        with contextlib.suppress(RuntimeError), progress:
            progress.add([(NAMES[0], "kind")])
            if error:
                raise error
        last = text.getvalue().rpartition("\x1b[?25l")[2]
        assert ("\x1b[2K" in last.rpartition(NAMES[0])[2]) is (error is None), "lines are wiped after the last drawing"


@pytest.mark.parametrize(("speed", "said"), [(0.44, "0.4 images/s"), (9.96, "10.0 images/s"), (12.4, "12 images/s")])
def test_slow_trainings_have_a_speed_too(speed: float, said: str) -> None:
    progress, text, _ = made(terminal=False)
    progress.add([(NAMES[0], "kind")])
    progress.begin(1, 10, {"pack": NAMES[:1]})
    progress.epoch("pack", figures(1, {NAMES[0]: 0.5}, images_per_s=speed))
    assert f", {said}," in text.getvalue()


def test_durations_are_spoken() -> None:
    assert [spoken(seconds) for seconds in (0, 0.42, 42, 99, 100, 5999, 6000, 86400)] == [
        *("0 s", "0.4 s", "42 s", "99 s", "2 min", "100 min", "1.7 h", "24.0 h")
    ]
