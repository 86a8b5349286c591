"""Hosts of a cluster as separate machines: a network namespace each, with an address of its own, on one switch.

They share this machine's disk, as hosts share a folder over NFS, and nothing else: one can be killed, or its cable cut.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
GCS, TRACKING = 6379, 5000
PATIENCE = {"RAY_health_check_failure_threshold": "3", "RAY_grpc_client_keepalive_timeout_ms": "30000"}
"""As in cluster.yaml."""
WATCH = """
import json, ray, time
ray.init(log_to_driver=False)
while True:
    alive = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    print(json.dumps([time.time(), sorted(alive)]), flush=True)
    time.sleep(0.5)
"""
OWN_DISK = 'mount -t tmpfs none "$RAY_TMPDIR" && exec "$@"'


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Host:
    """One machine."""

    namespace: str
    address: str
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def command(self, *words: object) -> list[str]:
        """Return a command that runs there."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]

    def start(self, words: list[object], env: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a process there, with all that it says in a file."""
        with log.open("ab") as said:
            process = subprocess.Popen(
                self.command(*words), env=env, cwd=ROOT, stdout=said, stderr=said, start_new_session=True
            )
        self.started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Return what runs there."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True)
        found = []
        for pid in listed.stdout.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(pid))
                found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
        return found

    def works(self, beginning: str) -> bool:
        """Tell whether a worker of Ray is at such work there now."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if (process.cmdline() or [""])[0].startswith(beginning):
                    return True
        return False

    def kill(self) -> None:
        """Kill -9 all that runs there, as when a machine is switched off."""
        while left := self.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
        for process in self.started:
            process.wait(30)


@dataclass
class Hosts:
    """A head that takes no work, and workers of one CPU."""

    folder: Path
    env: dict[str, str]
    name: str
    head: Host
    over: contextlib.ExitStack
    workers: list[Host] = field(default_factory=list)
    count: int = 1

    def add(self) -> Host:
        """Plug in another worker and let it join."""
        self.count += 1
        host = _plug_in(self.name, self.count, self.over)
        self.workers.append(host)
        words: list[object] = ["unshare", "--mount", "sh", "-c", OWN_DISK, "_"]  # Ray's files lie where the head says
        words += [BIN / "ray", "start", "--block", f"--address={self.head.address}:{GCS}", "--num-cpus=1"]
        words += [f"--node-ip-address={host.address}", "--min-worker-port=20000", "--max-worker-port=20999"]
        host.start(words, self.env, self.folder / f"{host.namespace}.log")
        return host

    def lose(self, host: Host, how: str) -> None:
        """Lose a worker: `killed`, or `cut off` and switched off only when all is over."""
        self.workers.remove(host)
        if how == "killed":
            host.kill()
        else:
            ip("-n", f"{self.name}s", "link", "set", f"{host.namespace}v", "down")

    def noted(self) -> list[tuple[float, list[str]]]:
        """Return whom Ray believed to be alive, and when, as the head has noted since its start."""
        lines = (self.folder / "nodes.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("[1")]

    def alive(self) -> list[str]:
        """Return the addresses that Ray believes to be alive now."""
        noted = self.noted()
        return noted[-1][1] if noted else []

    def driver_env(self) -> dict[str, str]:
        """Return the environment of a job on the head."""
        return self.env | {"RAY_ADDRESS": f"{self.head.address}:{GCS}"}

    def launch(self, log: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Start a job on the head."""
        return self.head.start([sys.executable, *words], self.driver_env(), log)


def _plug_in(name: str, number: int, over: contextlib.ExitStack) -> Host:
    """Make a host and join it to the switch; it is killed and gone when all is over."""
    host = Host(f"{name}{number}", f"10.77.0.{number}")
    ip("netns", "add", host.namespace)
    over.callback(ip, "netns", "delete", host.namespace)
    over.callback(host.kill)
    ip("-n", f"{name}s", "link", "add", f"{host.namespace}v", "type", "veth", "peer", "eth0", "netns", host.namespace)
    ip("-n", f"{name}s", "link", "set", f"{host.namespace}v", "master", "br0", "up")
    ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", host.namespace, "link", "set", device, "up")
    return host


@contextlib.contextmanager
def hosts(folder: Path, lake: Path, workers: int) -> Iterator[Hosts]:
    """Run a head, a tracking server there and some workers; all of it is gone afterwards, namespaces too."""
    name = f"mf{uuid.uuid4().hex[:4]}"
    with contextlib.ExitStack() as over:
        try:
            ip("netns", "add", f"{name}s")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a network namespace can't be had here ({error}): it takes root and iproute2")
        over.callback(ip, "netns", "delete", f"{name}s")
        ip("-n", f"{name}s", "link", "add", "br0", "type", "bridge")
        ip("-n", f"{name}s", "link", "set", "br0", "up")
        made = Hosts(folder, _environment(folder, lake), name, _plug_in(name, 1, over), over)
        _start_head(made, lake)
        for _ in range(workers):
            made.add()
        made.head.start([sys.executable, "-c", WATCH], made.driver_env(), folder / "nodes.log")
        _wait(lambda: len(made.alive()) == workers + 1)
        yield made


def _environment(folder: Path, lake: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return env | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MAMMOFLOW_SHARED_LAKE": "1",
        "MAMMOFLOW_LAKE": str(lake),
        "MLFLOW_TRACKING_URI": f"http://10.77.0.1:{TRACKING}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **PATIENCE,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "eth0",  # this machine's name, which all hosts have, means loopback
    }


def _start_head(made: Hosts, lake: Path) -> None:
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=made.env, check=True, capture_output=True)
    (lake / "mlflow").mkdir(parents=True)
    Path(made.env["RAY_TMPDIR"]).mkdir()
    database = f"sqlite:///{lake}/mlflow/mlflow.db"
    serve: list[object] = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
    serve += ["--host", made.head.address, "--port", TRACKING, "--allowed-hosts", "*"]
    serve += ["--artifacts-destination", lake / "mlflow" / "artifacts"]
    made.head.start(serve, made.env, made.folder / "tracking.log")
    words: list[object] = [BIN / "ray", "start", "--head", "--block", "--num-cpus=0", f"--port={GCS}"]
    words += [f"--node-ip-address={made.head.address}", "--dashboard-host=127.0.0.1"]
    words += ["--min-worker-port=20000", "--max-worker-port=20999"]
    made.head.start(words, made.driver_env(), made.folder / "head.log")
    url = f"http://{made.head.address}:{TRACKING}/health"
    ask = f"import urllib.request as u, ray; u.urlopen('{url}'); ray.init(log_to_driver=False)"
    command = made.head.command(sys.executable, "-c", ask)
    _wait(lambda: not subprocess.run(command, env=made.driver_env(), capture_output=True, check=False).returncode)


def _wait(ready: Callable[[], bool], most: float = 120) -> None:
    end = time.monotonic() + most
    while not ready():
        if time.monotonic() > end:
            pytest.fail("the hosts do not come up")
        time.sleep(1)
