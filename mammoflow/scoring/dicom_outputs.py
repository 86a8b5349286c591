"""Results of an image as DICOM: a Secondary Capture of the heatmap and a Comprehensive SR. No Ray, no files.

Both join the study of the image, so that a viewer shows them beside it. Only the UIDs of study, series and image are
copied from the source, since references need them. Names, dates, other ids, persons, places and devices are not; the
patient id is mammoflow's, a release's own id or a salted hash.

UIDs follow from the model version and the image, and times are given by the caller, so rewriting gives the same file.

Source: DICOM PS3.3 A.8.1 (Secondary Capture), A.35.3 (Comprehensive SR); PS3.16 TID 1500 (Measurement Report), 1501
(measurements and qualitative evaluations), 4019 (algorithm identification).
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

import mammoflow
from mammoflow.errors import DecodeError

NAME = "mammoflow"
_SCHEME = "99MAMMOFLOW"
"""Private coding scheme for concepts without a standard code; 99 marks private schemes (PS3.3 8.2)."""

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_EMPTY = (
    *("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    "ReferringPhysicianName",
)
_DATES = frozenset(("InstanceCreationDate", "ContentDate", "SeriesDate", "DateOfSecondaryCapture"))
_TIMES = frozenset(("InstanceCreationTime", "ContentTime", "SeriesTime", "TimeOfSecondaryCapture"))
_CAPTURE_SERIES, _REPORT_SERIES = 9701, 9702  # series numbers; UIDs tell the series apart

_SIDES = {"L": codes.SCT.Left, "R": codes.SCT.Right}
_SCORE = hd.sr.CodedConcept("score", _SCHEME, "Score before calibration")
_CUTOFF = hd.sr.CodedConcept("operating-point", _SCHEME, "Operating point on the score")
_MEMBER = hd.sr.CodedConcept("member-score", _SCHEME, "Score of one member of an ensemble")
_DECISION = hd.sr.CodedConcept("decision", _SCHEME, "Decision at the operating point")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of a registered ensemble on an image."""

    probability: float
    """Of malignant, calibrated [0-1]."""
    score: float
    """Mean of the members [0-1]."""
    malignant: bool
    """Whether the score reaches the operating point."""
    cutoff: float
    """The operating point on the score [0-1]."""
    members: Mapping[str, float]
    """Score of each member by its name [0-1]."""
    model: str
    """Version of the registered model, `<name>/<version>`."""
    patient_id: str | None
    """mammoflow's patient id: a release's own id or a salted hash."""
    laterality: str | None
    """L | R, or None if unknown."""
    mark: str
    """Warning about the model, such as training on phantoms; else empty."""


def secondary_capture(source: Dataset, picture_HW3: npt.NDArray[np.uint8], finding: Finding, at: datetime) -> Dataset:
    """Return a picture as a Secondary Capture in the source's study.

    Args:
        source: tags of the image that was scored.
        picture_HW3: uint8 (H, W, 3), RGB.
        finding: the result.
        at: when it was scored.

    Raises:
        DecodeError: the source lacks the UIDs that a reference needs.
    """
    ids = _references(source)
    made = hd.sc.SCImage(
        pixel_array=np.ascontiguousarray(picture_HW3),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=ids["StudyInstanceUID"],
        series_instance_uid=_uid("capture series", finding.model, ids["SeriesInstanceUID"]),
        series_number=_CAPTURE_SERIES,
        sop_instance_uid=_uid("capture", finding.model, ids["SOPInstanceUID"]),
        instance_number=1,
        manufacturer=NAME,
        patient_id=finding.patient_id or "",
        patient_name="",
        laterality=finding.laterality,
        patient_orientation=("A", "F"),
    )
    made.PatientOrientation = []  # the picture shows the image twice, side by side
    made.SeriesDescription = "Where the score comes from"
    made.DerivationDescription = f"Heatmap of {finding.model} beside the image. {finding.mark}".strip()
    made.BurnedInAnnotation = "YES"  # the caption below the picture; no identity
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = ids["SOPClassUID"], ids["SOPInstanceUID"]
    image.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
    made.SourceImageSequence = [image]
    return _stamped(made, at)


def structured_report(source: Dataset, finding: Finding, at: datetime, capture: Dataset | None = None) -> Dataset:
    """Return the result as a Comprehensive SR by TID 1500: probability in percent, decision, members' scores.

    The probability of malignancy has the code (111047, DCM, "Probability of cancer"). The decision is SNOMED
    positive or negative, since a cut-off is no diagnosis. Concepts without a standard code are in 99MAMMOFLOW.

    Args:
        source: tags of the image that was scored.
        finding: the result.
        at: when it was scored.
        capture: its Secondary Capture, to be referred to as well.

    Raises:
        DecodeError: the source lacks the UIDs that a reference needs.
    """
    evidence = _evidence(source, finding)
    ids = _references(source)
    name, _, version = finding.model.rpartition("/")
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=_uid("device", finding.model),
            name=NAME,
            manufacturer_name=NAME,
            model_name=f"{NAME} {mammoflow.__version__}",
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.Mammography,
        imaging_measurements=[_group(ids, finding, name, version)],
    )
    made = hd.sr.ComprehensiveSR(
        evidence=[evidence, *([capture] if capture is not None else [])],
        content=report,
        series_instance_uid=_uid("report series", finding.model, ids["SeriesInstanceUID"]),
        series_number=_REPORT_SERIES,
        sop_instance_uid=_uid("report", finding.model, ids["SOPInstanceUID"]),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made.SeriesDescription = f"Probability of malignancy by {finding.model}"[:64]
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = _SCHEME, "Codes of mammoflow"
    scheme.CodingSchemeResponsibleOrganization = NAME
    made.CodingSchemeIdentificationSequence = [scheme]
    return _stamped(made, at)


def to_bytes(dataset: Dataset) -> bytes:
    """Return a data set as a DICOM file."""
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _group(
    ids: Mapping[str, str], finding: Finding, name: str, version: str
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """Return the measurements of one breast on one image."""
    side = _SIDES.get(finding.laterality or "")
    per_cent, one = codes.UCUM.Percent, codes.UCUM.NoUnits
    measures = [
        hd.sr.Measurement(codes.DCM.ProbabilityOfCancer, round(100 * finding.probability, 4), per_cent),
        hd.sr.Measurement(_SCORE, round(finding.score, 6), one),
        hd.sr.Measurement(_CUTOFF, round(finding.cutoff, 6), one),
    ]
    measures += [
        hd.sr.Measurement(
            _MEMBER, round(score, 6), one, algorithm_id=hd.sr.AlgorithmIdentification(name=member[:64], version=version)
        )
        for member, score in finding.members.items()
    ]
    notes = [finding.mark] if finding.mark else None
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=_uid("finding", finding.model, ids["SOPInstanceUID"]), identifier="Whole image"
        ),
        finding_type=codes.DCM.ProbabilityOfCancer,
        algorithm_id=hd.sr.AlgorithmIdentification(name=name, version=version, parameters=notes, manufacturer=NAME),
        finding_sites=[hd.sr.FindingSite(codes.SCT.Breast, laterality=side)],
        measurements=measures,
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_DECISION, codes.SCT.Positive if finding.malignant else codes.SCT.Negative)
        ],
        source_images=[hd.sr.SourceImageForMeasurementGroup(ids["SOPClassUID"], ids["SOPInstanceUID"])],
    )


def _references(source: Dataset) -> dict[str, str]:
    """Return the UIDs that references to an image need."""
    uids = {name: str(source.get(name) or "") for name in _NEEDED}
    wrong = [name for name, value in uids.items() if not UID(value).is_valid]
    if wrong:
        raise DecodeError(
            f"the image has no valid {', '.join(wrong)}, by which a report refers to it; write them, or score without "
            "--dicom"
        )
    return uids


def _evidence(source: Dataset, finding: Finding) -> Dataset:
    """Return the data set that a report refers to: the source's UIDs without its identity."""
    evidence = Dataset()
    for name, value in _references(source).items():
        setattr(evidence, name, value)
    for name in _EMPTY:
        setattr(evidence, name, "")
    evidence.PatientID = finding.patient_id or ""
    return evidence


def _stamped(made: Dataset, at: datetime) -> Dataset:
    """Replace the present time, which highdicom wrote, by the caller's."""
    made.SoftwareVersions = mammoflow.__version__
    for element in made:
        if element.keyword in _DATES:
            element.value = at.strftime("%Y%m%d")
        elif element.keyword in _TIMES:
            element.value = at.strftime("%H%M%S")
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = at.strftime("%Y%m%d%H%M%S")
    return made


def _uid(*parts: str) -> str:
    """Return a UID that depends on the words alone. Source: DICOM PS3.5 B.2 (UUID derived UID)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join((NAME, *parts))).int}"


def _coded(code: hd.sr.CodedConcept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
