"""The tracking server as deploy/ sets it up: real PostgreSQL, real passwords, artifacts in a real object store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore, object_store
from ray_head import ROOT
from tracking_server import ADMIN_PASSWORD, PASSWORD, TrackingServer, postgres, tracking_server

EXPERIMENTS = "/api/2.0/mlflow/experiments"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture(scope="module")
def server(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    log = tmp_path_factory.mktemp("tracking") / "log"
    with postgres() as database, tracking_server(database, f"s3://{store.bucket}/mlflow", log, store.env) as started:
        yield started


@pytest.mark.system
def test_nobody_comes_in_without_a_password(server: TrackingServer) -> None:
    for user, password in (("", ""), ("jobs", "wrong"), ("admin", "password1234")):
        assert server.ask(f"{EXPERIMENTS}/get?experiment_id=0", user, password).status == 401
    assert server.ask(f"{EXPERIMENTS}/get?experiment_id=0", "jobs", PASSWORD).status == 200


@pytest.mark.system
def test_a_user_writes_what_is_his_and_reads_the_rest(server: TrackingServer) -> None:
    made = server.ask(f"{EXPERIMENTS}/create", "jobs", PASSWORD, {"name": "of jobs"})
    assert made.status == 200, made.said
    number = made.said["experiment_id"]
    assert server.ask(f"{EXPERIMENTS}/get?experiment_id={number}", "guest", PASSWORD).status == 200
    renamed = {"experiment_id": number, "new_name": "of a guest"}
    assert server.ask(f"{EXPERIMENTS}/update", "guest", PASSWORD, renamed).status == 403
    assert server.ask(f"{EXPERIMENTS}/update", "admin", ADMIN_PASSWORD, renamed).status == 200


def demo(recipe: str, lake: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "jobs/demo.py", recipe, "--lake", lake]
    env = {**os.environ, "MAMMOFLOW_SALT": "salt", **env}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.parametrize(
    "recipe", [pytest.param("smoke", marks=pytest.mark.system), pytest.param("demo", marks=pytest.mark.soak)]
)
def test_the_demo_comes_to_the_same_numbers_as_on_a_laptop(
    recipe: str, store: ObjectStore, server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_lake = f"s3://{store.bucket}/{recipe}"
    here = demo(recipe, str(tmp_path), {})
    assert here.returncode == 0, here.stdout + here.stderr
    there = demo(recipe, there_lake, {**store.env, **server.env()})
    assert there.returncode == 0, there.stdout + there.stderr
    for secret in (PASSWORD, *(store.env[name] for name in store.env if "SECRET" in name)):
        assert secret not in there.stdout + there.stderr

    from mammoflow import lake
    from mammoflow.lake import stores

    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    stores._s3.cache_clear()  # it keeps what the environment said
    local, remote = (figures(lake.read_json(f"{root}/summary.json")) for root in (tmp_path, there_lake))
    assert local == remote
    stores._s3.cache_clear()
    again = demo(recipe, there_lake, {**store.env, **server.env()})
    assert "  build  " not in again.stdout
    env = {**os.environ, **store.env, **server.env()}
    films = str(next(tmp_path.glob("phantoms/*")))
    score = [
        "jobs/score.py",
        "--model",
        "models:/mammoflow@champion",
        "--out",
        f"{there_lake}-scores",
        "--images",
        films,
    ]
    for words in (score, ["jobs/site.py", "--out", f"{there_lake}-site", "--cases", "4"]):
        command = [sys.executable, *words, "--lake", there_lake]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def figures(summary: dict[str, Any]) -> str:
    """Return a summary without the times."""
    return json.dumps({name: value for name, value in summary.items() if name != "seconds"}, sort_keys=True)
