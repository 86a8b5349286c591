"""Ingest killed with -9, in part and whole, and on a full disk: the same command gives the undisturbed lake."""

import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import killing
import pytest
from drawn import drawn_release
from killing import Job
from small_dicom import write

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, ImageConfig, PhantomConfig
from mammoflow.data import ingest
from mammoflow.errors import LakeError
from mammoflow.lake import locks


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 24 women, large and compressed enough that its ingest takes a few seconds."""
    root = tmp_path_factory.mktemp("source")
    files, tables = drawn_release(PhantomConfig(patients=24, height=1024, width=800, compressed=1.0), seed=3)
    for name, data in (files | tables).items():
        write(root / name, data)
    return root


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The lake that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    killing.start(source, folder).end()
    found = killing.contents(folder)
    assert sum(name.endswith(".parquet") and "/shards/" in name for name in found) > 20
    return found


def iter_until(run: Job, mark: str) -> Iterator[str]:
    """Yield what a run says, up to the line that holds `mark`."""
    for line in run.process.stdout:
        yield line
        if mark in line:
            return


def kept(run: Job) -> dict[Path, int]:
    """The shards that stand in the lake, and when they were written."""
    return {path: path.stat().st_mtime_ns for stage in ("images", "patches") for path in run.shards(stage)}


def test_a_killed_worker_costs_its_shard_and_nothing_else(source, undisturbed, tmp_path):
    run = killing.start(source, tmp_path)
    run.wait_until(lambda: len(run.shards("images")) >= 3 and bool(run.workers()))
    before = kept(run)
    run.workers()[0].kill()
    run.end()
    assert killing.contents(tmp_path) == undisturbed
    assert before.items() <= kept(run).items(), "what stood there was not written again"


@pytest.mark.parametrize(("stage", "how"), [("images", "kill_driver"), ("patches", "kill_cluster")])
def test_a_killed_driver_or_cluster_goes_on_from_its_shards(source, undisturbed, tmp_path, stage, how):
    run = killing.start(source, tmp_path)
    run.wait_until(lambda: len(run.shards(stage)) >= 3)
    getattr(run, how)()
    before = kept(run)
    assert not list(tmp_path.glob(f"{stage}/*/done.json"))
    again = killing.start(source, tmp_path)
    said = again.end()
    assert killing.contents(tmp_path) == undisturbed
    assert before.items() <= kept(again).items(), "what stood there was not written again"
    assert f"its lock is taken over from ingest.py (process {run.process.pid} on " in said
    assert " before\n" in said


@pytest.mark.soak
def test_a_lake_killed_again_and_again_at_random_is_the_undisturbed_one(source, undisturbed, tmp_path):
    rng = random.Random(0)
    kills = 0
    for _ in range(12):
        run = killing.start(source, tmp_path)
        try:
            run.process.wait(rng.uniform(5, 16))
        except subprocess.TimeoutExpired:
            kills += 1
            rng.choice([run.kill_driver, run.kill_cluster])()
        else:
            assert run.process.returncode == 0, run.process.stdout.read()
            for stage in ("images", "patches"):  # whole: what it built is undone, to be killed again
                for done in tmp_path.glob(f"{stage}/*/done.json"):
                    done.unlink()
                for shard in rng.sample(run.shards(stage), len(run.shards(stage)) // 2):
                    shard.unlink()
    killing.start(source, tmp_path).end()
    assert kills >= 4
    assert killing.contents(tmp_path) == undisturbed


def test_of_two_jobs_on_one_lake_the_second_waits_and_does_nothing_twice(source, undisturbed, tmp_path):
    images = next(iter(undisturbed)).rpartition("/")[0]
    with locks.hold(str(tmp_path / images), print):
        jobs = [killing.start(source, tmp_path) for _ in range(2)]
        said = ["".join(iter_until(job, "waiting for")) for job in jobs]
    said = [before + job.end() for before, job in zip(said, jobs, strict=True)]
    assert killing.contents(tmp_path) == undisturbed
    assert all(f"(process {os.getpid()} on " in each for each in said)
    assert sum("images: done in" in each for each in said) == 1
    assert sum("images: built by another job meanwhile" in each for each in said) == 1


def test_a_full_disk_is_an_error_that_says_so_and_with_room_it_goes_on(source, tmp_path, ray_cluster):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.decode().strip()}")
    size, compute = ImageConfig(height=576, width=448), ComputeConfig(images_per_shard=4)
    config = replace(recipes.smoke(), images=size, compute=compute)
    small, large = lake.Lake(str(disk)).artefact("images", "x"), lake.Lake(str(tmp_path)).artefact("images", "x")
    try:
        with pytest.raises(LakeError, match=r"No space left.*check permissions and free space"):
            ingest.decode_images(config, str(source), small, lambda _: None)
        shards = list(Path(small.file("shards")).iterdir())
        assert shards, "some fitted"
        assert not [path for path in shards if path.name.startswith(".")], "no half file is left"
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        summary = ingest.decode_images(config, str(source), small, lambda _: None)
        assert summary == ingest.decode_images(config, str(source), large, lambda _: None)
        for path in Path(large.url).rglob("*.*"):
            assert (Path(small.url) / path.relative_to(large.url)).read_bytes() == path.read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)
