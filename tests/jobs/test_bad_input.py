"""Bad input to the jobs: exit code, a message with value, limit and remedy, before any work; nothing left behind."""

import importlib.metadata
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from small_dicom import metadata, release, write

from mammoflow import recipes
from mammoflow.cluster import session
from mammoflow.lake import Lake
from mammoflow.pipeline import graph

JOBS = Path(__file__).parents[2] / "jobs"


@dataclass(frozen=True)
class End:
    """How a job ended."""

    code: int
    out: str
    err: str


Run = Callable[..., End]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a job's script in this process as the command line would."""
    handler = signal.getsignal(signal.SIGTERM)

    def job(script: str, *words: object) -> End:
        monkeypatch.setattr(sys, "argv", [f"jobs/{script}.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(JOBS / f"{script}.py"), run_name="__main__")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return End(stop.value.code, said.out, said.err)

    yield job
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a job gets as far as starting Ray."""

    def start(num_cpus: int | None = None) -> None:
        pytest.fail("the job started Ray")

    monkeypatch.setattr(session, "start", start)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


NAMES_NOTHING = {
    "trunks.0.backbone resnet51": "backbone is 'resnet51', but must be one of resnet50,",
    "trunks.0.top-layers 16y1,8x1": "can't read block '16y1'; write blocks `NxK` (VGG) or `[L-M-N]xK` (ResNet)",
    "trunks.0.weights imagenett": "backbone resnet10_narrow has no weights 'imagenett' (known: none)",
    "dataset inbreas": "dataset is 'inbreas', but must be one of",
    "patches.side 4": "patches.side is 4, but must be at least 16 px; cut larger patches",
    "compute.workers 0": "compute.workers is 0, but must be at least 1",
    "source /nonexistent": "the source /nonexistent is not a folder; give --source the folder of the release",
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("flag", NAMES_NOTHING)
def test_what_the_config_names_is_known_before_any_work(flag: str, run: Run, lake: Path) -> None:
    name, value = flag.split(" ")
    end = run("tune_top_layers", "smoke", "--lake", lake, f"--{name}", value)
    assert end.code == 1
    assert end.err.startswith("error: ")
    assert NAMES_NOTHING[flag] in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("no_ray")
def test_an_unknown_recipe_is_named_with_the_known_ones(run: Run, lake: Path) -> None:
    end = run("ingest", "smokee", "--lake", lake)
    assert end.code == 2
    assert f"recipe is 'smokee', but must be one of {', '.join(recipes.ALL)}; nearest: smoke, " in end.err


@pytest.mark.usefixtures("no_ray")
def test_an_unknown_flag_is_named(run: Run, lake: Path) -> None:
    end = run("tune_top_layers", "smoke", "--lake", lake, "--serch.drawn", "3")
    assert end.code == 2
    assert "Unrecognized options: --serch.drawn" in end.err
    assert "--search.drawn" in end.err, "the nearest ones"
    end = run("score", "--images", lake, "--out", lake, "--compute.compile")
    assert end.code == 2
    assert "Unrecognized options: --compute.compile" in end.err
    end = run("tune_top_layers", "smoke", "--lake", lake, "--compute.gpu", "True")
    assert end.code == 2
    assert "switches take no value" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("no_ray")
def test_an_unknown_row_is_named_with_the_known_ones(run: Run, lake: Path) -> None:
    end = run("tune_top_layers", "cbis-s10", "--only", "vgg16-1x1", "--lake", lake)
    assert end.code == 1
    assert "only is 'vgg16-1x1', but must be a row of recipe cbis-s10; choose from resnet50-512-512-2048x1" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("no_ray")
def test_a_lake_of_another_version_is_refused(run: Run, lake: Path) -> None:
    made = graph.locate(replace(recipes.smoke(), dataset="cbis_ddsm"), Lake(str(lake))).images
    Path(made.url).mkdir(parents=True)
    Path(made.file("done.json")).write_text('{"schema": 999, "inputs": [], "finished": "2999-01-01T00:00:00+00:00"}')
    end = run("ingest", "smoke", "--lake", lake)
    assert end.code == 1
    assert f"{made.key} (version 999): made by another version of the lake's layout, this mammoflow reads" in end.err
    assert "use a newer mammoflow, or remove them (" in end.err


@pytest.mark.usefixtures("no_ray")
def test_fine_tuning_from_nothing_is_refused(run: Run, lake: Path) -> None:
    end = run("finetune", "smoke", "--lake", lake)
    assert end.code == 1
    assert (
        "start is None, but fine-tuning needs whole-image classifiers; name whole-image classifiers with --start"
        in end.err
    )
    end = run("train_patch", "inbreast", "--source", "/data", "--lake", lake)
    assert end.code == 1
    assert "start is 'models:/mammoflow@champion', but patch classifiers are trained without it" in end.err


@pytest.mark.usefixtures("no_ray")
def test_a_source_that_is_no_cbis_ddsm(run: Run, lake: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "holiday.jpg").write_bytes(b"sea")
    end = run("ingest", "smoke", "--source", source, "--lake", lake)
    assert end.code == 1
    assert (
        f"{source} holds no known release (recognised: cbis_ddsm by mass_case_description_train_set.csv or" in end.err
    )
    end = run("ingest", "smoke", "--source", source, "--lake", lake, "--dataset", "cbis_ddsm")
    assert end.code == 1
    assert f"{source} holds no CBIS-DDSM: looked for mass_case_description_train_set.csv" in end.err
    text = metadata([("P_00001", "LEFT", "CC", 1, "BENIGN")], "mass", "train")
    write(source / "mass_case_description_train_set.csv", text.replace("pathology", "outcome").encode())
    end = run("ingest", "smoke", "--source", source, "--lake", lake)
    assert end.code == 1
    assert "mass_case_description_train_set.csv has no column pathology; fetch it again, or fix its header" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("no_ray")
def test_a_recipe_without_phantoms_wants_a_source(run: Run, lake: Path) -> None:
    end = run("ingest", "cbis-s10-vgg16", "--lake", lake)
    assert end.code == 1
    assert "give the release's folder with --source" in end.err


@pytest.mark.usefixtures("no_ray")
def test_a_lake_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in ("/proc/mammoflow", tmp_path / "file" / "lake"):
        end = run("ingest", "smoke", "--lake", folder)
        assert end.code == 1
        assert f"can't write {folder}" in end.err
        assert "give another --lake" in end.err
    end = run("ingest", "smoke", "--lake", "/tmp/ray/session_1/runtime_resources/working_dir_files/x/lake")
    assert end.code == 1
    assert "lies in Ray's runtime directory, which Ray deletes; give an absolute --lake" in end.err


@pytest.mark.usefixtures("no_ray")
def test_too_little_disk(run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 2**29, 2**29))
    end = run("ingest", "smoke", "--lake", lake)
    assert end.code == 1
    assert f"0.5 GiB free at {lake}, at least 2.0 are needed; free some, or give --lake" in end.err


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "foo://bar", "/data/mlruns"])
def test_a_tracking_server_that_is_none(
    address: str, run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for script, words in (
        ("ingest", ["smoke", "--lake", lake]),
        ("promote", []),
        ("score", ["--images", tmp_path, "--out", tmp_path / "x.parquet"]),
    ):
        end = run(script, *words)
        assert end.code == 1
        assert address in end.err
        assert "correct or unset MLFLOW_TRACKING_URI" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("no_ray")
def test_without_a_registered_model_nothing_is_promoted_scored_or_reported(
    run: Run, lake: Path, tmp_path: Path
) -> None:
    for script, words in (("promote", []), ("score", ["--images", tmp_path, "--out", tmp_path / "x.parquet"])):
        end = run(script, "--lake", lake, *words)
        assert end.code == 1
        assert f"no model is registered: sqlite:///{lake}/mlflow/mlflow.db is not there" in end.err
        assert "run jobs/select_ensemble.py with this --lake first" in end.err
    end = run("report", "smoke", "--lake", lake)
    assert end.code == 1
    assert "is not complete; run jobs/select_ensemble.py with the same flags first" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("ray_cluster")
def test_more_gpus_or_cpus_than_there_are(run: Run, lake: Path, tmp_path: Path) -> None:
    end = run("train_patch", "smoke", "--lake", lake, "--compute.gpu")
    assert end.code == 1
    assert "1 worker(s) of 1 CPU, 1 GPU are asked for, this cluster has room for 0: its nodes have 4 CPU" in end.err
    end = run("train_patch", "smoke", "--lake", lake, "--compute.workers", "3", "--compute.cpus-per-worker", "5")
    assert end.code == 1
    assert "3 worker(s) of 5 CPU are asked for, this cluster has room for 0: its nodes have 4 CPU, 0 GPU" in end.err
    end = run("tune_top_layers", "smoke", "--lake", lake, "--compute.workers", "9")
    assert "compute.workers is 9, but must be at most 8, image_training.batch; raise it, or use fewer" in end.err
    assert not list(lake.iterdir())


def test_packages_of_another_version_are_named(run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=99", "ruff>=99; extra == 'dev'"])
    end = run("ingest", "smoke", "--lake", lake)
    assert end.code == 1
    assert "numpy is " in end.err
    assert "but must be >=99; reinstall mammoflow with its constraints.txt on every node" in end.err
    assert not lake.exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_release_without_any_mask_is_refused_before_training(run: Run, lake: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    release(source, patients=12)
    for roi in source.glob("*_1"):
        shutil.rmtree(roi)
    end = run("train_patch", "smoke", "--lake", lake, "--source", source)
    assert end.code == 1
    assert "no patch of a lesion is for training: no training film has an outline that can be used" in end.err


@pytest.mark.usefixtures("ray_cluster")
def test_decoding_needs_no_gpu(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release(tmp_path / "source", patients=12)
    words = ["smoke", "--lake", str(lake), "--source", str(tmp_path / "source"), "--compute.gpu"]
    monkeypatch.setattr(sys, "argv", ["jobs/ingest.py", *words])
    handler = signal.getsignal(signal.SIGTERM)
    runpy.run_path(str(JOBS / "ingest.py"), run_name="__main__")
    signal.signal(signal.SIGTERM, handler)
    said = capsys.readouterr().out
    assert "quarantined: 0 image(s) left out, 0 without patches; 0 lesion(s) without an outline" in said
    assert "reasons:" not in said
