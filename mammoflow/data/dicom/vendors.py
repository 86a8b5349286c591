"""Makers of mammography machines and film digitisers, as a fixed list of names. Imports only re.

The tag is free text and may contain anything, so only names from this list reach the lake.
"""

import re

OTHER = "other"
"""Any manufacturer that is not in the list."""

VENDORS = {
    "Hologic": ("HOLOGIC", "LORAD"),
    "GE": ("GE", "GEMS", "GENERAL ELECTRIC"),
    "Siemens": ("SIEMENS",),
    "Fujifilm": ("FUJI", "FUJIFILM", "FUJI PHOTO FILM"),
    "Philips": ("PHILIPS", "SECTRA"),
    "IMS Giotto": ("IMS", "GIOTTO", "INTERNAZIONALE MEDICO SCIENTIFICA"),
    "Planmed": ("PLANMED",),
    "Metaltronica": ("METALTRONICA",),
    "Agfa": ("AGFA",),
    "Carestream": ("CARESTREAM", "KODAK"),
    "Konica Minolta": ("KONICA", "MINOLTA", "KONICAMINOLTA"),
    "Canon": ("CANON", "TOSHIBA"),
    "Fischer": ("FISCHER",),
    "Hamamatsu": ("HAMAMATSU",),
    "Lumisys": ("LUMISYS",),
    "Howtek": ("HOWTEK", "ICAD"),
    "Vidar": ("VIDAR",),
}
"""Name in the lake to the words that identify it in the tag."""

_PATTERNS = {name: re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE) for name, words in VENDORS.items()}


def recognise(manufacturer: str) -> str | None:
    """Return the vendor that a text names: one of VENDORS, or OTHER; None if the text is empty.

    Args:
        manufacturer: DICOM Manufacturer (0008,0070), e.g. `HOLOGIC, Inc.` or `GE MEDICAL SYSTEMS`.

    Source: DICOM PS3.3 C.7.5.1 (General Equipment).
    """
    text = manufacturer.replace("_", " ").strip(" \0")
    if not text:
        return None
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(text)), OTHER)
