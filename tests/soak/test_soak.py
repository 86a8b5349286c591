"""What takes longer than a test may: `make soak`, alone on the machine."""

import os
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray_head import Cluster

pytestmark = pytest.mark.soak


def built(output: str) -> list[str]:
    return re.findall(r"^  build  (\w+)", output, flags=re.MULTILINE)


def test_the_bare_job_makes_everything_it_needs_and_learns(cluster: Cluster) -> None:
    """`ray job submit --working-dir . -- python jobs/tune_top_layers.py`: no recipe, no flag, an empty home."""
    lake = Path(os.environ["HOME"], "mammoflow", "lake")
    done = cluster.submit("jobs/tune_top_layers.py", timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"mammoflow demo: lake {lake}" in done.stdout
    assert built(done.stdout) == ["phantoms", "images", "patches", "trunks", "trunks", "search"]
    client = MlflowClient(tracking_uri=f"sqlite:///{lake}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("top-layers").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    best = [max(point.value for point in client.get_metric_history(r.info.run_id, "val_auc")) for r in children(runs)]
    assert len(best) == 6
    assert max(best) > 0.7, "far from chance"
    again = cluster.submit("jobs/tune_top_layers.py")
    assert again.returncode == 0, again.stdout + again.stderr
    assert built(again.stdout) == []


def children(runs: list) -> list:
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def test_two_workers_train_together(cluster: Cluster, tmp_path: Path) -> None:
    words = ["--compute.workers", "2", "--compute.concurrent-trials", "1", "--seed", "1", "--limit", "40"]
    done = cluster.submit("jobs/tune_top_layers.py", "smoke", "--lake", str(tmp_path), *words, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "41 of 41 images decoded" in done.stdout, "40 films, and the last patient whole"
    assert "Whole-image candidates" in done.stdout
