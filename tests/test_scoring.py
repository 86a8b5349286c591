"""New files -> scores, through Ray Data and the registered model."""

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from made_lake import make
from registering import register
from small_dicom import breast, dicom

from mammoflow.config import EnsembleConfig
from mammoflow.errors import SourceError, TrackingError
from mammoflow.results import evaluation, registered_model, scoring, selection

NAME = "mammo-score"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def registry(made, ray_cluster, tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow/mlflow.db"
    val = evaluation.score_split(made.folders, made.images, "val", made.config.compute, precision="fp32")
    frozen = selection.choose(val, made.ranking, EnsembleConfig())
    register(made, uri, frozen, NAME, val)
    return uri


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder as a hospital might send it: nested, mixed formats, damaged files, a report among them."""
    root = tmp_path_factory.mktemp("new")
    whole = dicom(
        breast(seed=1), PatientID="Secret^Patient", PatientName="Doe^Jane", ImageLaterality="L", ViewPosition="CC"
    )
    (root / "a").mkdir()
    (root / "a" / "one.dcm").write_bytes(whole)
    (root / "a" / "IM0002").write_bytes(whole)
    (root / "a" / "README").write_text("no image")
    (root / "a" / "report.pdf").write_bytes(b"%PDF")
    (root / "a" / "DICOMDIR").write_bytes(whole)
    (root / "cut.DCM").write_bytes(whole[:1500])
    (root / "not.png").write_text("not a PNG")
    for index in range(9):
        cv2.imwrite(str(root / f"{index}.png"), breast(seed=2 + index))
    return root


def test_every_file_becomes_a_row(registry, films, made, tmp_path):
    out = str(tmp_path / "scores.parquet")
    uri = f"models:/{NAME}@candidate"
    table = scoring.score(uri, registry, str(films), out, made.config.compute)
    assert pq.read_table(out).equals(table)
    rows = {row["path"].removeprefix(f"{films}/"): row for row in table.to_pylist()}
    assert sorted(rows) == sorted(["a/one.dcm", "a/IM0002", "cut.DCM", "not.png", *(f"{n}.png" for n in range(9))])
    bad = {name for name, row in rows.items() if row["error"]}
    assert bad == {"cut.DCM", "not.png"}
    for name in bad:
        assert rows[name]["probability"] is rows[name]["malignant"] is rows[name]["members"] is None
    good = {name: row for name, row in rows.items() if name not in bad}
    model = registered_model.load(registry, uri)
    expected = model.predict([row["path"] for row in good.values()])
    np.testing.assert_allclose([row["probability"] for row in good.values()], expected["probability"], atol=1e-6)
    assert [row["malignant"] for row in good.values()] == expected["malignant"].tolist()
    for name in model.ensemble.names:
        np.testing.assert_allclose([row["members"][name] for row in good.values()], expected[name], atol=1e-6)
    assert (rows["a/one.dcm"]["laterality"], rows["a/one.dcm"]["view"]) == ("L", "CC")
    assert rows["0.png"]["laterality"] is None
    assert {row["model"] for row in rows.values()} == {f"{NAME}/1"}
    assert "Secret" not in str(table.to_pylist())
    assert "Doe" not in str(table.to_pylist())


def test_files_all_bad_still_give_rows(registry, films, made, tmp_path):
    paths = [str(films / "not.png"), str(films / "absent.dcm")]
    table = scoring.score(f"models:/{NAME}/1", registry, paths, str(tmp_path / "bad.parquet"), made.config.compute)
    assert table["path"].to_pylist() == sorted(paths)
    assert all(table["error"].to_pylist())
    assert table["probability"].null_count == 2


def test_what_can_not_be_scored_is_refused_before_any_work(registry, films, made, tmp_path):
    out, compute = str(tmp_path / "none.parquet"), made.config.compute
    (tmp_path / "empty").mkdir()
    for images, reason in (
        ([], "is empty"),
        (str(tmp_path / "no"), "is not there"),
        (str(tmp_path / "empty"), "holds no"),
    ):
        with pytest.raises(SourceError, match=reason):
            scoring.score(f"models:/{NAME}/1", registry, images, out, compute)
    with pytest.raises(TrackingError, match="is not registered"):
        scoring.score(f"models:/{NAME}@champion", registry, str(films), out, compute)
    assert scoring.find_files(str(films / "0.png")) == [str(films / "0.png")]


def test_jpeg_files_of_a_folder_are_taken(tmp_path):
    cv2.imwrite(str(tmp_path / "film.JPG"), (breast() >> 8).astype("uint8"))
    (tmp_path / "notes.txt").write_text("no image")
    assert scoring.find_files(str(tmp_path)) == [str(tmp_path / "film.JPG")]
