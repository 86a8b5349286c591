"""Dashboards and alerts: as their source makes them, of metrics that exist, on a real run; alerts in made-up faults."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_head import ROOT, Cluster, free_port

from mammoflow.cluster import telemetry

FOLDER = ROOT / "dashboards"
sys.path.insert(0, str(FOLDER))
import build  # noqa: E402
import source  # noqa: E402

EMPTY = {"ray_node_gpus_utilization", "ray_node_gram_used"}
"""Of machines with GPUs."""


def queries() -> dict[str, str]:
    """Every panel's and alert's query, by a name."""
    panels = {
        f"{name}: {panel.title}: {legend}": query
        for name, own in source.DASHBOARDS.items()
        for panel in own
        for legend, query in panel.queries.items()
    }
    return panels | {f"alert {each.name}": each.query for each in source.ALERTS}


def test_what_is_checked_in_is_what_the_source_makes() -> None:
    for name, text in build.files().items():
        assert (FOLDER / name).read_text() == text, "run python dashboards/build.py"


def test_every_metric_of_mammoflow_is_shown_and_every_one_shown_exists() -> None:
    shown = {name for query in queries().values() for name in re.findall(r"ray_mammoflow_(\w+)", query)}
    exist = {f"{name}_total" if each.kind == "counter" else name for name, each in telemetry.METRICS.items()}
    assert shown == exist


@pytest.mark.parametrize("name", source.DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    made = json.loads((FOLDER / f"{name}.json").read_text())
    assert made["uid"] == f"mammoflow-{name}"
    for panel in made["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert all(target["expr"] and target["refId"] for target in panel["targets"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in made["panels"]]
    assert len(set(places)) == len(places), "none lies on another"


FAULTS: dict[str, dict[str, str]] = {
    "JobStuck": {"ray_running_jobs": "1x200", 'ray_mammoflow_epoch{run="a"}': "3x200"},
    "QuarantineShare": {
        'ray_mammoflow_quarantined_total{stage="images_decoded"}': "0+5x200",
        "ray_mammoflow_images_decoded_total": "0+100x200",
    },
    "GpusIdle": {'ray_node_gpus_utilization{instance="gpu-1"}': "1x200"},
    "Spilling": {'ray_object_store_memory{Location="SPILLED"}': "2e9x200"},
    "DataWait": {'ray_mammoflow_data_wait_share{run="a"}': "0.4x200"},
}
"""Made-up series, a sample a minute, in which an alert must fire; a stuck job's neighbours go on in HEALTHY."""

HEALTHY = {
    "ray_running_jobs": "1x200",
    'ray_mammoflow_epoch{run="a"}': "0+1x200",
    "ray_mammoflow_images_decoded_total": "0+100x200",
    'ray_mammoflow_quarantined_total{stage="images_decoded"}': "0+1x200",
    'ray_node_gpus_utilization{instance="gpu-1"}': "80x200",
    'ray_object_store_memory{Location="SPILLED"}': "0x200",
    'ray_mammoflow_data_wait_share{run="a"}': "0.02x200",
}


@pytest.mark.system
@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_in_its_fault_and_not_otherwise(alert: str, tmp_path: Path) -> None:
    assert {each.name for each in source.ALERTS} == set(FAULTS)
    about = next(each for each in source.ALERTS if each.name == alert)
    labels = dict(re.findall(r'(run|instance)="([\w-]+)"', next(iter(FAULTS[alert]))))
    labels = labels if "by (" in about.query else {}
    said = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], about.says)
    fired = [{"exp_labels": labels, "exp_annotations": {"summary": said}}]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": "2h", "alertname": alert, "exp_alerts": expected}],
        }
        for series, expected in ((FAULTS[alert], fired), (HEALTHY, []))
    ]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FOLDER / "alerts.yaml")], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def prometheus(folder: Path, targets: Path) -> Iterator[str]:
    """Prometheus on the checked-in configuration, but for where Ray's targets are, and how often they are asked."""
    if not shutil.which("prometheus"):
        pytest.skip("Prometheus is not installed; `make system` installs it")
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    config["rule_files"] = [str(FOLDER / "alerts.yaml")]
    config["scrape_configs"][0]["file_sd_configs"][0] = {"files": [str(targets)], "refresh_interval": "2s"}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def ask(address: str, query: str, since: float) -> dict[str, Any]:
    """Ask Prometheus for a query over the time of the run."""
    words = urllib.parse.urlencode({"query": query, "start": since, "end": time.time(), "step": 5})
    with urllib.request.urlopen(f"{address}/api/v1/query_range?{words}", timeout=20) as answer:
        return dict(json.load(answer))


@pytest.mark.system
def test_a_real_run_fills_every_panel(cluster: Cluster, tmp_path: Path) -> None:
    targets = Path(cluster.env["RAY_TMPDIR"], "ray", "prom_metrics_service_discovery.json")
    since = time.time()
    with prometheus(tmp_path, targets) as address:
        lake = tmp_path / "lake"
        words = [
            "smoke",
            "--lake",
            str(lake),
            "--trunks.0.hard-examples",
            "0.5",
            "--image-training.stages.1.epochs",
            "60",
        ]
        done = cluster.submit("jobs/demo.py", *words, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        films = next(lake.glob("phantoms/*"))
        (films / "broken.png").write_text("no image")
        score = [
            "--lake",
            str(lake),
            "--images",
            str(films),
            "--out",
            str(tmp_path / "scores"),
            "--compute.max-bad",
            "1",
        ]
        done = cluster.submit("jobs/score.py", "--model", "models:/mammoflow@champion", *score)
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(5)
        empty = []
        for name, query in queries().items():
            answer = ask(address, query, since)
            assert answer["status"] == "success", (name, answer)
            if not answer["data"]["result"] and not any(metric in query for metric in EMPTY):
                empty.append(name)
        assert [name for name in empty if not name.startswith("alert ")] == []
