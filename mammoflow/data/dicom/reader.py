"""Read one DICOM file: its grey values, unsigned and with air dark, and its identity. No Ray.

Anything but a single grey mammogram is refused by its header, before a pixel is decoded. No text that could identify
the patient leaves this module: neither in results nor in errors or warnings.

Shape letters: h, w rows and columns of the file [px], or of a reduced resolution.

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
from mammoflow.data.dicom import grey_values, identity, stored_values
from mammoflow.data.dicom.grey_values import FULL
from mammoflow.data.dicom.identity import Identity
from mammoflow.data.dicom.quiet import quiet
from mammoflow.data.dicom.stored_values import refuse_size
from mammoflow.data.fit import plan_fit
from mammoflow.errors import DecodeError, naming
from mammoflow.lake import stores

__all__ = ["FULL", "Identity", "Raw", "read", "read_identity", "refuse_size"]

T = TypeVar("T")

MAX_INFLATED = 2**29
"""A deflated file that inflates beyond this [bytes] is refused; the largest image has 400 million bytes of pixels."""

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


def read(data: bytes, images: ImageConfig) -> Raw:
    """Decode the bytes of a DICOM file.

    Args:
        data: the whole file.
        images: `intensity` sets the range of grey values, `window` which of several windows. With `reduced`, the image
            size sets the resolution to decode; it stays full for percentiles and padding, which reduction would blur.

    Raises:
        DecodeError: damaged, not a single grey mammogram, or without the requested window.
    """
    with quiet():
        try:
            return _read(data, images)
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - parsers and codecs raise anything on damaged files
            problem = _damaged(type(error).__name__)
    raise problem


def _read(data: bytes, images: ImageConfig) -> Raw:
    _refuse_bomb(BytesIO(data))
    tags = pydicom.dcmread(BytesIO(data))
    _refuse_kind(tags)
    least = None
    if images.reduced and images.intensity != "percentile" and grey_values.padding_is_air(tags):
        fit = plan_fit(tags.Rows, tags.Columns, images)
        least = fit.height, fit.width
    stored_hw = stored_values.decode(tags, least)
    pixels_hw, largest = grey_values.grey(tags, stored_hw, images)
    return Raw(pixels=pixels_hw, largest=largest, height=tags.Rows, width=tags.Columns, identity=identity.read(tags))


def read_identity(path: str) -> Identity:
    """Return the identity of a DICOM file from its header, without reading pixels.

    Raises:
        DecodeError: the file is absent or not DICOM.
    """
    return _from_file(path, identity.read)


def read_patient_key(path: str, salt: str) -> str:
    """Return a salted hash of a DICOM file's patient, without reading pixels.

    Raises:
        DecodeError: the file is absent, not DICOM, or names no patient.
    """
    with naming(path):
        key = _from_file(path, partial(identity.patient_key, salt=salt))
        if key is None:
            raise DecodeError("names no patient, so it can't be assigned to a split; fill the column `patient_id`")
        return key


def is_dicom(data: bytes) -> bool:
    """Tell whether bytes are those of a DICOM file; the first 132 are enough. Source: PS3.10 7.1."""
    return data[128:132] == b"DICM"


def patient_key(data: bytes, salt: str) -> str | None:
    """Return a salted hash of the patient of a DICOM file's bytes; None if it names nobody.

    Raises:
        DecodeError: damaged, or not DICOM.
    """
    return _from_header(lambda: BytesIO(data), partial(identity.patient_key, salt=salt))


def read_header(path: str) -> pydicom.Dataset:
    """Return all tags but the pixels, for DICOM objects that refer to the file. They name the patient: do not keep.

    Raises:
        DecodeError: the file is absent, damaged or not DICOM.
    """
    return _from_file(path, lambda tags: tags)


def _from_file(path: str, extract: Callable[[pydicom.Dataset], T]) -> T:
    def open_file() -> Any:
        fs, inner = stores.filesystem(path)
        return fs.open_input_file(inner)

    with naming(path):
        return _from_header(open_file, extract)


def _from_header(open_stream: Callable[[], Any], extract: Callable[[pydicom.Dataset], T]) -> T:
    """Return what `extract` makes of a file's tags, pixels left unread."""
    with quiet():
        try:
            with open_stream() as stream:
                _refuse_bomb(stream)
                stream.seek(0)
                return extract(pydicom.dcmread(stream, stop_before_pixels=True))
        except DecodeError:
            raise
        except FileNotFoundError:
            problem = DecodeError("no such file; fetch it")
        except Exception as error:  # noqa: BLE001 - parsers raise anything on damaged files
            problem = _damaged(type(error).__name__)
    raise problem


def _damaged(kind: str) -> DecodeError:
    """Return the error for a damaged file, without the parser's message: it quotes names, dates and ids.

    Callers raise it outside the `except` block, or the parser's exception would be attached as context.
    """
    return DecodeError(f"damaged DICOM ({kind}); fetch the file again")


def _refuse_bomb(stream: BinaryIO) -> None:
    """Refuse a deflated file that inflates beyond MAX_INFLATED: pydicom inflates all of it. Source: PS3.5 A.5."""
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
            raise DecodeError(f"inflates to more than {MAX_INFLATED:,} bytes, the limit; fetch the file again")


def _refuse_kind(tags: pydicom.Dataset) -> None:
    """Refuse anything but a single grey image by its header, before a pixel is decoded."""
    if not all(keyword in tags for keyword in ("Rows", "Columns", "BitsStored", "PixelData")):
        raise DecodeError("a DICOM file without an image, or cut off; fetch the file again")
    frames = int(tags.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DecodeError(f"{frames} frames, but only single images can be used; tomosynthesis is not supported")
    if tags.get("SamplesPerPixel", 1) != 1 or tags.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise DecodeError("in colour; a mammogram has one sample per pixel, MONOCHROME1 or MONOCHROME2")
    if not 2 <= tags.BitsStored <= 16:
        raise DecodeError(f"{tags.BitsStored} bits stored, but only 2 to 16 can be used")
    refuse_size(tags.Rows, tags.Columns)
    texts = [*tags.get("ImageType", ()), str(tags.get("SeriesDescription") or "")]
    for sequence in ("ViewModifierCodeSequence", "AnatomicRegionSequence"):
        texts += [str(item.get("CodeMeaning") or "") for item in tags.get(sequence) or ()]
    match = next((match for text in texts if (match := _NO_MAMMOGRAM.search(str(text)))), None)
    if match:
        raise DecodeError(f"tagged as {match[0].lower()}, which is no screening view; leave it out of the source")
