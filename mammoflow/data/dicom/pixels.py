"""The pixel data of a DICOM file -> the values stored there, held against what its header says. No Ray.

Shape letters: h, w rows and columns of the file [px], or of a reduced resolution of it.

Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 8 and A.4 (encoding).
"""

import struct
from io import BytesIO
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from mammoflow.data.dicom import streams
from mammoflow.data.dicom.streams import Stream
from mammoflow.errors import DecodeError

MAX_PIXELS = 200_000_000
"""Larger images are refused before anything is allocated; the largest mammograms have about 50 million pixels."""

_NATIVE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
_JPEG = imagecodecs.jpeg8_decode
_DECODERS = {
    "JPEG baseline": _JPEG,
    "JPEG extended": _JPEG,
    "JPEG lossless": _JPEG,
    "JPEG-LS": imagecodecs.jpegls_decode,
}
"""libjpeg-turbo and CharLS, four to six times as fast as pylibjpeg's libjpeg. GDCM ends the process on some damaged
streams; Pillow reads no JPEG of 12 bits and no JPEG lossless."""
_JPEG_2000 = "pylibjpeg"
"""OpenJPEG, and what pydicom makes of signed values."""


def refuse_size(path: str, height: int, width: int) -> None:
    """Refuse an image that is too large, before anything is allocated.

    Raises:
        DecodeError: more than MAX_PIXELS, or none.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise DecodeError(f"{path}: {height}x{width} pixels, but 1 to {MAX_PIXELS:,} can be used")


def stored(path: str, tags: pydicom.Dataset, least: tuple[int, int] | None) -> NDArray[Any]:
    """Return the stored values, signed where the header says so, without the bits beside those stored.

    Args:
        path: named in errors.
        tags: a header that was found to be that of a single grey image.
        least: rows and columns that a reduced resolution must have to be good enough; None for the full one.

    Returns:
        (h, w): of the file, or of the smallest resolution of a JPEG 2000 stream that is not below `least`.

    Raises:
        DecodeError: no decoder for this transfer syntax, or pixel data that does not match the header.
    """
    syntax = UID(str(tags.file_meta.TransferSyntaxUID))
    shift = _shift(path, tags)
    if syntax in _NATIVE:
        _refuse_length(path, tags)
        stored_hw = _by_pydicom(tags, int(tags.HighBit) + 1, "")
    elif syntax == RLELossless:
        stored_hw = _run_lengths(path, tags)
    elif syntax in streams.KINDS:
        if shift:
            raise DecodeError(f"{path}: the high bit is {tags.HighBit} of {tags.BitsStored} bits in a compressed image")
        return _of_stream(path, tags, _stream(path, tags, syntax), least)
    else:
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise DecodeError(f"{path}: no decoder for {name}; convert it, e.g. to Explicit VR Little Endian")
    return stored_hw >> shift if shift else stored_hw


def _shift(path: str, tags: pydicom.Dataset) -> int:
    """Return how far above the lowest bit the stored ones begin; refuse bits that can't be.

    Source: DICOM PS3.5 8.1.1; bits beside those stored held overlays once.
    """
    allocated, bits, high = int(tags.BitsAllocated), int(tags.BitsStored), int(tags.get("HighBit", tags.BitsStored - 1))
    if allocated not in (8, 16, 32) or not bits - 1 <= high < allocated:
        raise DecodeError(
            f"{path}: {bits} bits stored up to bit {high} of {allocated} allocated; 8, 16 or 32 must hold them"
        )
    if tags.PixelRepresentation not in (0, 1):
        raise DecodeError(f"{path}: a pixel representation of neither 0 (unsigned) nor 1 (signed)")
    tags.HighBit = high
    return high + 1 - bits


def _refuse_length(path: str, tags: pydicom.Dataset) -> None:
    """Refuse uncompressed pixels of another number than the header says; zeros of up to a row may fill up."""
    row = int(tags.Columns) * int(tags.BitsAllocated) // 8
    expected, found = int(tags.Rows) * row, len(tags.PixelData)
    if found < expected or found - expected > max(row, 1) or bytes(tags.PixelData[expected:]).strip(b"\0"):
        raise DecodeError(
            f"{path}: {found:,} bytes of pixels where its header's {tags.Rows}x{tags.Columns} take {expected:,}; "
            "fetch the file again"
        )


def _by_pydicom(tags: pydicom.Dataset, bits: int, plugin: str) -> NDArray[Any]:
    """Decode as if so many bits were stored: pydicom clears those above."""
    said, tags.BitsStored = tags.BitsStored, bits
    try:
        stored_hw: NDArray[Any] = pixel_array(tags, decoding_plugin=plugin)
    finally:
        tags.BitsStored = said
    return stored_hw


def _run_lengths(path: str, tags: pydicom.Dataset) -> NDArray[Any]:
    """Decode RLE, and clear the bits above the stored ones as pydicom does. Source: DICOM PS3.5, annex G.

    pydicom's own decoder unrolls whatever a segment holds before it counts, so that a small file may take all memory;
    here each segment, one byte of every pixel, has room for just the pixels of the header.

    Raises:
        PackbitsError, struct.error: a run is cut off, or the frame has no header.
    """
    rows, columns, width = int(tags.Rows), int(tags.Columns), int(tags.BitsAllocated) // 8
    frame = get_frame(tags.PixelData, 0, number_of_frames=1)
    count, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1:count], len(frame)]
    if count != width or not all(64 <= start <= end for start, end in zip(starts, ends, strict=False)):
        raise DecodeError(f"{path}: its run lengths are not those of {8 * width} bits; fetch the file again")
    bytes_hw = [_unrolled(path, frame[start:end], rows, columns) for start, end in zip(starts, ends, strict=False)]
    kind = "i" if tags.PixelRepresentation else "u"
    stored_hw = cv2.merge(bytes_hw[::-1]).view(f"<{kind}{width}").reshape(rows, columns)  # the highest byte came first
    return _cleared(stored_hw, int(tags.HighBit) + 1)


def _unrolled(path: str, segment: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """Decode one segment of run lengths, which must hold one byte for each pixel, and may hold one to fill up."""
    room = np.empty(rows * columns, np.uint8)
    try:
        values = imagecodecs.packbits_decode(segment, out=room.data)
    except imagecodecs.PackbitsError as error:
        if "OUTPUT_TOO_SMALL" not in str(error):
            raise
        raise DecodeError(
            f"{path}: more than the {rows}x{columns} pixels of its header; fetch the file again"
        ) from None
    if len(values) < room.size:
        raise DecodeError(f"{path}: fewer than the {rows}x{columns} pixels of its header; fetch the file again")
    return room.reshape(rows, columns)


def _cleared(stored_hw: NDArray[Any], bits: int) -> NDArray[Any]:
    """Clear the bits above the lowest so many; of signed values, fill them with the sign."""
    unused = stored_hw.itemsize * 8 - bits
    return (stored_hw << unused) >> unused if unused else stored_hw


def _stream(path: str, tags: pydicom.Dataset, syntax: str) -> Stream:
    """Return the compressed frame; refuse one of another kind, size or depth than the header says.

    A decoder would guess, or reserve what the stream asks for.
    """
    kinds = streams.KINDS[syntax]
    stream = streams.parse(get_frame(tags.PixelData, 0, number_of_frames=1))
    if stream is None or stream.kind not in kinds:
        found = stream.kind if stream else "none that is known"
        raise DecodeError(f"{path}: its header says {kinds[0]}, its stream is {found}; fetch or convert it again")
    if (stream.rows, stream.columns) != (tags.Rows, tags.Columns):
        raise DecodeError(
            f"{path}: its header says {tags.Rows}x{tags.Columns} pixels, its stream {stream.rows}x{stream.columns}; "
            "fetch or convert it again"
        )
    if stream.components != 1 or not 2 <= stream.precision <= min(int(tags.BitsAllocated), 16):
        raise DecodeError(
            f"{path}: {stream.components} components of {stream.precision} bits in its stream, but its header says 1 "
            f"of {tags.BitsAllocated} at most; fetch or convert it again"
        )
    if not streams.ends(stream):
        raise DecodeError(f"{path}: its stream is cut off: it has no end marker; fetch the file again")
    return stream


def _of_stream(path: str, tags: pydicom.Dataset, stream: Stream, least: tuple[int, int] | None) -> NDArray[Any]:
    level = _level(tags, stream, least) if least else 0
    if level:
        return _reduced(stream, level)
    decode = _DECODERS.get(stream.kind)
    if decode:
        kind = "i" if tags.PixelRepresentation else "u"
        wide_hw = np.asarray(decode(stream.data)).astype(f"u{int(tags.BitsAllocated) // 8}", copy=False)
        stored_hw = _cleared(wide_hw.view(wide_hw.dtype.str.replace("u", kind)), int(tags.BitsStored))
    else:
        # without the boxes of a JP2 file, in which pydicom may loop for ever
        tags.PixelData = encapsulate([stream.data])
        stored_hw = _by_pydicom(tags, int(tags.BitsStored), _JPEG_2000)
    if stored_hw.shape != (tags.Rows, tags.Columns):
        size = "x".join(str(side) for side in stored_hw.shape)
        raise DecodeError(f"{path}: {size} pixels where its header says {tags.Rows}x{tags.Columns}")
    return stored_hw


def _level(tags: pydicom.Dataset, stream: Stream, least: tuple[int, int]) -> int:
    """Return how often the stream may be halved; not where reduced values could mean something else than full ones."""
    if stream.signed != bool(tags.PixelRepresentation) or stream.precision > tags.BitsStored:
        return 0
    fitting = (
        level
        for level in range(stream.levels, 0, -1)
        if -(-stream.rows // 2**level) >= least[0] and -(-stream.columns // 2**level) >= least[1]
    )
    return next(fitting, 0)


def _reduced(stream: Stream, level: int) -> NDArray[Any]:
    """Decode a reduced resolution of JPEG 2000, halved `level` times. Source: ITU-T T.800 B.5 (resolution levels).

    Each of its values stands where the first of the 2**level values it replaces stood, per axis, not in their middle;
    they are moved there between neighbours, for outlines lie on the film's own pixels. Where 2**level does not divide a
    side, the last value stands for fewer pixels, and the picture shrinks by less than 2**level px of the film.
    """
    image = Jpeg2KImageFile(BytesIO(stream.data))
    # Pillow rounds reduced sizes to nearest, then refuses OpenJPEG's, rounded up: a size that both divide alike
    image._size = tuple(-(-side // 2**level) * 2**level for side in (stream.columns, stream.rows))
    image.reduce = level
    image.load()
    container = 8 if stream.precision <= 8 else 16
    values_hw: NDArray[Any] = np.asarray(image) >> (
        container - stream.precision
    )  # Pillow fills its 8 or 16 bits from above
    share = (2**level - 1) / 2 ** (level + 1)
    taps = np.array([1 - share, share], np.float32)
    values_hw = cv2.sepFilter2D(values_hw, -1, taps, taps, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    if stream.signed:
        values_hw = (values_hw.astype(np.int32) - 2 ** (stream.precision - 1)).astype(np.int16)
    return values_hw
