import contextlib
import socket
import time
from pathlib import Path

import pytest

from mammoflow import tracking
from mammoflow.cli import Terminated
from mammoflow.errors import TrackingError
from mammoflow.lake import Lake


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


def test_a_remote_lake_wants_a_server() -> None:
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        tracking.uri(Lake("s3://bucket/lake"))
