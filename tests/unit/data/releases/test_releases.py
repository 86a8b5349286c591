import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from small_dicom import metadata, release, write

from mammoflow import recipes
from mammoflow.config import SplitConfig
from mammoflow.data import releases
from mammoflow.errors import ConfigError, SourceError
from mammoflow.lake import Lake
from mammoflow.pipeline.graph import locate

MASS_TRAIN = "mass_case_description_train_set.csv"
CALC_TRAIN = "calc_case_description_train_set.csv"


@pytest.fixture(scope="module")
def real(cbis_csvs):
    return releases.read("cbis_ddsm", str(cbis_csvs))


def test_real_csvs_give_the_release_s_own_counts(real):
    assert real.counts == {
        "rows in mass_case_description_train_set.csv": 1318,
        "rows in mass_case_description_test_set.csv": 378,
        "rows in calc_case_description_train_set.csv": 1546,
        "rows in calc_case_description_test_set.csv": 326,
        "patients": 1566,
        "images": 3103,
        "films": 3032,
    }
    assert not real.problems
    densities = real.exams["density"].to_pylist()
    assert set(densities) == {1, 2, 3, 4, None}, "the release's density 0 is unknown, not a class"


def test_real_csvs_have_patients_and_films_in_both_parts(real):
    parts = {"patient_id": defaultdict(set), "film_id": defaultdict(set)}
    for exam in real.exams.to_pylist():
        for key in parts:
            parts[key][exam[key]].add(exam["part"])
    both = {key: sum(len(found) == 2 for found in of.values()) for key, of in parts.items()}
    assert both == {"patient_id": 31, "film_id": 29}


def test_real_films_of_benign_and_malignant_lesions_are_malignant_in_every_series(real):
    films = defaultdict(list)
    for exam in real.exams.to_pylist():
        films[exam["film_id"]].append(exam)
    mixed = [f for f in films.values() if len({lesion["pathology"] for lesion in f[0]["lesions"]}) == 2]
    assert len(mixed) == 33
    assert all(exam["label"] == 1 for film in mixed for exam in film)
    for film in films.values():
        assert all(exam["lesions"] == film[0]["lesions"] for exam in film), "both series carry the union"


def test_the_label_is_the_film_s_not_the_patient_s(real):
    labels = {e["image_id"]: e["label"] for e in real.exams.to_pylist() if e["patient_id"] == "P_00820"}
    assert labels == {
        f"Mass-Test_P_00820_{side}_{v}": int(side == "LEFT") for side in ("LEFT", "RIGHT") for v in ("CC", "MLO")
    }


def test_paths_lead_to_files_and_masks_list_all_that_may_be_one(tmp_path):
    release(tmp_path / "CBIS-DDSM", patients=2)
    (tmp_path / "CBIS-DDSM" / MASS_TRAIN).rename(tmp_path / MASS_TRAIN)
    extra = next(tmp_path.rglob("*_CC_1/1.3/1.4")) / "1-3.dcm"
    write(extra, b"")
    exams = releases.read("cbis_ddsm", str(tmp_path)).exams.to_pylist()
    assert [e["image_id"] for e in exams] == sorted(e["image_id"] for e in exams)
    for exam in exams:
        assert Path(exam["path"]).is_file()
        candidates = exam["lesions"][0]["mask_paths"]
        assert [Path(c).name for c in candidates][:2] == ["000001.dcm", "000000.dcm"], (
            "what the CSV calls mask is first"
        )
        assert all(Path(c).is_file() for c in candidates)
    assert sum(str(extra) in e["lesions"][0]["mask_paths"] for e in exams) == 1


def test_what_a_source_holds_decides_its_artefact_wherever_it_lies(tmp_path):
    release(tmp_path / "a", patients=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def fingerprint(name):
        config = replace(recipes.smoke(), source=str(tmp_path / name))
        return locate(config, Lake(str(tmp_path / "lake"))).images.fingerprint

    def with_manifest(text):
        (tmp_path / "splits.csv").write_text(text)
        config = replace(recipes.smoke(), splits=SplitConfig(manifest=str(tmp_path / "splits.csv")))
        return locate(config, Lake(str(tmp_path / "lake"))).images.fingerprint

    assert with_manifest("patient_id,split\np,train\n") != with_manifest("patient_id,split\np,test\n")
    known = [fingerprint("a")]
    assert fingerprint("b") == known[0]
    film = next((tmp_path / "b").glob("*_LEFT_CC/*/*/*.dcm"))
    whole = film.read_bytes()
    film.unlink()
    known.append(fingerprint("b"))
    film.write_bytes(whole[:-100])
    known.append(fingerprint("b"))
    film.write_bytes(whole)
    next((tmp_path / "b").glob("*_LEFT_CC_1/*/*/*.dcm")).unlink()
    known.append(fingerprint("b"))
    table = tmp_path / "b" / MASS_TRAIN
    table.write_text(table.read_text().replace("MALIGNANT", "BENIGN", 1))
    known.append(fingerprint("b"))
    assert len(set(known)) == 5, "a missing film, a shorter one, a missing mask and another pathology each count"


def test_two_series_of_one_film_share_label_and_lesions(tmp_path):
    write(tmp_path / MASS_TRAIN, metadata([("P_1", "LEFT", "CC", 1, "BENIGN")], "mass", "train").encode())
    write(tmp_path / CALC_TRAIN, metadata([("P_1", "LEFT", "CC", 1, "MALIGNANT")], "calc", "train").encode())
    calc, mass = releases.read("cbis_ddsm", str(tmp_path)).exams.to_pylist()
    assert (calc["image_id"], mass["image_id"]) == ("Calc-Training_P_1_LEFT_CC", "Mass-Training_P_1_LEFT_CC")
    assert calc["label"] == mass["label"] == 1
    assert calc["film_id"] == mass["film_id"]
    kinds = {(lesion["lesion_id"], lesion["kind"], lesion["pathology"]) for lesion in mass["lesions"]}
    assert kinds == {
        ("Mass-Training_P_1_LEFT_CC_1", "mass", "benign"),
        ("Calc-Training_P_1_LEFT_CC_1", "calcification", "malignant"),
    }


def test_a_row_that_can_not_be_understood_sets_its_whole_film_aside(tmp_path):
    rows = [
        ("P_1", "LEFT", "CC", 1, "BENIGN"),
        ("P_1", "LEFT", "CC", 2, "UNPROVEN"),
        ("P_2", "LEFT", "CC", 1, "BENIGN"),
    ]
    write(tmp_path / MASS_TRAIN, metadata(rows, "mass", "train").encode())
    listing = releases.read("cbis_ddsm", str(tmp_path))
    assert listing.exams["patient_id"].to_pylist() == ["P_2"]
    (row,) = listing.problems
    assert row.fatal
    assert row.image_id == "Mass-Training_P_1_LEFT_CC"
    assert "'UNPROVEN'" in row.reason


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b.dcm", "C:\\film.dcm", ""])
def test_a_path_out_of_the_source_is_refused(tmp_path, path):
    text = metadata([("P_1", "LEFT", "CC", 1, "BENIGN")], "mass", "train")
    bad = text.replace("Mass-Training_P_1_LEFT_CC/1.1/1.2/000000.dcm", path)
    write(tmp_path / MASS_TRAIN, bad.encode())
    with pytest.raises(SourceError, match="image file path"):
        releases.read("cbis_ddsm", str(tmp_path))


def test_a_folder_that_is_no_cbis_ddsm_says_what_was_looked_for(tmp_path):
    with pytest.raises(SourceError, match=r"no CBIS-DDSM: looked for mass_case_description_train_set\.csv"):
        releases.read("cbis_ddsm", str(tmp_path))
    with pytest.raises(SourceError, match="not a folder"):
        releases.read("cbis_ddsm", str(tmp_path / "nowhere"))


def test_a_csv_without_a_column_is_named_with_the_column(tmp_path):
    text = metadata([("P_1", "LEFT", "CC", 1, "BENIGN")], "mass", "train").replace("pathology", "diagnosis", 1)
    write(tmp_path / MASS_TRAIN, text.encode())
    with pytest.raises(SourceError, match=r"mass_case_description_train_set\.csv has no column pathology"):
        releases.read("cbis_ddsm", str(tmp_path))


def test_images_whose_csv_is_missing_are_an_error_not_a_silence(tmp_path):
    release(tmp_path, patients=2)
    (tmp_path / "Calc-Test_P_00038_LEFT_CC" / "1.1" / "1.2").mkdir(parents=True)
    write(tmp_path / "Calc-Test_P_00038_LEFT_CC" / "1.1" / "1.2" / "000000.dcm", b"x")
    with pytest.raises(SourceError, match=r"Calc-Test_\* but not calc_case_description_test_set\.csv"):
        releases.read("cbis_ddsm", str(tmp_path))


def test_an_unknown_release_lists_the_known():
    with pytest.raises(ConfigError, match="must be one of auto, cbis_ddsm"):
        releases.read("ddsm", ".")
