"""Hosts that vanish in the middle of ingest, training and search: the job ends as if none had. Needs root."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import killing
import pytest
from hosts import Host, Hosts, hosts
from mlflow import MlflowClient
from searches import SCRIPT, check, ensure

from mammoflow.training.patch_run import STATE_FILE
from mammoflow.training.trunks import EXPERIMENT

WORDS = [SCRIPT, "smoke", "--compute.images-per-shard", "1", "--compute.pack", "1", "--search.survivors", "all"]
EPOCHS = {1: ("30", "12", "4"), 2: ("8", "6", "2")}
"""Of the patch classifier, of stage 1 and of stage 2, by workers of a training run; two take longer for each."""

MOST_S = 60
HISTORY = ("epoch", "loss", "val_loss", "val_accuracy")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path so short that Ray's sockets fit below."""
    made = Path(tempfile.mkdtemp(prefix="mf-"))
    yield made
    shutil.rmtree(made)


def epochs(lake: Path, pattern: str) -> int:
    """Return how many epochs of the trainings that this names are kept so far, of the furthest."""
    return max((int(path.stem) for path in lake.glob(pattern) if path.stem.isdigit()), default=0)


def images_and_patches(folder: Path) -> dict[str, bytes]:
    """Return every file of both stages but the list of exams, in which the lake's own path stands."""
    return {name: data for name, data in killing.contents(folder).items() if not name.endswith("/exams.parquet")}


class Disturbance:
    """A job on hosts, of which one is lost at a time."""

    def __init__(self, cluster: Hosts, lake: Path, words: list[str]) -> None:
        self.cluster, self.lake = cluster, lake
        self.log = cluster.folder / "job.log"
        self.lost: list[tuple[str, str, float]] = []
        self.job = cluster.launch(self.log, *words)

    def at(self, stage: str, reached: Callable[[], bool], work: str, how: str) -> None:
        """Lose a host that is at this work, once so much of a stage is reached, and bring another."""
        victim = self._wait(lambda: reached() and next((h for h in self.cluster.workers if h.works(work)), None))
        self.cluster.lose(victim, how)
        assert not list(self.lake.glob(f"{stage}/*/done.json")), "it was not over"
        self.lost.append((f"{stage}: {how}", victim.address, time.time()))
        self.cluster.add()

    def report(self) -> None:
        """Print how long each loss took to be noticed."""
        for what, address, lost in self.lost:
            gone = [when for when, alive in self.cluster.noted() if when > lost and address not in alive]
            assert not gone or gone[0] - lost < MOST_S, "Ray's own patience is 65 s"
            print(what, f"noticed after {gone[0] - lost:.0f} s" if gone else "the job's end came first", sep=", ")

    def _wait(self, ready: Callable[[], Host | bool | None]) -> Host:
        end = time.monotonic() + 300
        while not (found := ready()):
            assert self.job.poll() is None, f"it ended before a host could be lost: {self.said()}"
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)
        return found

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.job.wait(600) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text()[-6000:]


@pytest.mark.system
@pytest.mark.parametrize(
    ("workers", "how"), [(1, ("killed", "cut off", "killed")), (2, ("cut off", "killed", "cut off"))]
)
def test_lost_hosts_change_nothing(workers: int, how: tuple[str, str, str], folder: Path, ray_cluster: None) -> None:
    trunk, first, second = EPOCHS[workers]
    words = [*WORDS, "--compute.workers", str(workers), "--trunks.0.training.stages.0.epochs", trunk]
    words += ["--image-training.stages.0.epochs", first, "--image-training.stages.1.epochs", second]
    lake = folder / "lake"
    train = "ray::ImplicitFunc" if workers == 1 else "ray::RayTrainWorker"
    with hosts(folder, lake, workers=2) as cluster:
        run = Disturbance(cluster, lake, words)
        run.at("images", lambda: len(list(lake.glob("images/*/shards/*.parquet"))) >= 4, "ray::Map", how[0])
        run.at("trunks", lambda: bool(list(lake.glob(f"trunks/*/work/{STATE_FILE}"))), train, how[1])
        run.at("search", lambda: epochs(lake, "search/*/work/states/*-stage1/*.pt") >= 2, train, how[2])
        run.end()
        run.report()
    calm = folder / "calm"
    expected = ensure("search", words, calm)
    assert images_and_patches(lake) == images_and_patches(calm), "each once"
    (found, wanted) = (next(each.glob("trunks/*/history.json")) for each in (lake, calm))
    curves = [[[row[key] for key in HISTORY] for row in json.loads(path.read_bytes())] for path in (found, wanted)]
    assert curves[0] == curves[1]
    check(lake, ensure("search", words, lake), expected)
    client = MlflowClient(tracking_uri=f"sqlite:///{lake}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (tracked,) = client.search_runs([experiment.experiment_id])
    logged = [point.step for point in client.get_metric_history(tracked.info.run_id, "val_loss")]
    assert sorted(logged) == [row["epoch"] for row in json.loads(found.read_bytes())], "each epoch once in MLflow"
