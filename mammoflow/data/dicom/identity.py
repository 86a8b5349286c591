"""Patient key, laterality, view, orientation and vendor from a DICOM file's tags. No pixels.

Only values from the lists in this module, case names of CBIS-DDSM and salted hashes leave it; no text of a hospital's.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pydicom

from mammoflow.data.dicom import vendors

_CASE_NAME = re.compile(r"^(?:Mass|Calc)-(?:Training|Test)_(P_\d{5})_(LEFT|RIGHT)_(CC|MLO)")
_SIDES = {"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}
_SIDE_CODES = {
    "24028007": "R",
    "G-A100": "R",
    "7771000": "L",
    "G-A101": "L",
    "73056007": "R",
    "T-04020": "R",
    "80248007": "L",
    "T-04030": "L",
}
"""SNOMED codes of right and left, and of the right and the left breast. Source: DICOM PS3.16, CID 244."""
_VIEWS = frozenset(["CC", "MLO", "ML", "LM", "LMO", "FB", "SIO", "ISO", "XCC", "XCCL", "XCCM", "AT", "CV", "TAN"])
"""Views as mammography units abbreviate them. Source: DICOM PS3.3 C.8.11.7, PS3.16 CID 4014 and 4015."""
_VIEW_CODES = {
    "R-10242": "CC",
    "399162004": "CC",
    "R-10226": "MLO",
    "399368009": "MLO",
    "R-10224": "ML",
    "399260004": "ML",
    "R-10228": "LM",
    "399352003": "LM",
}
"""SNOMED codes of mammographic views, older and newer. Source: DICOM PS3.16, CID 4014."""
_TOWARDS = re.compile(r"^([AP])[HFLR]{0,2}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the lake may know of a file's patient and view."""

    patient_id: str | None
    """From a CBIS-DDSM case name; None otherwise: a hospital's id is never passed on."""
    laterality: str | None
    """L | R; None if the file doesn't say."""
    view: str | None
    """CC | MLO | the code of another view; None if the file doesn't say."""
    vendor: str | None
    """Maker of the machine: one of vendors.VENDORS, or `other`; None if the file doesn't say."""
    faces: Literal["left", "right"] | None = None
    """Direction of the nipple, by PatientOrientation; None if the file doesn't say."""


def read(tags: pydicom.Dataset) -> Identity:
    """Return the identity of a file from its tags; CBIS-DDSM's case names fill in for absent tags.

    Args:
        tags: the data set; pixel data is not needed.
    """
    case = _CASE_NAME.match(str(tags.get("PatientID") or ""))
    return Identity(
        patient_id=case[1] if case else None,
        laterality=_laterality(tags) or (_SIDES[case[2]] if case else None),
        view=_view(tags) or (case[3] if case else None),
        vendor=vendors.recognise(str(tags.get("Manufacturer") or "")),
        faces=_faces(tags),
    )


def _laterality(tags: pydicom.Dataset) -> str | None:
    """Return the side from the first tag or code that names one.

    Source: DICOM PS3.3 C.8.11.7 (mammography image), C.7.3.1 (series), C.7.6.16.2.8 (frame anatomy), 10.5 (region).
    """
    groups = [tags, *_items(tags, "SharedFunctionalGroupsSequence")]
    frames = [item for group in groups for item in _items(group, "FrameAnatomySequence")]
    texts = [tags.get("ImageLaterality"), tags.get("Laterality"), *(item.get("FrameLaterality") for item in frames)]
    named = (_SIDES.get(str(text or "").strip().upper()) for text in texts)
    coded = (_SIDE_CODES.get(code) for item in (tags, *frames) for code in _region_codes(item))
    return next((side for side in (*named, *coded) if side), None)


def _region_codes(tags: pydicom.Dataset) -> Iterator[str]:
    for region, modifier in (
        ("AnatomicRegionSequence", "AnatomicRegionModifierSequence"),
        ("PrimaryAnatomicStructureSequence", "PrimaryAnatomicStructureModifierSequence"),
    ):
        for item in _items(tags, region):
            for code in (*_items(item, modifier), item):
                yield str(code.get("CodeValue") or "")
        for code in _items(tags, modifier):  # some units write it beside the region instead of inside
            yield str(code.get("CodeValue") or "")


def _view(tags: pydicom.Dataset) -> str | None:
    """Return the view from ViewPosition or ViewCodeSequence. Source: DICOM PS3.3 C.8.11.7, PS3.16 CID 4014."""
    named = str(tags.get("ViewPosition") or "").strip().upper()
    if named in _VIEWS:
        return named
    codes = (str(item.get("CodeValue") or "") for item in _items(tags, "ViewCodeSequence"))
    return next((_VIEW_CODES[code] for code in codes if code in _VIEW_CODES), None)


def _faces(tags: pydicom.Dataset) -> Literal["left", "right"] | None:
    """Return the nipple's direction: rows run towards anterior or posterior. Source: DICOM PS3.3 C.7.6.1.1.1.

    Other contents of the tag are ignored; CBIS-DDSM writes the view there.
    """
    value: Any = tags.get("PatientOrientation") or ""
    match = _TOWARDS.match(str(value if isinstance(value, str) else value[0]).strip().upper())
    if not match:
        return None
    return "right" if match[1] == "A" else "left"


def _items(tags: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    return [item for item in tags.get(keyword) or () if isinstance(item, pydicom.Dataset)]


def patient_key(tags: pydicom.Dataset, salt: str) -> str | None:
    """Return a salted hash of the patient's id; None if the file has no id.

    Source: DICOM PS3.3 C.7.1.1: a PatientID is unique within its issuer.
    """
    patient, issuer = (str(tags.get(keyword) or "").strip() for keyword in ("PatientID", "IssuerOfPatientID"))
    if not patient:
        return None
    return hmac.new(salt.encode(), f"{issuer}\x1f{patient}".encode(), hashlib.sha256).hexdigest()[:16]
