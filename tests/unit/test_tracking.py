import contextlib
import socket
import time
from pathlib import Path

import pytest

from mammoflow import tracking
from mammoflow.cluster.interrupts import Terminated
from mammoflow.errors import TrackingError
from mammoflow.facts.training import EpochFigures
from mammoflow.lake import Lake
from mammoflow.training import trials


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> tracking.Tracker:
    return tracking.Tracker.open(Lake(str(tmp_path_factory.mktemp("lake"))), "test")


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (Terminated, "KILLED")],
)
def test_runs_end_with_what_ended_them(
    tracker: tracking.Tracker, error: type[BaseException] | None, status: str
) -> None:
    parent = tracker.start("parent", params={}, tags={})
    child = tracker.start("child", parent=parent, params={"lr": 1e-3}, tags={"kind": "Resnet-VGG"})
    expected = contextlib.nullcontext() if error is None else pytest.raises(error)
    with expected, tracker.closing([parent, child]):
        tracker.log(child, {"val_auc": 0.7, "loss": float("nan")}, step=1)
        if error is not None:
            raise error
    run = tracker.client.get_run(child)
    assert run.info.status == tracker.client.get_run(parent).info.status == status
    assert run.data.metrics == {"val_auc": 0.7}
    assert run.data.tags["mlflow.parentRunId"] == parent


def test_artifacts_lie_in_the_lake(tracker: tracking.Tracker) -> None:
    folder = Path(tracker.tracking_uri.removeprefix("sqlite:///")).parent
    assert tracker.client.get_experiment(tracker.experiment_id).artifact_location == str(folder / "artifacts")


def test_a_server_that_is_not_there_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: refused
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        with pytest.raises(TrackingError, match=address):
            tracking.Tracker.open(Lake("/nowhere"), "test")
    assert time.monotonic() - started < 10


def test_a_database_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{held.getsockname()[1]}/mlflow"
        with pytest.raises(TrackingError, match=f"postgresql://{place} can't be used") as caught:
            tracking.check_reachable(f"postgresql://me:secret@{place}")
    assert "secret" not in str(caught.value)


def test_addresses_are_shown_without_user_and_password() -> None:
    assert tracking.public("https://me:secret@host:80/a@b") == "https://host:80/a@b"
    assert tracking.public("sqlite:////lake/mlflow/mlflow.db") == "sqlite:////lake/mlflow/mlflow.db"


def test_runs_that_are_opened_within_the_block_are_closed_too(tracker: tracking.Tracker) -> None:
    runs: dict[str, str] = {}

    def work() -> None:
        with tracker.closing(runs.values()):
            runs["late"] = tracker.start("late", params={}, tags={})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert tracker.client.get_run(runs["late"]).info.status == "KILLED"


def test_a_server_that_refuses_to_close_hides_no_error(
    tracker: tracking.Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="the cause"), tracker.closing(["no such run"]):
        raise ValueError("the cause")
    assert "its MLflow runs stay open" in capsys.readouterr().err


def test_a_run_that_this_server_does_not_know_is_started_anew(tracker: tracking.Tracker, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    run_id = tracker.reopen(str(record), "again", params={}, tags={})
    assert tracker.client.get_run(run_id).info.status == "RUNNING"
    assert tracker.reopen(str(record), "again", params={}, tags={}) == run_id


def test_a_remote_lake_wants_a_server() -> None:
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        tracking.uri(Lake("s3://bucket/lake"))


def test_weights_of_a_run_are_found_by_its_id(tracker: tracking.Tracker) -> None:
    lake = Lake(str(Path(tracker.tracking_uri.removeprefix("sqlite:///")).parents[1]))
    run = tracker.start("one", params={}, tags={tracking.WEIGHTS_TAG: "/lake/best/model.safetensors"})
    bare = tracker.start("two", params={}, tags={})
    assert tracking.weights_of(lake, f"runs:/{run}") == "/lake/best/model.safetensors"
    assert [tracking.weights_of(lake, name) for name in ("imagenet", "a.pth", None)] == ["imagenet", "a.pth", None]
    with pytest.raises(TrackingError, match=f"runs:/{bare} has no weights; give the run of a patch classifier"):
        tracking.weights_of(lake, f"runs:/{bare}")
    with pytest.raises(TrackingError, match="knows no run 'runs:/0123'"):
        tracking.weights_of(lake, "runs:/0123")


def test_epochs_of_which_no_driver_heard_are_logged_afterwards_and_the_others_not_again(tracker: tracking.Tracker):
    run_id = tracker.start("lost", params={}, tags={})
    history = [
        EpochFigures(epoch=epoch, epochs=3, stage=1, lr=1e-3, loss=1 / epoch, images_per_s=9.0, data_wait=0.0)
        for epoch in (1, 2, 3)
    ]
    tracker.log(run_id, {"loss": 0.5}, step=2)
    trials.log_missed(tracker, run_id, history)
    logged = tracker.client.get_metric_history(run_id, "loss")
    assert sorted((point.step, point.value) for point in logged) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
