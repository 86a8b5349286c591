"""A tracking server as deploy/tracking/start.sh starts it, over a PostgreSQL of its own, for tests."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ray_head import ROOT, free_port

PASSWORD = "a-password-of-tests-alone"
ADMIN_PASSWORD = "another-password-of-tests"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL with an empty database, and give its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed; `make system` installs it")
    folder, port = Path(tempfile.mkdtemp(prefix="pg-")), free_port()
    as_user: list[str] = []
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    words = ["--auth=scram-sha-256", "--username=mlflow", f"--pwfile={folder / 'password'}", "--no-sync"]
    subprocess.run([*as_user, found[-1] / "initdb", "-D", folder / "data", *words], check=True, capture_output=True)
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
    told = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*as_user, found[-1] / "postgres", "-D", folder / "data", *told], stdout=log, stderr=log, cwd=folder
        )
        try:
            _make_database(port, folder / "log")
            yield f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{port}/mlflow"
        finally:
            pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGINT)
            server.wait(30)
            shutil.rmtree(folder)


def _make_database(port: int, log: Path) -> None:
    for _ in range(60):
        try:
            session = psycopg2.connect(host="127.0.0.1", port=port, user="mlflow", password=PASSWORD, dbname="postgres")
        except psycopg2.OperationalError:
            time.sleep(0.5)
            continue
        session.autocommit = True
        session.cursor().execute("CREATE DATABASE mlflow")
        session.close()
        return
    pytest.fail(f"PostgreSQL does not start: {log.read_text()[-2000:]}")


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    said: Any


@dataclass(frozen=True)
class TrackingServer:
    """A server that runs, with a user `jobs`."""

    uri: str

    def ask(self, path: str, user: str, password: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Call the REST API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.uri}{path}", data, {"Content-Type": "application/json"})
        if user:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                said = answer.read().decode()
                is_json = "json" in answer.headers.get("Content-Type", "")
                return Answer(answer.status, json.loads(said) if is_json else said)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())

    def env(self, user: str = "jobs") -> dict[str, str]:
        """Return what a job needs in its environment to use it."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }


@contextlib.contextmanager
def tracking_server(database: str, artifacts: str, log: Path, env: Mapping[str, str]) -> Iterator[TrackingServer]:
    """Run deploy/tracking/start.sh; only what it started is stopped."""
    port = free_port()
    settings = {
        "TRACKING_DATABASE": database,
        "TRACKING_ARTIFACTS": artifacts,
        "TRACKING_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "TRACKING_SECRET_KEY": "a-secret-of-tests-alone",
        "TRACKING_PORT": str(port),
        "TRACKING_WORKERS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with log.open("w") as stream:
        server = subprocess.Popen(
            ["sh", ROOT / "deploy" / "tracking" / "start.sh"],
            env={**os.environ, **env, **settings},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        started = TrackingServer(f"http://127.0.0.1:{port}")
        try:
            _wait(started, server, log)
            for user in ("jobs", "guest"):
                body = {"username": user, "password": PASSWORD}
                made = started.ask("/api/2.0/mlflow/users/create", "admin", ADMIN_PASSWORD, body)
                assert made.status == 200, made.said
            yield started
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def _wait(server: TrackingServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(120):
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if server.ask("/health", "", "").status != 503:
                return
        time.sleep(1)
    pytest.fail(f"the tracking server does not start: {log.read_text()[-3000:]}")
