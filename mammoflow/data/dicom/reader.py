"""One DICOM file -> its grey values, unsigned and with air dark, and what its header says. No Ray.

What is not a single grey mammogram is refused by its header, before any pixel is decoded. A hospital's identity never
leaves this module: not in what it returns, not in its errors, not in a warning.

Shape letters: h, w rows and columns of the file [px], or of a reduced resolution of it.

Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 A (transfer syntaxes).
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import pydicom
from numpy.typing import NDArray
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mammoflow.config import ImageConfig
from mammoflow.data.dicom import identity, pixels, values
from mammoflow.data.dicom.identity import Identity
from mammoflow.data.dicom.pixels import refuse_size
from mammoflow.data.dicom.quiet import quiet
from mammoflow.data.dicom.values import FULL
from mammoflow.data.fit import plan_fit
from mammoflow.errors import DecodeError
from mammoflow.lake import stores

__all__ = ["FULL", "Identity", "Raw", "read", "read_identity", "refuse_size"]

T = TypeVar("T")

MAX_INFLATED = 2**29
"""A deflated file that grows beyond this [bytes] is refused; the largest image has 400 million bytes of pixels."""

_CHUNK = 2**24
_NO_MAMMOGRAM = re.compile(r"SPECIMEN|LOCALI[SZ]ATION|LOCALI[SZ]ER|STEREO|BIOPSY|TOMOSYNTHESIS", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A file's pixels before reduction."""

    pixels: NDArray[Any]
    """(h, w), uint8 or uint16, 0 to `largest`, air dark."""
    largest: int
    """The largest value that pixels may take."""
    height: int
    """Rows of the file [px], whatever resolution was decoded."""
    width: int
    """Columns of the file [px]."""
    identity: Identity


def read(path: str, data: bytes, images: ImageConfig) -> Raw:
    """Decode a DICOM file.

    Args:
        path: named in errors.
        data: the whole file.
        images: `intensity` decides what the range of grey values is, `window` which of several windows; with
            `reduced`, its size decides which resolution is decoded: the full one where percentiles or padding, which
            lower resolutions blur, are looked for.

    Raises:
        DecodeError: damaged, no single grey mammogram, or without the window asked for.
    """
    with quiet():
        try:
            return _read(path, data, images)
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - parsers and codecs raise anything on damaged files
            kind = type(error).__name__
    raise _damaged(path, kind)


def _read(path: str, data: bytes, images: ImageConfig) -> Raw:
    _refuse_bomb(path, BytesIO(data))
    tags = pydicom.dcmread(BytesIO(data))
    _refuse_kind(path, tags)
    least = None
    if images.reduced and images.intensity != "percentile" and values.padding_is_air(tags):
        fit = plan_fit(tags.Rows, tags.Columns, images)
        least = fit.height, fit.width
    stored_hw = pixels.stored(path, tags, least)
    pixels_hw, largest = values.grey(path, tags, stored_hw, images)
    return Raw(
        pixels=pixels_hw, largest=largest, height=tags.Rows, width=tags.Columns, identity=identity.identity(tags)
    )


def read_identity(path: str) -> Identity:
    """Return what a DICOM file's header says; no pixel is read.

    Raises:
        DecodeError: the file is absent or no DICOM.
    """
    return _of_header(path, identity.identity)


def read_patient_key(path: str, salt: str) -> str:
    """Return a salted hash that tells a DICOM file's patient from others, and nothing else of her.

    Raises:
        DecodeError: the file is absent, no DICOM, or names no patient.
    """
    key = _of_header(path, partial(identity.patient_key, salt=salt))
    if key is None:
        raise DecodeError(f"{path}: names no patient, without whom it can't be split; fill the column `patient_id`")
    return key


def is_dicom(data: bytes) -> bool:
    """Tell whether a file's bytes, of which the first 132 are enough, are DICOM's. Source: PS3.10 7.1."""
    return data[128:132] == b"DICM"


def patient_key(path: str, data: bytes, salt: str) -> str | None:
    """Return the salted hash of a DICOM file's patient from its bytes; None where it names nobody.

    Args:
        path: named in errors.
        data: the whole file.
        salt: of the hashes.

    Raises:
        DecodeError: damaged, or no DICOM file.
    """
    return _of_header(path, partial(identity.patient_key, salt=salt), data)


def read_header(path: str) -> pydicom.Dataset:
    """Return all tags of a DICOM file but its pixels, for objects that refer to it. They name the patient: don't keep.

    Raises:
        DecodeError: the file is absent, damaged or no DICOM.
    """
    return _of_header(path, lambda tags: tags)


def _of_header(path: str, said: Callable[[pydicom.Dataset], T], data: bytes | None = None) -> T:
    """Return what a file's header says, by a function of its tags."""
    with quiet():
        try:
            fs, inner = stores.filesystem(path)
            with fs.open_input_file(inner) if data is None else BytesIO(data) as stream:
                _refuse_bomb(path, stream)
                stream.seek(0)
                return said(pydicom.dcmread(stream, stop_before_pixels=True))
        except DecodeError:
            raise
        except FileNotFoundError:
            kind = "no such file"
        except Exception as error:  # noqa: BLE001 - parsers raise anything on damaged files
            kind = type(error).__name__
    raise _damaged(path, kind)


def _damaged(path: str, kind: str) -> DecodeError:
    """Return the error of a damaged file, without the parser's words: they quote names, dates and ids of the patient.

    For the same reason it is raised where the parser's exception is no longer its context.
    """
    return DecodeError(f"{path}: damaged DICOM ({kind}); fetch the file again")


def _refuse_bomb(path: str, stream: BinaryIO) -> None:
    """Refuse a deflated file that grows beyond all measure: pydicom inflates the whole of it. Source: PS3.5 A.5."""
    read_preamble(stream, False)
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    rest = stream.read()
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, _CHUNK))
        rest = inflater.unconsumed_tail
        if inflated > MAX_INFLATED:
            raise DecodeError(f"{path}: inflates to more than {MAX_INFLATED:,} bytes, the most that can be used")


def _refuse_kind(path: str, tags: pydicom.Dataset) -> None:
    """Refuse DICOM that is no single grey image, by its header, before any pixel is decoded."""
    if not all(keyword in tags for keyword in ("Rows", "Columns", "BitsStored", "PixelData")):
        raise DecodeError(f"{path}: a DICOM file without an image, or cut off; fetch the file again")
    frames = int(tags.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DecodeError(f"{path}: {frames} frames, but only single images can be used; tomosynthesis has no support")
    if tags.get("SamplesPerPixel", 1) != 1 or tags.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise DecodeError(f"{path}: in colour; a mammogram has one sample per pixel, MONOCHROME1 or MONOCHROME2")
    if not 2 <= tags.BitsStored <= 16:
        raise DecodeError(f"{path}: {tags.BitsStored} bits stored, but 2 to 16 can be used")
    refuse_size(path, tags.Rows, tags.Columns)
    said = [*tags.get("ImageType", ()), str(tags.get("SeriesDescription") or "")]
    for sequence in ("ViewModifierCodeSequence", "AnatomicRegionSequence"):
        said += [str(item.get("CodeMeaning") or "") for item in tags.get(sequence) or ()]
    found = next((match[0] for text in said if (match := _NO_MAMMOGRAM.search(str(text)))), None)
    if found:
        raise DecodeError(f"{path}: tagged as {found.lower()}, which is no screening view; leave it out of the source")
