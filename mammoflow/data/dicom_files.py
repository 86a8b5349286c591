"""One DICOM file -> its grey values, unsigned and with air dark, and what its header says. No Ray.

What is not a single grey mammogram is refused by its header, before any pixel is decoded. A hospital's identity never
leaves this module.

Shape letters: h, w rows and columns of the file [px].
Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT); PS3.5 8 and A.4 (encoding).
"""

import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from mammoflow import lake
from mammoflow.config import ImageConfig
from mammoflow.data import vendors
from mammoflow.errors import DecodeError

FULL = 65535
MAX_PIXELS = 200_000_000
"""Larger images are refused before anything is allocated; the largest mammograms have about 50 million pixels."""

_CASE_NAME = re.compile(r"^(?:Mass|Calc)-(?:Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)")
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
_STREAMS = {
    "1.2.840.10008.1.2.4.50": ("JPEG baseline", (0xC0,)),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", (0xC0, 0xC1)),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", (0xC3,)),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", (0xC3,)),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", (0xF7,)),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", (0xF7,)),
    **{f"1.2.840.10008.1.2.4.{number}": ("JPEG 2000", (0x4F,)) for number in (90, 91, 201, 202, 203)},
}
"""Transfer syntax to its name and the markers that its stream may begin its frame with."""
_FRAME_MARKERS = {
    0xC0: "JPEG baseline",
    0xC1: "JPEG extended",
    0xC3: "JPEG lossless",
    0xF7: "JPEG-LS",
    0x4F: "JPEG 2000",
}
_NO_MAMMOGRAM = re.compile(r"SPECIMEN|LOCALI[SZ]ATION|LOCALI[SZ]ER|STEREO|BIOPSY|TOMOSYNTHESIS", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a file says of whom and what it shows, as far as the lake may know it."""

    patient_id: str | None
    """Only where the tags hold a release's own case name (CBIS-DDSM); a hospital's id is never passed on."""
    laterality: str | None
    """L | R, or None where the file doesn't say."""
    view: str | None
    """CC | MLO | another view's code, or None where the file doesn't say."""
    vendor: str | None
    """Who made the machine: one of vendors.VENDORS or `other`, or None where the file doesn't say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A file's pixels before reduction."""

    pixels: NDArray[Any]
    """(h, w), uint8 or uint16, 0 to `largest`, air dark."""
    largest: int
    """The largest value that pixels may take."""
    identity: Identity


def read(path: str, data: bytes, images: ImageConfig) -> Raw:
    """Decode a DICOM file.

    Args:
        path: named in errors.
        data: the whole file.
        images: `intensity` decides what the range of grey values is; `window` which of several windows.

    Raises:
        DecodeError: damaged, no single grey mammogram, or without the window asked for.
    """
    try:
        tags = pydicom.dcmread(BytesIO(data))
        _refuse_kind(path, tags)
        _refuse_other_stream(path, tags)
        stored_hw = pixel_array(tags)
        if stored_hw.ndim != 2 or stored_hw.shape != (tags.Rows, tags.Columns):
            size = "x".join(str(side) for side in stored_hw.shape)
            raise DecodeError(f"{path}: {size} pixels where its header says {tags.Rows}x{tags.Columns}")
        if images.intensity == "window":
            pixels_hw, largest = _windowed(path, tags, stored_hw, images.window)
        else:
            pixels_hw, largest = _unsigned(tags, stored_hw)
        if "PixelPaddingValue" in tags:
            pixels_hw = np.where(_padding(tags, stored_hw), pixels_hw.dtype.type(0), pixels_hw)
        return Raw(pixels=pixels_hw, largest=largest, identity=_identity(tags))
    except DecodeError:
        raise
    except Exception as error:  # parsers and codecs raise anything on damaged files
        raise _damaged(path, error) from error


def read_identity(path: str) -> Identity:
    """Return what a DICOM file's header says; no pixel is read.

    Raises:
        DecodeError: the file is absent or no DICOM.
    """
    try:
        fs, inner = lake.filesystem(path)
        with fs.open_input_file(inner) as stream:
            return _identity(pydicom.dcmread(stream, stop_before_pixels=True))
    except Exception as error:  # parsers raise anything on damaged files
        raise _damaged(path, error) from error


def refuse_size(path: str, height: int, width: int) -> None:
    """Refuse an image that is too large, before anything is allocated.

    Raises:
        DecodeError: more than MAX_PIXELS.
    """
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{path}: {height}x{width} pixels, but at most {MAX_PIXELS:,} can be used")


def _damaged(path: str, error: Exception) -> DecodeError:
    what = " ".join(str(error).split())[:300]
    return DecodeError(f"{path}: damaged DICOM ({type(error).__name__}: {what}); fetch the file again")


def _refuse_kind(path: str, tags: pydicom.Dataset) -> None:
    """Refuse DICOM that is no single grey image, by its header, before any pixel is decoded."""
    if not all(keyword in tags for keyword in ("Rows", "Columns", "BitsStored", "PixelData")):
        raise DecodeError(f"{path}: a DICOM file without an image, or cut off; fetch the file again")
    frames = int(tags.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DecodeError(f"{path}: {frames} frames, but only single images can be used; tomosynthesis has no support")
    if tags.get("SamplesPerPixel", 1) != 1 or not str(tags.PhotometricInterpretation).startswith("MONOCHROME"):
        raise DecodeError(f"{path}: in colour ({tags.PhotometricInterpretation}); a mammogram is MONOCHROME1 or 2")
    if not 2 <= tags.BitsStored <= 16:
        raise DecodeError(f"{path}: {tags.BitsStored} bits stored, but 2 to 16 can be used")
    refuse_size(path, tags.Rows, tags.Columns)
    said = [*tags.get("ImageType", ()), str(tags.get("SeriesDescription") or "")]
    for sequence in ("ViewModifierCodeSequence", "AnatomicRegionSequence"):
        said += [str(item.get("CodeMeaning") or "") for item in tags.get(sequence) or ()]
    found = next((match[0] for text in said if (match := _NO_MAMMOGRAM.search(str(text)))), None)
    if found:
        raise DecodeError(f"{path}: tagged as {found.lower()}, which is no screening view; leave it out of the source")


def _refuse_other_stream(path: str, tags: pydicom.Dataset) -> None:
    """Refuse compressed pixels of another kind than the transfer syntax says: a decoder would guess."""
    syntax = str(tags.file_meta.TransferSyntaxUID)
    if syntax not in _STREAMS:
        return
    wanted, markers = _STREAMS[syntax]
    marker = _frame_marker(get_frame(tags.PixelData, 0, number_of_frames=1))
    if marker not in markers:
        found = _FRAME_MARKERS.get(marker or 0, "none that is known")
        raise DecodeError(f"{path}: its header says {wanted}, its stream is {found}; fetch or convert it again")


def _frame_marker(stream: bytes) -> int | None:
    """Return the second byte of the marker that starts a JPEG frame or a JPEG 2000 codestream, or None.

    Source: ITU-T T.81 B.1.1.3, T.87 C.1, T.800 A.2.
    """
    at = max(stream.find(b"\xff\x4f\xff\x51", 0, 512), 0)  # a JP2 file holds boxes before its codestream
    if stream[at : at + 2] == b"\xff\x4f":
        return 0x4F
    at = 2 if stream.startswith(b"\xff\xd8") else len(stream)
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] in _FRAME_MARKERS:
            return stream[at + 1]
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _unsigned(tags: pydicom.Dataset, stored_hw: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return stored values from 0 to the largest that the stored bits can hold, air dark."""
    bits = int(tags.BitsStored)
    largest = 2**bits - 1  # pydicom clears the bits above those stored
    inverted = (tags.PhotometricInterpretation == "MONOCHROME1") != (float(tags.get("RescaleSlope") or 1) < 0)
    if tags.PixelRepresentation:
        stored_hw = stored_hw.astype(np.int32) + 2 ** (bits - 1)
    pixels_hw = stored_hw.astype(np.uint8 if bits <= 8 else np.uint16, copy=False)
    return (largest - pixels_hw if inverted else pixels_hw), largest


def _windowed(path: str, tags: pydicom.Dataset, stored_hw: NDArray[Any], which: int) -> tuple[NDArray[Any], int]:
    """Return the values that a viewer would show, over the full range: modality LUT, then VOI LUT or window."""
    luts, windows = tags.get("VOILUTSequence") or (), np.atleast_1d(tags.get("WindowCenter", []))
    offered = len(luts) or len(windows)
    if which >= offered:
        raise DecodeError(
            f"{path}: window {which} is asked for, it has {offered}; use --images.intensity full_range or percentile, "
            "or a smaller --images.window"
        )
    values_hw = apply_modality_lut(stored_hw, tags)
    if len(luts):
        shown_hw = _looked_up(luts[which], values_hw)
        lowest, highest = 0.0, float(2 ** int(luts[which].LUTDescriptor[2]) - 1)
    else:
        shown_hw = np.asarray(apply_voi_lut(values_hw, tags, index=which, prefer_lut=False), np.float64)
        lowest, highest = _window_range(tags, values_hw, which)
    shares_hw = np.clip((shown_hw - lowest) / (highest - lowest), 0, 1)
    if tags.PhotometricInterpretation == "MONOCHROME1":
        shares_hw = 1 - shares_hw
    return np.rint(shares_hw * FULL).astype(np.uint16), FULL


def _looked_up(lut: pydicom.Dataset, values_hw: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a VOI LUT gives, its ends for values beyond it. Source: PS3.3 C.11.2.1.1.

    pydicom's own (3.0.1) counts entries in the width of their values: of 8 bits, values 256 apart give the same.
    """
    table = np.asarray(lut.LUTData, np.float64)
    entries = np.clip(np.rint(values_hw).astype(np.int64) - int(lut.LUTDescriptor[1]), 0, len(table) - 1)
    return np.asarray(table[entries], np.float64)


def _window_range(tags: pydicom.Dataset, values_hw: NDArray[Any], which: int) -> tuple[float, float]:
    """Return the least and largest value that the window gives: what becomes of values far outside of it."""
    far = float(np.abs(values_hw).max()) + 1e6
    with np.errstate(over="ignore"):
        ends = apply_voi_lut(np.array([[-far, far]]), tags, index=which)
    return float(ends[0, 0]), float(ends[0, 1])


def _padding(tags: pydicom.Dataset, stored_hw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a file holds no image: its padding value, or the range of them. Source: PS3.3 C.7.5.1.1.2."""
    value = int(tags.PixelPaddingValue)
    first, last = sorted((value, int(tags.get("PixelPaddingRangeLimit", value))))
    return np.asarray((stored_hw >= first) & (stored_hw <= last), np.bool_)


def _coded_view(tags: pydicom.Dataset) -> str | None:
    """Return the view of ViewCodeSequence. Source: DICOM PS3.16, CID 4014."""
    for item in tags.get("ViewCodeSequence") or ():
        code = str(item.get("CodeValue") or "")
        if code in _VIEW_CODES:
            return _VIEW_CODES[code]
    return None


def _identity(tags: pydicom.Dataset) -> Identity:
    """Return patient, side and view by the tags; by the case name in PatientID where CBIS-DDSM leaves tags out."""
    case = _CASE_NAME.match(str(tags.get("PatientID") or ""))
    side = str(tags.get("ImageLaterality") or tags.get("Laterality") or (case and case[2]) or "")
    view = str(tags.get("ViewPosition") or _coded_view(tags) or (case and case[3]) or "")
    return Identity(
        patient_id=case[1] if case else None,
        laterality={"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}.get(side.upper()),
        view=view.upper() or None,
        vendor=vendors.known(str(tags.get("Manufacturer") or "")),
    )
