"""Locks of artefacts: who holds, who waits, who is dead. Holders are real processes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import locks

HOLD = """
import sys, time
from mammoflow.lake import locks
with locks.hold(sys.argv[1], print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(folder: Path, lines: list[str]) -> float:
    """Hold and release the lock; returns how long that took."""
    started = time.monotonic()
    with locks.hold(str(folder), lines.append):
        assert locks.holder(str(folder)).pid == os.getpid()
    return time.monotonic() - started


def test_a_second_job_waits_for_the_first_and_says_for_whom(tmp_path):
    lines: list[str] = []
    with other_process(tmp_path) as first:
        release = threading.Timer(1.5, first.stdin.close)
        release.start()
        assert take(tmp_path, lines) > 1.4
        assert first.wait(10) == 0
    (line,) = lines
    assert f"waiting for -c (process {first.pid} on " in line
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    lines: list[str] = []
    with other_process(tmp_path) as first:
        first.kill()
        first.wait(10)
        assert (tmp_path / locks.FILE).exists()
        assert take(tmp_path, lines) < 5
    (line,) = lines
    assert f"taken over from -c (process {first.pid} on " in line


def test_a_zombie_and_a_pid_given_to_a_later_process_are_dead(tmp_path):
    with other_process(tmp_path) as first:
        first.send_signal(9)
        time.sleep(0.3)  # nobody has waited for it yet
        assert take(tmp_path, []) < 5
    lake.write_json(str(tmp_path / locks.FILE), {**asdict(locks._myself()), "born": 1.0})
    assert take(tmp_path, []) < 5


def test_a_holder_elsewhere_is_dead_once_it_gives_no_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE", 3.0)
    elsewhere = {**asdict(locks._myself()), "place": "another machine", "host": "node-7", "token": "t"}
    url = str(tmp_path / locks.FILE)
    lake.write_json(url, elsewhere)
    beats = threading.Thread(
        target=lambda: [(time.sleep(1), lake.write_json(url, {**elsewhere, "beat": n})) for n in range(1, 4)]
    )
    beats.start()
    lines: list[str] = []
    assert take(tmp_path, lines) > 3 + 3 - 1, "three beats a second apart, then silence"
    beats.join()
    assert ["waiting" in lines[0], "taken over from" in lines[-1], "node-7" in lines[-1]] == [True] * 3


def test_a_holder_beats_and_of_many_at_once_only_one_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.2)
    inside, most, seen = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        with locks.hold(str(tmp_path), lambda _: None):
            inside += 1
            most = max(most, inside)
            time.sleep(0.7)
            seen.append(locks.holder(str(tmp_path)).beat)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert min(seen) >= 1


def test_a_lock_that_is_none_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / locks.FILE).write_text("{}")
    with pytest.raises(LakeError, match=r"is not a mammoflow lock file .* remove it if no job is running"):
        take(tmp_path, [])
