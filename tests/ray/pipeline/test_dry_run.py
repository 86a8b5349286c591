"""A dry run says what a search would cost on this cluster, and writes nothing."""

from dataclasses import replace

import psutil
import pytest
from made_lake import make

from mammoflow import cli, lake, recipes
from mammoflow.config import ComputeConfig
from mammoflow.errors import PreflightError
from mammoflow.pipeline import build, dry_run
from mammoflow.search import capacity
from mammoflow.search.capacity import Worker


def args(*words: str):
    return cli.parse(None, ["smoke", *words, "--compute.cpus-per-worker", "1"])


@pytest.mark.usefixtures("ray_cluster")
def test_a_dry_run_says_what_a_search_would_cost_and_writes_nothing(tmp_path, capsys, monkeypatch) -> None:
    root = tmp_path / "lake"
    tops = ["--trunks.0.top-layers", "16x1,8x1", "8x1,8x1 lr*2", "[8-8-16]x1,[8-8-16]x1"]
    config = args("--dry-run", "--compute.pack", "2", "--lake", str(root), "--search.drawn", "3", *tops)
    assert config.compute.dry_run
    build.preview(config)
    said = capsys.readouterr().out
    for words in ("build  search", "resnet10_narrow-8x1-8x1-lr2", "pack 2", "measured here", "1,000 training images"):
        assert words in said
    assert "beside these, 3 candidate(s) are drawn" in said
    assert "TFLOP/s in training resnet10_narrow" in said
    assert not root.exists()
    monkeypatch.setattr(capacity, "worker", lambda *_: Worker(memory=1000, flops={"resnet10_narrow": 1e9}))
    with pytest.raises(
        PreflightError, match=r"takes about 0.1 GiB in stage 2, a worker here has 0.0; give --compute.c"
    ):
        build.preview(config)


@pytest.mark.usefixtures("ray_cluster")
def test_a_dry_run_on_decoded_images_counts_them(tmp_path, capsys) -> None:
    made = make(tmp_path)
    smoke = recipes.smoke()
    config = replace(made.config, image_training=smoke.image_training, compute=ComputeConfig())

    dry_run.show(config, made.images.record().facts["images"], None)
    said = capsys.readouterr().out
    assert "1,000" not in said
    assert "resnet10_narrow, pack 1  │          3" in said
    assert lake.exists(made.images.file("done.json"))


@pytest.mark.usefixtures("ray_cluster")
def test_a_dry_run_of_classifiers_that_go_on_says_what_each_takes(tmp_path, capsys) -> None:
    made = make(tmp_path)
    start = made.folders["resnet10_narrow-16x1-8x1"]
    config = args("--dry-run", "--lake", str(tmp_path / "other"), "--start", start)
    build.preview(config)
    said = capsys.readouterr().out
    assert "resnet10_narrow-16x1-8x1, pack 1" in said
    assert "take about" in said
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_s_memory_is_its_share_of_the_host_without_what_it_holds() -> None:
    config = recipes.smoke()
    alone = replace(config, compute=ComputeConfig(concurrent_trials=1))
    none, some = ({"train": number, "val": 0} for number in (0, 20_000))
    memory = capacity.worker(alone, none).memory
    assert 0 < memory < psutil.virtual_memory().total
    pixels = 20_000 * 160 * 128 * 2
    assert memory - capacity.worker(alone, some).memory == pytest.approx(pixels, rel=0.2)
    assert capacity.worker(config, none).memory < 0.6 * memory
