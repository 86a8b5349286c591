"""A Ray cluster of this machine as a user starts one, to submit jobs to."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A local Ray cluster that was started as a user starts one."""

    env: dict[str, str]

    def submit(self, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Submit a job from the project's folder and wait for it."""
        return self.job("submit", "--working-dir", ".", "--", "python", *words, timeout=timeout)

    def job(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `ray job ...`."""
        command = [BIN / "ray", "job", *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def ray_head(log: Path) -> Iterator[Cluster]:
    """`ray start --head` with token authentication; only what it started is stopped."""
    home = Path(os.environ["HOME"])
    gcs, dashboard, client, agent = free_port(), free_port(), free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PATH": f"{BIN}:{env['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home)}
    env["RAY_AUTH_MODE"] = "token"
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    ports.append(f"--dashboard-agent-listen-port={agent}")  # the default belongs to another cluster of this machine
    stream = log.open("w")
    head = subprocess.Popen(
        [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1", *ports],
        env=env,
        stdout=stream,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    env["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_until_listening(dashboard, head)
        started = Cluster(env)
        _wait_until_it_takes_jobs(started)
        yield started
    finally:
        own = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        for process in own:  # at once: asked politely, Ray lets a node drain for up to 30 s
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(60)
        stream.close()


def _wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        if process.poll() is not None:
            pytest.fail(f"ray start ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail("the cluster's dashboard does not listen")


def _wait_until_it_takes_jobs(cluster: Cluster) -> None:
    """The dashboard listens some seconds before its agent takes jobs."""
    for _ in range(20):
        tried = cluster.submit("-c", "pass")
        if tried.returncode == 0:
            return
        time.sleep(3)
    pytest.fail(f"the cluster takes no jobs: {tried.stderr[-500:]}")
