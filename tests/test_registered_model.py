"""The registered model: packed without pickles, loaded by a stranger, promoted by rule."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from made_lake import make

from mammoflow import lake
from mammoflow.config import ImageConfig
from mammoflow.errors import ConfigError, DecodeError, LakeError, TrackingError
from mammoflow.models import classifiers, model_files
from mammoflow.results import registered_model
from mammoflow.results.ensemble import Ensemble, Member

NAME = "mammo-test"

STRANGER = """
import json, sys
import cv2, mlflow, numpy, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
paths = sys.argv[2:]
arrays = numpy.stack([cv2.imread(path, cv2.IMREAD_UNCHANGED) for path in paths])
import mammoflow
print(json.dumps({
    "table": model.predict(pandas.DataFrame({"path": paths})).to_dict("list"),
    "list": model.predict(paths).to_dict("list"),
    "arrays": model.predict(arrays).to_dict("list"),
    "code": mammoflow.__file__,
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("registered"))


@pytest.fixture(scope="module")
def frozen(made):
    rows = [row for row in made.ranking if row["survived"]]
    members = tuple(Member(**{key: row[key] for key in Member.__slots__}) for row in rows)
    return Ensemble(
        members=members,
        cutoff=0.5,
        val_images=10,
        val_auc=0.8,
        val_ci95=(0.7, 0.9),
        val_sensitivity=0.8,
        val_specificity=0.7,
    )


@pytest.fixture(scope="module")
def films(made, tmp_path_factory):
    """Validation films as 16-bit PNG, exactly the pixels of the lake."""
    folder = tmp_path_factory.mktemp("films")
    table = lake.read_table(made.images.file("shards", "val-00000000000c.parquet"), ["image_id", "pixels"])
    pixels = np.array(table["pixels"].combine_chunks().to_numpy_ndarray())
    paths = [str(folder / f"{name}.png") for name in table["image_id"].to_pylist()]
    for path, film in zip(paths, pixels, strict=True):
        cv2.imwrite(path, film)
    return paths, pixels


@pytest.fixture(scope="module")
def registry(made, frozen, tmp_path_factory):
    """Tracking URI of a registry whose version 1 is the champion."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow/mlflow.db"
    images = made.config.images
    assert (
        registered_model.register(uri, frozen, made.folders, {"phantoms": True}, NAME, images, precision="fp32") == "1"
    )
    assert registered_model.promote(uri, NAME) == "1"
    return uri


def offline(made, frozen, pixels):
    models = [model_files.from_files(lake.read_folder(made.folders[name])) for name in frozen.names]
    return np.stack([classifiers.flip_averaged(model, torch.from_numpy(pixels))[1] for model in models], axis=1)


def test_a_stranger_gets_the_offline_scores(made, frozen, films, registry, tmp_path):
    paths, pixels = films
    expected = offline(made, frozen, pixels)
    env = {**os.environ, "MLFLOW_TRACKING_URI": registry, "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", STRANGER, f"models:/{NAME}@champion", *paths]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    for way in ("table", "list", "arrays"):
        got = seen[way]
        np.testing.assert_allclose(got["probability"], expected.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(np.stack([got[name] for name in frozen.names], 1), expected, atol=1e-6)
        assert got["malignant"] == (expected.mean(axis=1) >= frozen.cutoff).tolist()
    package = Path(registered_model.__file__).parents[1]
    assert not Path(seen["code"]).is_relative_to(package)  # the packed code ran, not this checkout's
    assert not {"ray", "mammoflow.training", "mammoflow.pipeline"} & set(seen["modules"])


def test_the_package_holds_code_and_data_but_no_pickle(frozen, registry):
    client = mlflow.MlflowClient(registry, registry)
    source = Path(client.get_model_version(NAME, "1").source)
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {f"data/ensemble/members/{name}/model.safetensors" for name in frozen.names} <= files
    assert "code/mammoflow/models/classifiers.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]
    requirements = (source / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "ray" not in requirements
    run = client.get_run(client.get_model_version(NAME, "1").run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val_auc"] == frozen.val_auc


def test_a_member_on_a_net_of_timm_asks_for_timm(made, frozen, registry, tmp_path):
    pytest.importorskip("timm", reason="the package timm is not installed")
    about = json.loads(lake.read_bytes(made.folders[frozen.names[0]] + "/model.json"))
    kept = {field: about[field] for field in ("mean_grey", "side", "weights")}
    spec = classifiers.PatchSpec(backbone="timm:resnet10t", classes=tuple(about["classes"]), **kept)
    model = classifiers.whole_image(classifiers.patch_classifier(spec, 0), "8x1,8x1", made.config.images, 0).model
    name = "timm-resnet10t-8x1-8x1"
    lake.write_folder(str(tmp_path / name), model_files.to_files(model))
    one = replace(frozen, members=(replace(frozen.members[0], name=name, backbone="timm:resnet10t"),))
    images = made.config.images
    registered_model.register(registry, one, {name: str(tmp_path / name)}, {}, "mammo-timm", images, precision="fp32")
    for version, wanted in (("mammo-timm", True), (NAME, False)):
        source = mlflow.MlflowClient(registry, registry).get_model_version(version, "1").source
        assert ("timm==" in (Path(source) / "requirements.txt").read_text()) == wanted
    scores = registered_model.load(registry, "models:/mammo-timm/1").predict([np.zeros((160, 128), np.uint16)])
    assert 0 < scores["probability"][0] < 1


def test_arrays_of_any_size_take_the_files_code_path(films, registry, tmp_path):
    _, pixels = films
    model = registered_model.load(registry, f"models:/{NAME}/1")
    large = cv2.resize(pixels[0], (301, 407), interpolation=cv2.INTER_CUBIC)
    path = str(tmp_path / "large.png")
    cv2.imwrite(path, large)
    from_array, from_file = model.predict([large]), model.predict([path])
    pd.testing.assert_frame_equal(from_array, from_file, check_exact=True)
    assert len(model.predict([])) == 0
    with pytest.raises(DecodeError, match="times 257"):
        model.predict([large.astype(np.uint8)])
    with pytest.raises(ConfigError, match="none is `path`"):
        model.predict(pd.DataFrame({"file": [path]}))
    with pytest.raises(ConfigError, match="can't be read"):
        model.predict(path)


def test_promotion_takes_the_first_and_then_only_what_is_not_lower(made, frozen, registry):
    images = made.config.images
    for val_auc, version in ((0.79, "2"), (0.81, "3")):
        other = replace(frozen, val_auc=val_auc)
        assert registered_model.register(registry, other, made.folders, {}, NAME, images, precision="fp32") == version
    with pytest.raises(TrackingError, match=r"0\.7900, the champion, version 1, 0\.8000"):
        registered_model.promote(registry, NAME, "2")
    assert registered_model.describe(registry, f"models:/{NAME}@champion").version == "1"
    assert registered_model.promote(registry, NAME) == "3"  # the candidate
    assert registered_model.promote(registry, NAME, "1", force=True) == "1"


def test_describe_needs_no_weights(frozen, registry):
    about = registered_model.describe(registry, f"models:/{NAME}@champion")
    assert (about.name, about.version, about.uri) == (NAME, "1", f"models:/{NAME}/1")
    assert about.ensemble == frozen
    assert about.card == {"phantoms": True}
    assert "champion" in about.aliases


def test_what_can_not_be_registered_or_found(made, frozen, registry):
    with pytest.raises(LakeError, match="choose members from one search"):
        registered_model.register(
            registry, frozen, made.folders, {}, NAME, ImageConfig(height=320, width=256), precision="fp32"
        )
    trunk_as_member = dict.fromkeys(frozen.names, made.trunk.file("best"))
    with pytest.raises(LakeError, match="patch classifier"):
        registered_model.register(registry, frozen, trunk_as_member, {}, NAME, made.config.images, precision="fp32")
    for uri in ("models:/absent@champion", f"models:/{NAME}@nobody", f"models:/{NAME}/99"):
        with pytest.raises(TrackingError, match=f"is not registered.*{NAME}"):
            registered_model.load(registry, uri)
    for uri in ("mammoflow", "models:/mammoflow", "runs:/1/model"):
        with pytest.raises(TrackingError, match="names no registered model"):
            registered_model.describe(registry, uri)
    with pytest.raises(TrackingError):
        registered_model.promote(registry, "absent")


def test_the_decoders_that_reading_a_film_imports_are_among_the_packages_of_a_model():
    assert {"imagecodecs", "pillow", "pylibjpeg-openjpeg"} <= set(registered_model._PACKAGES)
