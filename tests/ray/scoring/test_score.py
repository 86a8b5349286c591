"""New files -> scores, through Ray Data and the registered model: every file a row, resumed, by breast and patient."""

import shutil
from pathlib import Path

import cv2
import highdicom as hd
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from made_lake import make
from pydicom.sr.codedict import codes
from registering import register
from small_dicom import breast, dicom

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.data.dicom import reader
from mammoflow.ensemble import evaluation, selection
from mammoflow.errors import ConfigError, SourceError
from mammoflow.registry.registry import Registry
from mammoflow.scoring import score, score_files
from mammoflow.scoring.score import Request, ScoringCompute
from mammoflow.scoring.score_files import Outputs

NAME = "mammo-score"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def registry(made, ray_cluster, tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow/mlflow.db"
    val = evaluation.score_split(made.folders, made.images, "val", made.config.compute)
    frozen = selection.choose(val, made.ranking, EnsembleConfig())
    register(made, uri, frozen, NAME, val)
    return uri


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder as a hospital might send it: nested, mixed formats, damaged files, a report among them."""
    root = tmp_path_factory.mktemp("new")
    about = {"PatientID": "Secret^Patient", "PatientName": "Doenitz^Janessa", "ImageLaterality": "L"}
    about |= {"StudyInstanceUID": "1.2.826.1", "SeriesInstanceUID": "1.2.826.2"}
    whole = dicom(breast(seed=1), ViewPosition="CC", **about)
    (root / "a").mkdir()
    (root / "a" / "one.dcm").write_bytes(whole)
    (root / "a" / "IM0002").write_bytes(dicom(breast(seed=9), ViewPosition="MLO", **about))
    (root / "a" / "README").write_text("no image")
    (root / "a" / "report.pdf").write_bytes(b"%PDF")
    (root / "a" / "DICOMDIR").write_bytes(whole)
    (root / "cut.DCM").write_bytes(whole[:1500])
    (root / "not.png").write_text("not a PNG")
    for index in range(9):
        cv2.imwrite(str(root / f"{index}.png"), breast(seed=2 + index))
    cv2.imwrite(str(root / "dark.png"), (breast(seed=3) // 60).astype(np.uint16))
    return root


def asking(made, registry, out, **settings):
    model = Registry(registry).version(f"models:/{NAME}/1").describe()
    heatmaps = settings.pop("heatmaps", "none")
    outputs = Outputs(model=f"{NAME}/1", heatmaps=heatmaps, dicom=heatmaps != "none")
    own = {"salt": "a", "compute": ScoringCompute(), "actors": 1} | settings
    return Request(model=model, tracking_uri=registry, out=str(out), outputs=outputs, **own)


@pytest.fixture(scope="module")
def scored(made, registry, films, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "scores"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_files, "IMAGES_PER_SHARD", 3)
        return out, score.score(asking(made, registry, out, heatmaps="all"), score_files.find(str(films)))


def test_every_file_becomes_a_row(scored, registry, films):
    out, found = scored
    table = found.images
    assert pq.read_table(out / "images.parquet").equals(table)
    rows = {row["path"].removeprefix(f"{films}/"): row for row in table.to_pylist()}
    assert sorted(rows) == sorted(
        ["a/one.dcm", "a/IM0002", "cut.DCM", "dark.png", "not.png", *(f"{n}.png" for n in range(9))]
    )
    bad = {name for name, row in rows.items() if row["error"]}
    assert bad == {"cut.DCM", "not.png"}
    for name in bad:
        assert rows[name]["probability"] is rows[name]["malignant"] is rows[name]["members"] is None
    good = {name: row for name, row in rows.items() if name not in bad}
    model = Registry(registry).version(f"models:/{NAME}/1").load()
    expected = model.predict([row["path"] for row in good.values()])
    for column in ("score", "probability"):
        np.testing.assert_allclose([row[column] for row in good.values()], expected[column], atol=1e-6)
    assert [row["malignant"] for row in good.values()] == expected["malignant"].tolist()
    for name in model.ensemble.names:
        np.testing.assert_allclose([row["members"][name] for row in good.values()], expected[name], atol=1e-6)
    assert (rows["a/one.dcm"]["laterality"], rows["a/one.dcm"]["view"]) == ("L", "CC")
    assert rows["0.png"]["laterality"] is None
    assert {row["model"] for row in rows.values()} == {f"{NAME}/1"}


def test_views_are_joined_and_nobody_is_named(scored, films):
    out, found = scored
    rows = {Path(row["path"]).name: row for row in found.images.to_pylist()}
    one, two = rows["one.dcm"], rows["IM0002"]
    assert one["patient_id"] == two["patient_id"] != ""
    (breast_row,) = found.breasts.to_pylist()
    assert (breast_row["laterality"], breast_row["views"], breast_row["images"]) == ("L", ["CC", "MLO"], 2)
    assert breast_row["score"] == pytest.approx((one["score"] + two["score"]) / 2)
    assert breast_row["highest"] == max(one["probability"], two["probability"])
    (patient,) = found.patients.to_pylist()
    assert patient["patient_id"] == one["patient_id"]
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"Secret" not in written
    assert b"Doenitz" not in written
    data = (films / "a" / "one.dcm").read_bytes()
    assert reader.patient_key(data, "a") == one["patient_id"]
    assert reader.patient_key(data, "another salt") != one["patient_id"]


def test_heatmaps_show_where_a_score_comes_from(scored, made):
    out, found = scored
    rows = [row for row in found.images.to_pylist() if not row["error"]]
    for row in rows:
        picture = cv2.imread(str(out / row["heatmap"]))
        assert picture is not None
        height, width = made.config.images.height, made.config.images.width
        assert picture.shape[1] / picture.shape[0] > width / height  # two panels
    assert len({row["heatmap"] for row in rows}) == len(rows)


def test_dicom_files_get_reports_that_others_read(scored, films):
    out, found = scored
    rows = {Path(row["path"]).name: row for row in found.images.to_pylist()}
    assert {name for name, row in rows.items() if row["report"]} == {"one.dcm", "IM0002"}
    for name in ("one.dcm", "IM0002"):
        source, report = pydicom.dcmread(films / "a" / name), hd.sr.srread(out / rows[name]["report"])
        assert report.StudyInstanceUID == source.StudyInstanceUID
        assert report.PatientID == rows[name]["patient_id"]
        (group,) = report.content.get_image_measurement_groups()
        (chance,) = group.get_measurements(name=codes.DCM.ProbabilityOfCancer)
        assert chance.value == pytest.approx(100 * rows[name]["probability"], abs=1e-4)
        capture = pydicom.dcmread(out / "dicom" / f"{rows[name]['key']}-sc.dcm")
        picture = cv2.cvtColor(cv2.imread(str(out / rows[name]["heatmap"])), cv2.COLOR_BGR2RGB)
        assert np.array_equal(capture.pixel_array, picture)
    assert len(list((out / "dicom").iterdir())) == 4


def test_a_rerun_does_what_is_missing_and_nothing_twice(made, registry, films, scored, tmp_path):
    """As after a kill: some pieces are there, the tables are not; every file is scored once, to the same bits."""
    done, whole = scored
    out, lines = tmp_path / "out", []
    shutil.copytree(done, out)
    shards = sorted((out / "shards").iterdir())
    assert len(shards) == 5
    kept = {path: path.stat().st_mtime_ns for path in shards[::2]}
    for path in (*shards[1::2], *out.glob("*.parquet")):
        path.unlink()
    (out / "shards" / f"{shards[1].name}.tmp").write_bytes(b"half")
    request = asking(made, registry, out, heatmaps="all")
    again = score.score(request, score_files.find(str(films)), say=lines.append)
    assert lines[0].startswith("  8 of 14 images scored before") or lines[0].startswith("  9 of 14")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again.images.equals(whole.images)
    assert again.breasts.equals(whole.breasts)
    # Now nothing is left: the tables are written as they were.
    before = (out / "images.parquet").read_bytes()
    assert score.score(request, score_files.find(str(films))).images.equals(whole.images)
    assert (out / "images.parquet").read_bytes() == before == (done / "images.parquet").read_bytes()


def test_a_folder_grows_and_files_are_mended(made, registry, films, scored, tmp_path):
    done, whole = scored
    out = tmp_path / "out"
    shutil.copytree(done, out)
    files = [*(str(path) for path in films.glob("[1-8].png")), str(films / "not.png"), str(tmp_path / "gone.dcm")]
    mended = films / "not.png"
    damaged = mended.read_bytes()
    cv2.imwrite(str(mended), breast(seed=77))
    try:
        found = score.score(asking(made, registry, out, heatmaps="all"), score_files.find(files))
    finally:
        mended.write_bytes(damaged)
    rows = {Path(row["path"]).name: row for row in found.images.to_pylist()}
    assert len(rows) == found.images.num_rows == 15  # what was scored before and is not asked for keeps its row
    assert rows["not.png"]["error"] == ""
    assert rows["not.png"]["score"] is not None
    assert "no such file" in rows["gone.dcm"]["error"]
    same = {"0.png", "1.png", "one.dcm"}
    before = {Path(row["path"]).name: row for row in whole.images.to_pylist()}
    assert {name: rows[name] for name in same} == {name: before[name] for name in same}


def test_a_folder_of_scores_belongs_to_one_model_and_one_kind_of_output(made, registry, films, scored):
    out, _ = scored
    with pytest.raises(ConfigError, match=r"holds scores of .*heatmaps all.*not of .*heatmaps none.*another folder"):
        score.score(asking(made, registry, out), score_files.find(str(films)))


def test_images_unlike_the_training_set_are_flagged(scored):
    _, found = scored
    rows = {Path(row["path"]).name: row["warnings"] for row in found.images.to_pylist()}
    assert any(text.startswith("brightest 0.0") and "trained on" in text for text in rows["dark.png"])
    assert not any(text.startswith("brightest") for text in rows["1.png"])


def test_what_can_not_be_scored_is_refused_before_any_work(tmp_path):
    (tmp_path / "empty").mkdir()
    for images, reason in (
        ([], "is empty"),
        (str(tmp_path / "no"), "there is no such file or folder"),
        (str(tmp_path / "empty"), "holds no"),
    ):
        with pytest.raises(SourceError, match=reason):
            score_files.find(images)


def test_files_of_a_folder_are_found_by_ending_and_content(tmp_path, films):
    assert [file.path for file in score_files.find(str(films / "0.png"))] == [str(films / "0.png")]
    cv2.imwrite(str(tmp_path / "film.JPG"), (breast() >> 8).astype("uint8"))
    (tmp_path / "notes.txt").write_text("no image")
    (found,) = score_files.find(str(tmp_path))
    assert found.path == str(tmp_path / "film.JPG")
    assert found.size == Path(found.path).stat().st_size
    assert lake.exists(found.path)
