"""No identity of a patient in DICOM files reaches the lake, the output or the logs."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray_head import ROOT
from small_dicom import breast, dicom, write

SECRETS = {
    "PatientName": "Qwzxjvky^Lucy",
    "PatientID": "QWZXJVK-4711",
    "OtherPatientIDs": "QWZXJVK-4712",
    "PatientBirthDate": "19410203",
    "PatientAddress": "Qwzxjvk Lane 5",
    "PatientComments": "QWZXJVK says her neighbour",
    "InstitutionName": "Qwzxjvk Hospital",
    "InstitutionAddress": "Qwzxjvk Road 1",
    "ReferringPhysicianName": "Qwzxjvkster^Ron",
    "OperatorsName": "Qwzxjvkowitz^Op",
    "AccessionNumber": "QWZXJVK0815",
    "StudyDescription": "Qwzxjvk study",
    "SeriesDescription": "Qwzxjvk series",
    "ProtocolName": "Qwzxjvk protocol",
    "ImageComments": "Qwzxjvk of an image",
    "StationName": "QWZXJVKSTATION",
    "Manufacturer": "Qwzxjvk Machines, St Leak",
    "ManufacturerModelName": "Qwzxjvkograph",
    "DeviceSerialNumber": "QWZXJVK-SN-1",
    "StudyID": "QWZXJVKSTUDY",
    "SoftwareVersions": "QWZXJVK 1.0",
}
MARKS = (b"qwzxjvk", b"19410203")


def source(root: Path) -> None:
    """Films of users' own, by their hospitals' ids; some damaged where a parser would quote what it read."""
    rows, lesions = ["path,patient_id,laterality,view,label"], ["path,kind,pathology,x,y,radius"]
    for n in range(24):
        tags = SECRETS | {"PatientID": f"QWZXJVK-{n // 2}"}
        data = dicom(breast(seed=n), **tags, WindowCenter="34567.0", WindowWidth="23456.0")
        if n in (5, 9):  # numbers that are none
            data = data.replace(b"34567.0", b"QWZXJVK").replace(b"23456.0", b"QWZXJVK")
        if n == 6:
            data = data[: len(data) // 2]
        if n == 7:
            data = data[:700]
        write(root / f"{n}.dcm", data)
        rows.append(f"{n}.dcm,,L,CC,{n // 2 % 2}")
        lesions.append(f"{n}.dcm,mass,{('benign', 'malignant')[n // 2 % 2]},60,110,15")
    write(root / "images.csv", "\n".join(rows).encode())
    write(root / "lesions.csv", "\n".join(lesions).encode())


def leaks(folder: Path) -> list[str]:
    """Return the files below a folder that hold what is none of their business; tables are read, not grepped."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if name != "pixels"]
                data += str(file.read(names).to_pylist()).encode()
        found += [f"{path}: {mark!r}" for mark in MARKS if mark in data.lower()]
    return found


def run(tmp_path: Path, job: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a job on the films with a Ray session of its own, so that all its logs can be read."""
    (tmp_path / "ray").mkdir()
    source(tmp_path / "films")
    command = [sys.executable, f"jobs/{job}.py", "smoke", "--source", str(tmp_path / "films"), "--max-bad", "0.5"]
    return subprocess.run(
        [*command, "--lake", str(tmp_path / "lake"), *words],
        cwd=ROOT,
        env=os.environ | {"RAY_TMPDIR": str(tmp_path / "ray")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name short enough for Ray's sockets."""
    return tmp_path_factory.mktemp("i")


def check(done: subprocess.CompletedProcess[str], folder: Path, least: int) -> None:
    """Hold that the job went well, that some files were refused, and that nothing leaked."""
    assert done.returncode == 0, done.stdout + done.stderr
    said = (done.stdout + done.stderr).lower().replace(str(folder).lower(), "")
    assert "qwzxjvk" not in said, said
    assert "19410203" not in said
    assert leaks(folder / "films"), "the films themselves hold it, or this test would find nothing"
    assert leaks(folder / "lake") == []
    assert leaks(folder / "ray") == []
    (reasons,) = (folder / "lake").glob("images/*/quarantine.parquet")
    assert pq.read_table(reasons).num_rows >= least


def test_nothing_of_a_patient_reaches_the_lake_the_output_or_the_logs(short_path):
    done = run(short_path, "ingest", "--images.intensity", "window")
    check(done, short_path, least=3)
    (exams,) = (short_path / "lake").glob("images/*/exams.parquet")
    patients = pq.read_table(exams)["patient_id"].to_pylist()
    assert all(len(patient) == 16 for patient in patients), "salted hashes"
    assert len({*patients}) == 12


@pytest.mark.soak
def test_nor_models_runs_or_the_report(short_path):
    check(run(short_path, "demo"), short_path, least=1)
    assert list((short_path / "lake").rglob("report.html"))
