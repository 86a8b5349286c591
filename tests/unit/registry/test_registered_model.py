"""The registered model: packed without pickles, loaded by a stranger, promoted by rule."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import whole_images
from made_lake import make
from registering import members, register

from mammoflow import lake
from mammoflow.config import ImageConfig
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import ConfigError, DecodeError, LakeError, TrackingError
from mammoflow.facts.results import Interval
from mammoflow.models import classifiers, model_files
from mammoflow.registry import promotion, registered_model
from mammoflow.registry.registry import Registry

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
    return Ensemble(
        members=members(made),
        cutoff=0.5,
        val_images=10,
        val_auc=0.8,
        val_by_patient=Interval(low=0.7, high=0.9),
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
    assert register(made, uri, frozen, NAME) == "1"
    assert promotion.promote(Registry(uri), NAME).version == "1"
    return uri


def offline(made, frozen, pixels):
    models = [model_files.from_files(lake.read_folder(made.folders[name])) for name in frozen.names]
    return np.stack([classifiers.flip_averaged(model, torch.from_numpy(pixels))[1] for model in models], axis=1)


@pytest.mark.slow
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


def test_the_card_says_where_it_comes_from_and_what_it_is_for(frozen, registry):
    client = mlflow.MlflowClient(registry, registry)
    card = (Path(client.get_model_version(NAME, "1").source) / "README.md").read_text()
    assert card.startswith(f"# {NAME}\n\n**Trained on synthetic images")
    for name in frozen.names:
        assert f"| {name} |" in card
    for part in ("## Use", "Not a medical device", "AUC (interval by patient)", "| val |", "protocol paper", "Licence"):
        assert part in card
    assert "{" not in card


@pytest.mark.slow
def test_the_server_of_mlflow_answers_with_an_image(made, frozen, films, registry, tmp_path):
    """As `mlflow models serve` runs it: a film goes in over HTTP, the offline scores come back."""
    paths, pixels = films
    score = offline(made, frozen, pixels).mean(axis=1)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--model-uri", f"models:/{NAME}@champion"]
    env = {**os.environ, "MLFLOW_TRACKING_URI": registry, "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server)
        records = [{"image": base64.b64encode(Path(path).read_bytes()).decode()} for path in paths]
        rows = ask(f"{address}/invocations", {"dataframe_records": records})["predictions"]
        np.testing.assert_allclose([row["score"] for row in rows], score, atol=1e-6)
        assert [row["malignant"] for row in rows] == (score >= frozen.cutoff).tolist()
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{address}/invocations", {"dataframe_records": [{"image": base64.b64encode(b"no film").decode()}]})
        assert "neither DICOM" in refused.value.read().decode()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, server):
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.25)
    raise AssertionError(f"{url} did not answer within a minute")


def ask(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


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
    spec = classifiers.PatchSpec(precision="fp32", backbone="timm:resnet10t", classes=tuple(about["classes"]), **kept)
    model = whole_images.whole_image(classifiers.patch_classifier(spec, 0), "8x1,8x1", made.config.images, 0).model
    name = "timm-resnet10t-8x1-8x1"
    lake.write_folder(str(tmp_path / name), model_files.to_files(model))
    one = replace(frozen, members=(replace(frozen.members[0], name=name, backbone="timm:resnet10t"),))
    register(made, registry, one, "mammo-timm", folders={name: str(tmp_path / name)})
    for version, wanted in (("mammo-timm", True), (NAME, False)):
        source = mlflow.MlflowClient(registry, registry).get_model_version(version, "1").source
        assert ("timm==" in (Path(source) / "requirements.txt").read_text()) == wanted
    scores = Registry(registry).version("models:/mammo-timm/1").load().predict([np.zeros((160, 128), np.uint16)])
    assert 0 < scores["probability"][0] < 1


@pytest.mark.slow
def test_arrays_of_any_size_take_the_files_code_path(films, registry, tmp_path):
    _, pixels = films
    model = Registry(registry).version(f"models:/{NAME}/1").load()
    large = cv2.resize(pixels[0], (301, 407), interpolation=cv2.INTER_CUBIC)
    path = str(tmp_path / "large.png")
    cv2.imwrite(path, large)
    from_array, from_file = model.predict([large]), model.predict([path])
    pd.testing.assert_frame_equal(from_array, from_file, check_exact=True)
    assert len(model.predict([])) == 0
    data = Path(path).read_bytes()
    for value in (data, base64.b64encode(data).decode()):
        pd.testing.assert_frame_equal(model.predict(pd.DataFrame({"image": [value]})), from_file, check_exact=True)
    with pytest.raises(ConfigError, match="is no base64"):
        model.predict(pd.DataFrame({"image": ["film.dcm"]}))
    with pytest.raises(DecodeError, match="times 257"):
        model.predict([large.astype(np.uint8)])
    with pytest.raises(ConfigError, match="one must be `path` or `image`"):
        model.predict(pd.DataFrame({"file": [path]}))
    with pytest.raises(ConfigError, match="can't be read"):
        model.predict(path)


def test_describe_needs_no_weights(made, frozen, registry):
    about = Registry(registry).version(f"models:/{NAME}@champion").describe()
    assert (about.name, about.version, about.uri) == (NAME, "1", f"models:/{NAME}/1")
    assert about.ensemble == frozen
    assert about.card.phantoms
    assert about.card.data.images == made.images.fingerprint
    assert "champion" in about.aliases


def test_what_can_not_be_registered_or_found(made, frozen, registry):
    larger = replace(made.config, images=ImageConfig(height=320, width=256))
    with pytest.raises(LakeError, match="choose members from one search"):
        register(replace(made, config=larger), registry, frozen, NAME)
    trunk_as_member = dict.fromkeys(frozen.names, made.trunk.file("best"))
    with pytest.raises(LakeError, match="patch classifier"):
        register(made, registry, frozen, NAME, folders=trunk_as_member)
    for uri in ("models:/absent@champion", f"models:/{NAME}@nobody", f"models:/{NAME}/99"):
        with pytest.raises(TrackingError, match=f"is not registered.*{NAME}"):
            Registry(registry).version(uri).load()
    for uri in ("mammoflow", "models:/mammoflow", "runs:/1/model"):
        with pytest.raises(TrackingError, match="names no registered model"):
            Registry(registry).version(uri).describe()
    with pytest.raises(TrackingError):
        promotion.promote(Registry(registry), "absent")


def test_the_decoders_that_reading_a_film_imports_are_among_the_packages_of_a_model():
    assert {"imagecodecs", "pillow", "pylibjpeg-openjpeg"} <= set(registered_model._PACKAGES)
