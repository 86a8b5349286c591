"""Scoring killed at any time, whole or in part: the same command goes on, and the tables are those of a whole run."""

import random
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
from killing import launch
from made_lake import make
from registering import members, register
from small_dicom import breast

from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.facts.results import Interval
from mammoflow.registry import promotion
from mammoflow.registry.registry import Registry

pytestmark = pytest.mark.soak
IMAGES, KILLS = 240, 6


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake whose registry holds a champion."""
    folder = tmp_path_factory.mktemp("kills")
    made = make(folder)
    root = Path(made.search.url.split("/search/")[0])
    figures = {
        "val_auc": 0.8,
        "val_by_patient": Interval(low=0.7, high=0.9),
        "val_sensitivity": 0.8,
        "val_specificity": 0.7,
    }
    frozen = Ensemble(members=members(made), cutoff=0.5, val_images=200, **figures)
    uri = f"sqlite:///{root}/mlflow/mlflow.db"
    register(made, uri, frozen, "mammoflow")
    promotion.promote(Registry(uri), "mammoflow")
    return root


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(IMAGES):
        cv2.imwrite(str(folder / f"{number:03}.png"), breast(height=480, width=320, seed=number))
    (folder / "broken.png").write_text("no image")
    return folder


def score(lake, films, out):
    words = ("--images", str(films), "--out", str(out), "--heatmaps", "all")
    return launch(lake, "jobs/score.py", *words, "--compute.max-bad", "0.5")


def test_killed_at_any_time_it_ends_as_a_whole_run(lake, films, tmp_path):
    score(lake, films, tmp_path / "whole").end()
    rng, out = random.Random(7), tmp_path / "killed"
    for kill in range(KILLS):
        job = score(lake, films, out)
        done = len(list(out.glob("shards/*.parquet")))
        job.wait_until(lambda done=done: len(list(out.glob("shards/*.parquet"))) > done)
        job.wait(rng.random())
        if kill % 3 == 0:
            job.kill_driver()
        elif kill % 3 == 1:
            job.kill_cluster()
        else:
            job.kill_share(0.5, rng)
            job.process.kill()
            job.clear()
    score(lake, films, out).end()
    for table in ("images", "breasts", "patients"):
        whole, after = (pq.read_table(folder / f"{table}.parquet") for folder in (tmp_path / "whole", out))
        assert after.equals(whole), table
    pictures = {path.name: path.read_bytes() for path in (out / "heatmaps").iterdir() if not path.name.startswith(".")}
    assert len(pictures) == IMAGES
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "whole" / "heatmaps").iterdir()}
    rows = sum(pq.read_metadata(path).num_rows for path in out.glob("shards/*.parquet"))
    assert rows == IMAGES + 1, "every file was scored once"
