"""A job as a command that can be killed whole or in part, and what an ingest leaves in the lake."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray_head import ROOT

MARK = "MAMMOFLOW_TEST_RUN"
TIMES = ("seconds", "finished")


@dataclass
class Job:
    """A script of `jobs/` with a private cluster; all its processes carry a mark."""

    process: subprocess.Popen[str]
    mark: str
    lake: Path

    def marked(self) -> list[psutil.Process]:
        """Every process of this run that lives, its cluster's included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """The processes that are doing a shard now."""
        return self._called("ray::Map")

    def trials(self) -> list[psutil.Process]:
        """The processes that train, or wait for a job to train."""
        return self._called("ray::ImplicitFunc")

    def _called(self, beginning: str) -> list[psutil.Process]:
        found = []
        for process in self.marked():
            with suppress(psutil.NoSuchProcess):
                found += [process] if (process.cmdline() or [""])[0].startswith(beginning) else []
        return found

    def wait_until(self, ready: Callable[[], bool], timeout: float = 120) -> None:
        """Look every few milliseconds; the run must not end before."""
        end = time.monotonic() + timeout
        while not ready():
            assert self.process.poll() is None, f"it ended before it could be killed: {self.process.stdout.read()}"
            assert time.monotonic() < end
            time.sleep(0.005)

    def shards(self, stage: str) -> list[Path]:
        """The shards of a stage that stand in the lake whole."""
        return [path for path in self.lake.glob(f"{stage}/*/shards/*.parquet") if not path.name.startswith(".")]

    def kill_cluster(self) -> None:
        """Kill -9 every process of the run, the youngest last: none may start another."""
        for process in sorted(self.marked(), key=lambda each: each.create_time()):
            process.kill()
        self.process.wait(30)

    def kill_share(self, share: float, rng: random.Random) -> None:
        """Kill -9 so large a share of its processes, whichever they are."""
        living = self.marked()
        for process in rng.sample(living, math.ceil(share * len(living))):
            process.kill()

    def kill_driver(self) -> None:
        """Kill -9 the driver alone, and wait until its cluster has followed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.clear()

    def clear(self) -> None:
        """Wait until the cluster has followed its driver."""
        end = time.monotonic() + 60
        while self.marked() and time.monotonic() < end:
            time.sleep(0.2)
        for left in self.marked():
            left.kill()

    def wait(self, seconds: float) -> int | None:
        """Return how it ended, None if it has not after so long."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> str:
        """Wait for its end, which must be a good one, and return what it said."""
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, out
        return out


def start(source: Path, lake: Path, *words: str) -> Job:
    """Start an ingest of `source` into `lake`."""
    size = ["--images.height", "576", "--images.width", "448", "--compute.images-per-shard", "4"]
    return launch(lake, "jobs/ingest.py", "smoke", "--source", str(source), *words, *size)


def launch(lake: Path, *words: str) -> Job:
    """Start a job on `lake`: its script, its recipe, its flags."""
    mark = uuid.uuid4().hex
    command = [sys.executable, *words, "--lake", str(lake)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {MARK: mark},
    )
    return Job(process, mark, lake)


def contents(lake: Path) -> dict[str, bytes]:
    """Every file of the stages images and patches but the page, which is dated; of the summaries, all but the times."""
    found = {}
    for stage in ("images", "patches"):
        for path in sorted((lake / stage).rglob("*")):
            if path.is_file() and path.suffix != ".html":
                data = path.read_bytes()
                if path.name == "done.json":
                    data = json.dumps({k: v for k, v in json.loads(data).items() if k not in TIMES}).encode()
                found[str(path.relative_to(lake))] = data
    return found
