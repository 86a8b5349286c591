"""Patients of releases without keys of their own: salted hashes of DICOM's, and no identity in the lake."""

from pathlib import Path

import pytest
from small_dicom import breast, dicom, write

from mammoflow import lake
from mammoflow.data import releases
from mammoflow.errors import SourceError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four images of two patients, by their hospital's ids; one file names nobody, one is not DICOM."""
    rows = ["path,patient_id,laterality,view,label"]
    for name, tags in {
        "a1.dcm": {"PatientID": "MRN-4711", "IssuerOfPatientID": "St Elsewhere"},
        "a2.dcm": {"PatientID": "MRN-4711", "IssuerOfPatientID": "St Elsewhere"},
        "b.dcm": {"PatientID": "MRN-4711", "IssuerOfPatientID": "Another"},
        "nobody.dcm": {"PatientName": "Doe^Jane"},
    }.items():
        write(tmp_path / "own" / name, dicom(breast(), **tags))
        rows.append(f"{name},,L,CC,0")
    write(tmp_path / "own" / "film.png", b"\x89PNG")
    rows += ["film.png,,L,CC,0", "own.png,W7,R,CC,1"]
    write(tmp_path / "own" / "images.csv", "\n".join(rows).encode())
    return tmp_path / "own"


def test_a_patient_without_a_key_is_a_salted_hash_of_the_file_s(source):
    listing = releases.read("csv_folder", str(source), lambda: "pepper")
    patients = dict(zip(*(listing.exams[name].to_pylist() for name in ("image_id", "patient_id")), strict=True))
    assert set(patients) == {"a1", "a2", "b", "own"}
    assert patients["own"] == "W7", "a key of the user's own stays"
    assert patients["a1"] == patients["a2"] != patients["b"], "an id is unique within its issuer only"
    assert "4711" not in str(listing)
    assert "Doe" not in str(listing)
    reasons = {row.image_id: row.reason for row in listing.problems}
    assert "names no patient, so it can't be assigned to a split; fill the column `patient_id`" in reasons["nobody"]
    assert "damaged DICOM" in reasons["film"]
    assert (listing.counts["images"], listing.counts["patients"]) == (4, 3)
    salted = releases.read("csv_folder", str(source), lambda: "salt").exams["patient_id"].to_pylist()
    assert set(salted) & set(patients.values()) == {"W7"}


def test_without_a_salt_no_id_is_hashed(source):
    with pytest.raises(SourceError, match="no salt is set to hash their DICOM ids; fill `patient_id`"):
        releases.read("csv_folder", str(source))


def test_a_lake_keeps_one_salt_and_the_environment_may_give_another(tmp_path, monkeypatch):
    monkeypatch.delenv("MAMMOFLOW_SALT", raising=False)
    root = lake.Lake(str(tmp_path / "lake"))
    own = root.salt()
    assert len(own) == 32
    assert root.salt() == own != lake.Lake(str(tmp_path / "other")).salt()
    monkeypatch.setenv("MAMMOFLOW_SALT", "given")
    assert root.salt() == "given"
