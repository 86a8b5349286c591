"""The jobs as a user runs them: on a real Ray cluster with its token, from the command line, killed in the middle."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from ray_head import ROOT, Cluster
from small_dicom import release

from mammoflow.lake import Lake, list_complete
from mammoflow.pipeline.stages import STAGES


@pytest.fixture(scope="module")
def lake(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake filled by `ray job submit ... tune_top_layers.py smoke`."""
    folder = tmp_path_factory.mktemp("lake")
    done = cluster.submit("jobs/tune_top_layers.py", "smoke", "--lake", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Whole-image candidates" in done.stdout
    return folder


@pytest.fixture(scope="module", autouse=True)
def joined(cluster: Cluster) -> Iterator[None]:
    """Jobs join the cluster that runs: it takes seconds to start one for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "auto")
        patch.setenv("RAY_AUTH_MODE", "token")
        yield


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


def following(output: str) -> list[list[str]]:
    """Return the commands that a job names as next, as a shell would split them."""
    return [shlex.split(line) for line in re.findall(r"^next: python (.+)$", output, flags=re.MULTILINE)]


@pytest.fixture(scope="module")
def said(lake: Path) -> dict[str, str]:
    """What each job says, from select_ensemble on, where every command is pasted from the `next:` lines before it."""
    heard: dict[str, str] = {}
    commands = [["jobs/select_ensemble.py", "smoke", "--lake", str(lake)]]
    while commands:
        words = commands.pop(0)
        if "FOLDER" in words:
            heard["next"] = shlex.join(words)
            continue
        done = job(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        heard[Path(words[0]).stem] = done.stdout
        commands += following(done.stdout)
    return heard


def test_each_job_names_the_next_and_builds_its_own_stage_only(said: dict[str, str]) -> None:
    assert list(said) == ["select_ensemble", "evaluate", "promote", "report", "next"]
    assert built(said["select_ensemble"]) == ["ensemble", "registered"]
    assert "reuse  search" in said["select_ensemble"]
    assert "alias candidate" in said["select_ensemble"]
    assert built(said["evaluate"]) == ["evaluation"]
    assert "95% interval" in said["evaluate"]
    assert "models:/mammoflow@champion is version 1" in said["promote"]
    assert Path(said["report"].split("report: ")[1].strip()).is_file()


@pytest.mark.usefixtures("said")
def test_the_demo_on_that_lake_writes_its_report_and_summary(lake: Path) -> None:
    done = job("jobs/demo.py", "smoke", "--lake", str(lake))
    assert done.returncode == 0, done.stdout + done.stderr
    assert built(done.stdout) == ["report"]
    summary = json.loads((lake / "summary.json").read_text())
    assert summary["registered"] == "models:/mammoflow@champion"
    assert summary["version"] == 1
    assert summary["models"][0].keys() == {"name", "kind", "val", "test"}
    assert summary["ensemble"].keys() == {"members", "val", "test", "at_cutoff"}
    assert summary["models"][0]["test"].keys() == summary["ensemble"]["test"].keys(), "one name for one quantity"
    assert set(summary["images"]) == {"train", "val", "test"}
    assert summary["quarantined"] == 0
    (report,) = lake.glob("report/*/report.html")
    assert "phantom" in report.read_text().lower()
    again = job("jobs/demo.py", "smoke", "--lake", str(lake))
    assert built(again.stdout) == []
    site = job("jobs/site.py", "--lake", str(lake), "--cases", "4")
    assert "Leaderboard" in site.stdout
    assert "champion" in (lake / "site" / "index.html").read_text()
    assert len([*lake.glob("site/*/cases/*.jpg")]) == 4


@pytest.mark.usefixtures("said")
def test_each_stage_leaves_the_facts_of_its_kind(lake: Path) -> None:
    complete = {stage: list_complete(Lake(str(lake)), stage.name) for stage in STAGES.values()}
    assert {"images", "trunks", "search", "ensemble"} <= {stage.name for stage, items in complete.items() if items}
    for stage, items in complete.items():
        for item in items:
            assert isinstance(item.facts(stage.facts), stage.facts)
            assert item.record().seconds is not None


@pytest.mark.usefixtures("said")
def test_the_champion_goes_to_other_data_trained_on_and_recalibrated(lake: Path) -> None:
    site = ["--phantoms.layout", "inbreast", "--splits.protocol", "70-30", "--splits.patients", "14"]
    words = ["smoke", "--lake", str(lake), *site, "--splits.val", "0.3", "--ensemble.model-name", "site"]
    refused = job("jobs/finetune.py", *words)
    assert refused.returncode == 1
    assert "name whole-image classifiers with --start" in refused.stderr
    words += ["--start", "models:/mammoflow@champion"]
    done = job("jobs/finetune.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert built(done.stdout) == ["phantoms", "images", "patches", "search"]
    ((_, *command),) = following(done.stdout)
    assert command == words, "the next job goes on with the same flags"
    # Several numbers of patients: what is there is reused, Table 4 and the ensembles on each other's data are new.
    table = job("jobs/finetune.py", *words, "--transfer", "14")
    assert table.returncode == 0, table.stdout + table.stderr
    assert built(table.stdout) == ["images", "external", "ensemble", "evaluation"]
    (made,) = lake.glob("transfer/*/figures.json")
    found = json.loads(made.read_text())
    assert [row["patients"] for row in found["rows"]] == [0, 14]
    assert {(row["model"], row["data"]) for row in found["matrix"]} == {
        (model, data) for model in ("begun from", "trained on") for data in ("this site", "where it began")
    }
    assert "trained on: test A-AUC" in table.stdout
    done = job("jobs/recalibrate.py", *words, "--splits.patients", "None")
    assert done.returncode == 0, done.stdout + done.stderr
    assert built(done.stdout) == ["recalibrated"]
    assert "registered models:/site/1 (alias candidate)" in done.stdout


@pytest.mark.usefixtures("said")
def test_the_whole_paper_at_the_smallest_scale(lake: Path) -> None:
    words = ["jobs/reproduce.py", "--dataset", "phantoms", "--scale", "smoke", "--lake", str(lake)]
    plan = job(*words, "--dry-run")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "device hours" in plan.stdout
    assert not (lake / "reproduction").exists()
    done = job(*words, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = re.findall(r"^report: (/.+)$", done.stdout, flags=re.MULTILINE)
    found = json.loads(Path(path).with_suffix(".json").read_text())
    assert [row["patch_set"] for row in found["reproduction"]["patch_classifiers"]] == ["S1", "S10"]
    assert [row["patients"] for row in found["transfer"]["rows"]] == [0, 14]
    assert found["compared"][0]["name"] == "two-step baseline"
    again = job(*words)
    assert built(again.stdout) == []
    assert re.findall(r"^report: (/.+)$", again.stdout, flags=re.MULTILINE) == [path]
    # Its candidates saw the same images in the same splits as those of the recipe `smoke`: they may join its ensemble.
    pooled = ["--ensemble.pool", "all", "--ensemble.rule", "greedy", "--ensemble.model-name", "pooled"]
    done = job("jobs/demo.py", "smoke", "--lake", str(lake), *pooled)
    assert done.returncode == 0, done.stdout + done.stderr
    assert built(done.stdout)[0] == "ensemble"
    names = [row["name"] for row in json.loads((lake / "summary.json").read_text())["models"]]
    assert len(names) > len({name.rpartition("-")[0] if re.search("-[0-9a-f]{8}$", name) else name for name in names})


def test_real_films_are_scored_by_the_command_that_promote_names(
    said: dict[str, str], real_films: Path, tmp_path: Path
) -> None:
    out, unreadable = tmp_path / "scores", tmp_path / "unreadable"
    filled = {"FOLDER": str(real_films), "SCORES": str(out)}
    done = job(*(filled.get(word, word) for word in shlex.split(said["next"])))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(out / "images.parquet").to_pylist()
    assert len(rows) == 8
    assert all(0 <= row["probability"] <= 1 and row["error"] == "" for row in rows)
    assert {row["model"] for row in rows} == {"mammoflow/1"}
    breasts, patients = (pq.read_table(out / f"{what}.parquet").to_pylist() for what in ("breasts", "patients"))
    assert [(row["patient_id"], row["laterality"], row["views"]) for row in breasts] == [
        (patient, side, ["CC", "MLO"]) for patient in ("P_00173", "P_00820") for side in "LR"
    ]
    assert [row["images"] for row in patients] == [4, 4]
    drawn = {row["heatmap"] for row in rows if row["malignant"]}
    assert {f"heatmaps/{path.name}" for path in out.glob("heatmaps/*.png")} == drawn

    unreadable.mkdir()
    (unreadable / "a.png").write_text("no image")
    filled |= {"FOLDER": str(unreadable), "SCORES": str(tmp_path / "others")}
    done = job(*(filled.get(word, word) for word in shlex.split(said["next"])))
    assert done.returncode == 3
    assert "1 of 1 images could not be scored, at most 2.0% may" in done.stderr
    (row,) = pq.read_table(tmp_path / "others" / "images.parquet").to_pylist()
    assert "neither DICOM" in row["error"]


def test_real_films_beside_their_real_csv_are_ingested(real_release: Path, tmp_path: Path) -> None:
    words = ["--source", str(real_release), "--splits.protocol", "official", "--lake", str(tmp_path)]
    done = job("jobs/ingest.py", "smoke", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"test +│ +8 │ +2 │ +25% │ +2 │ +20 │", done.stdout), done.stdout
    assert "quarantined: 0 image(s) left out, 0 without patches; 10 lesion(s) without an outline" in done.stdout
    (sheet,) = tmp_path.glob("patches/*/contact_sheet.jpg")
    assert f"contact sheet: {sheet}" in done.stdout
    assert f"qc page:       {sheet.with_name('qc.html')}" in done.stdout
    assert "Quarantine" in done.stdout
    assert re.search(r"│ mask +│", done.stdout), done.stdout
    assert "next: python jobs/score.py" in done.stdout
    (shards,) = tmp_path.glob("images/*/shards")
    table = pq.read_table(shards, columns=["image_id", "label"]).to_pylist()
    malignant = {row["image_id"] for row in table if row["label"]}
    assert malignant == {"Mass-Test_P_00820_LEFT_CC", "Mass-Test_P_00820_LEFT_MLO"}
    trained = job("jobs/train_patch.py", "smoke", *words)
    assert trained.returncode == 1
    assert trained.stderr.startswith("error: none of the 8 images is for training")


def test_a_damaged_release_ends_with_3_unless_that_is_allowed(tmp_path: Path) -> None:
    source, lake = tmp_path / "source", tmp_path / "lake"
    release(source, patients=12)
    shutil.rmtree(source / "Mass-Training_P_00000_LEFT_CC")
    shutil.rmtree(source / "Mass-Training_P_00001_LEFT_CC_1")
    cut = next((source / "Mass-Training_P_00002_LEFT_CC").rglob("*.dcm"))
    cut.write_bytes(cut.read_bytes()[:3000])
    words = ["jobs/ingest.py", "smoke", "--source", str(source), "--lake", str(lake)]
    done = job(*words)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "error: 2 of 24 images went to quarantine, at most 2.0% may" in done.stderr
    (reasons,) = lake.glob("images/*/quarantine.parquet")
    assert str(reasons) in done.stderr
    found = {row["image_id"][-13:]: row["reason"] for row in pq.read_table(reasons).to_pylist()}
    for image_id, reason in (
        ("00000_LEFT_CC", "no such file"),
        ("00001_LEFT_CC", "no outline of this lesion"),
        ("00002_LEFT_CC", "bytes of pixels where its header"),
    ):
        assert reason in found[image_id]
    allowed = job(*words, "--max-bad", "0.1")
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    assert built(allowed.stdout) == ["patches"]
    assert "2 image(s) left out, 0 without patches; 1 lesion(s) without an outline" in allowed.stdout


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
        str(25 + signum),
    ]
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits deaf ears
    command = [sys.executable, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=hear) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if " epoch 2/" in line:
                break
        process.send_signal(signum)
        assert process.wait(60) == code, "".join(lines)
    found = statuses(lake, "top-layers")
    assert found.count("RUNNING") == 0
    killed = found.count("KILLED")
    assert killed >= 3
    if signum == signal.SIGINT:  # that the same command goes on is the same for both
        return
    again = job(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    first = re.search(r"stage1 epoch (\d+)/", again.stdout)
    assert first is not None
    assert int(first[1]) > 2, "it goes on from the last epoch"
    assert f"stage1 epoch {25 + signum}/" in again.stdout
    assert statuses(lake, "top-layers").count("KILLED") == killed - 3, "in the same runs"


@pytest.mark.parametrize("wait", ["ray.wait([task])", "ray.get(task)", "list(ray.data.range(1).map(rest).iter_rows())"])
def test_sigterm_ends_a_job_that_waits_for_ray(wait: str) -> None:
    """Ray's waiting calls are C code, which an exception of a signal handler does not pass by itself."""
    code = f"""
import time, ray, ray.data
from mammoflow import cli
from mammoflow.cluster import session
def rest(row):
    time.sleep(60)
def main():
    session.start()
    task = ray.remote(rest).remote(None)
    print("up", flush=True)
    {wait}
cli.run(main)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "up\n"
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(30) == 143, said
    assert "stopped by SIGTERM; run the same command again to continue\n" in said  # Ray's own words may follow
    assert "Traceback" not in said


def test_ray_job_stop_closes_the_runs(cluster: Cluster, lake: Path) -> None:
    words = ["jobs/tune_top_layers.py", "smoke", "--lake", str(lake), "--image-training.stages.0.epochs", "500"]
    started = cluster.job(
        "submit", "--no-wait", "--submission-id", "stopped", "--working-dir", ".", "--", "python", *words
    )
    assert started.returncode == 0, started.stdout + started.stderr
    for _ in range(60):
        said = cluster.job("logs", "stopped").stdout
        if " epoch 2/" in said:
            break
        time.sleep(1)
    else:
        pytest.fail(f"no second epoch: {said[-2000:]}")
    stopped = cluster.job("stop", "stopped")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "was stopped" in cluster.job("status", "stopped").stdout
    said = cluster.job("logs", "stopped").stdout
    assert "stopped by SIGTERM; run the same command again to continue" in said
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :]
    found = statuses(lake, "top-layers")
    assert "RUNNING" not in found
    assert found.count("KILLED") >= 3
