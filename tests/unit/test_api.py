"""mammoflow in Python: a model in a notebook, a lake's tables, the results of a run; no Ray."""

import ast
import subprocess
import sys
from dataclasses import asdict

import cv2
import numpy as np
import pandas as pd
import pytest
from made_lake import BACKBONE, make
from registering import members, register

import mammoflow
from mammoflow import lake
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import ConfigError, DecodeError, LakeError, TrackingError
from mammoflow.facts.results import Interval
from mammoflow.facts.stages import EnsembleFacts, RankingRow, SearchFacts
from mammoflow.registry.registry import Registry

NAME = "mammo-api"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def registry(made, tmp_path_factory):
    figures = {
        "val_images": 10,
        "val_auc": 0.8,
        "val_by_patient": Interval(low=0.7, high=0.9),
        "val_sensitivity": 0.8,
        "val_specificity": 0.7,
    }
    frozen = Ensemble(members=members(made), cutoff=0.5, **figures)
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow/mlflow.db"
    register(made, uri, frozen, NAME)
    return uri


@pytest.fixture(scope="module")
def model(registry):
    return mammoflow.load(f"models:/{NAME}@candidate", tracking_uri=registry)


@pytest.fixture
def film(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65535, (300, 200)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "film.png"), pixels)
    return tmp_path / "film.png", pixels


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, typing; before = set(sys.modules); import mammoflow; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["mammoflow"]
    with pytest.raises(AttributeError, match="no attribute 'loads'; its API is __version__, load, open_lake, read_run"):
        mammoflow.loads  # noqa: B018


def test_the_api_needs_no_ray() -> None:
    code = "import sys, mammoflow; mammoflow.load, mammoflow.open_lake, mammoflow.read_run; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_paths_and_arrays_are_scored_alike(model, registry, film) -> None:
    path, pixels = film
    table = model.score([path, str(path), pixels])
    assert [*table.columns[:5]] == ["path", "score", "probability", "malignant", "warnings"]
    assert table["path"].tolist() == [str(path), str(path), None]
    assert table["score"].nunique() == 1
    predicted = Registry(registry).version(model.uri).load().predict([str(path)])
    pd.testing.assert_frame_equal(table.drop(columns=["path", "warnings"])[:1], predicted)
    assert all("trained on" in words for words in table["warnings"][0]), "noise is unlike the training images"
    for one in (path, str(path), pixels, pixels[None]):
        np.testing.assert_allclose(model.score(one)["score"], table["score"][:1], atol=1e-6)
    many = model.score([pixels] * 9)
    np.testing.assert_allclose(many["score"], table["score"][0], atol=1e-6)
    assert len(model.score([])) == 0


def test_a_heatmap_shows_the_image_beside_its_map(model, film) -> None:
    path, pixels = film
    picture = model.heatmap(path)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.shape[1] > picture.shape[0] / 2
    np.testing.assert_array_equal(picture, model.heatmap(pixels))
    assert model.card.phantoms
    assert model.uri == f"models:/{NAME}/1"


def test_what_can_not_be_scored_or_loaded_is_named(model, registry, tmp_path, monkeypatch) -> None:
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(DecodeError, match=r"no\.png"):
        model.score([tmp_path / "no.png"])
    with pytest.raises(ConfigError, match="an image is a int, but must be a path or a uint16 array"):
        model.score([3])
    with pytest.raises(TrackingError, match="is not registered"):
        mammoflow.load("models:/absent@champion", registry)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MAMMOFLOW_LAKE", str(tmp_path))
    with pytest.raises(TrackingError, match=f"no model is registered: sqlite:///{tmp_path}/mlflow/mlflow.db is not"):
        mammoflow.load()


def test_a_lakes_tables_are_read(made) -> None:
    opened = mammoflow.open_lake(made.images.url.split("/images/")[0])
    assert opened.artefacts("images") == [made.images.key]
    images = opened.images()
    assert images.num_rows == 33
    assert {"image_id", "label", "split", "lesions"} <= {*images.column_names}
    assert "pixels" not in images.column_names
    assert opened.images(made.images.key, ["pixels", "label"]).column_names == ["pixels", "label"]
    assert opened.patches().to_pandas()["image_id"].nunique() > 0
    with pytest.raises(LakeError, match=r"asked for images/x, but the lake holds images/made-.*; name one of them"):
        opened.images("images/x")
    with pytest.raises(LakeError, match=r"evaluation of .* the newest artefact, but the lake holds none"):
        opened.scores()
    with pytest.raises(LakeError, match=r"the lake is /nowhere, but there is no such folder"):
        mammoflow.open_lake("/nowhere")


def test_a_run_is_read_as_typed_records(made, tmp_path) -> None:
    row = RankingRow(
        name=f"{BACKBONE}-8x1-8x1", backbone=BACKBONE, top_layers="8x1,8x1", kind="Resnet-VGG", changes="", lr=1e-4,
        weight_decay=0.0, dropout=0.0, val_auc=0.7, stage1_val_auc=None, best_epoch=1, epochs=2, parameters=3,
        gflops=0.1, epoch_seconds=None, memory_gib=None, run_id="r", survived=True,
    )  # fmt: skip
    root = lake.Lake(str(tmp_path))
    search, ensemble = root.artefact("search", "one", 1), root.artefact("ensemble", "one", 2)
    search.finish(SearchFacts(run_id="p", ranking=(row,), failed={}, out_of_time=()))
    run = mammoflow.read_run(tmp_path, "one")
    assert run.search.ranking == (row,)
    assert run.ensemble is run.registered is run.evaluation is None
    chosen = EnsembleFacts(rule="greedy", members=(row.name,), val_auc=0.7)
    ensemble.finish(asdict(chosen), [search])
    assert mammoflow.read_run(tmp_path, "one").ensemble == chosen
    with pytest.raises(
        LakeError, match=r"recipe is 'two', but .* holds finished searches of \['one'\]; run `mammoflow"
    ):
        mammoflow.read_run(tmp_path, "two")
