"""The jobs as a user runs them: on a real Ray cluster with its token, from the command line, killed in the middle."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A local Ray cluster that was started as a user starts one."""

    env: dict[str, str]

    def submit(self, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Submit a job from the project's folder and wait for it."""
        command = [BIN / "ray", "job", "submit", "--working-dir", ".", "--", "python", *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """`ray start --head` with token authentication; only what it started is stopped."""
    home = Path(os.environ["HOME"])
    gcs, dashboard, client = free_port(), free_port(), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PATH": f"{BIN}:{env['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home)}
    env["RAY_AUTH_MODE"] = "token"
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head = subprocess.Popen(
        [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1", *ports],
        env=env,
        stdout=log,
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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)  # Ray lets a node drain for up to 30 s
        log.close()


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


@pytest.fixture(scope="module")
def lake(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake filled by `ray job submit ... tune_top_layers.py smoke`."""
    folder = tmp_path_factory.mktemp("lake")
    done = cluster.submit("jobs/tune_top_layers.py", "smoke", "--lake", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Whole-image candidates" in done.stdout
    return folder


def job(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def built(output: str) -> list[str]:
    return re.findall(r"^  build  (\w+)", output, flags=re.MULTILINE)


def test_a_filled_lake_is_reused_by_the_next_submission(cluster: Cluster, lake: Path) -> None:
    again = cluster.submit("jobs/tune_top_layers.py", "smoke", "--lake", str(lake))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "reuse  search" in again.stdout
    assert built(again.stdout) == []


def test_the_upload_stays_small(cluster: Cluster, lake: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ignored = [line.strip("/") for line in (ROOT / ".rayignore").read_text().split()]
    sent = [name for name in tracked if not any(name.startswith(f"{folder}/") for folder in ignored)]
    assert sum((ROOT / name).stat().st_size for name in sent) < 2 * 2**20


def test_each_candidate_is_a_finished_child_run(lake: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{lake}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("top-layers")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["kind"] for run in children} == {"Resnet-VGG", "Resnet-Resnet"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        curve = client.get_metric_history(run.info.run_id, "val_auc")
        assert [point.step for point in curve] == [1, 2]


@pytest.fixture(scope="module")
def finished(lake: Path) -> str:
    """What `jobs/demo.py smoke` says on that lake: it builds the rest of the path."""
    done = job("jobs/demo.py", "smoke", "--lake", str(lake))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rest_of_the_path_ends_in_a_registered_ensemble_and_a_report(lake: Path, finished: str) -> None:
    assert built(finished) == ["ensemble", "registered", "evaluation", "report"]
    summary = json.loads((lake / "summary.json").read_text())
    assert summary["registered"] == "models:/mammoflow@champion"
    assert {"name", "val_auc", "test_auc", "test_auc_tta", "ci95"} <= summary["models"][0].keys()
    assert {"members", "test_auc", "ci95", "sensitivity", "specificity"} <= summary["ensemble"].keys()
    assert set(summary["images"]) == {"train", "val", "test"}
    assert summary["quarantined"] == 0
    (report,) = lake.glob("report/*/report.html")
    assert "phantom" in report.read_text().lower()
    again = job("jobs/demo.py", "smoke", "--lake", str(lake))
    assert built(again.stdout) == []


@pytest.mark.usefixtures("finished")
def test_real_films_are_scored_with_the_registered_model(lake: Path, real_films: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    done = job("jobs/score.py", "--images", str(real_films), "--out", str(out), "--lake", str(lake))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 8
    assert all(0 <= row["probability"] <= 1 and row["error"] == "" for row in rows)
    assert {row["model"] for row in rows} == {"mammoflow/1"}


def statuses(folder: Path, experiment: str) -> list[str]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return [run.info.status for run in client.search_runs([found.experiment_id])]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_search_cleanly_and_the_same_command_goes_on(lake: Path, signum: int, code: int) -> None:
    words = [
        "jobs/tune_top_layers.py",
        "smoke",
        "--lake",
        str(lake),
        "--image-training.stages.0.epochs",
        str(200 + signum),
    ]
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if " epoch 2:" in line:
                break
        process.send_signal(signum)
        assert process.wait(60) == code, "".join(lines)
    found = statuses(lake, "top-layers")
    assert found.count("RUNNING") == 0
    assert found.count("KILLED") >= 3
