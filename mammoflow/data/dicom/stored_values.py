"""Decode the pixel data of a DICOM file into its stored values, and check it against the header. No Ray.

Shape letters: h, w rows and columns of the file [px], or of a reduced resolution.

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
"""Larger images are refused before allocating memory; the largest mammograms have about 50 million pixels."""

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
"""libjpeg-turbo and CharLS, four to six times as fast as pylibjpeg's libjpeg. GDCM crashes the process on some damaged
streams; Pillow reads neither 12-bit JPEG nor lossless JPEG."""
_JPEG_2000 = "pylibjpeg"
"""OpenJPEG, through pydicom, which handles signed values."""


def refuse_size(height: int, width: int) -> None:
    """Refuse an image that is empty or too large, before allocating memory for it.

    Raises:
        DecodeError: no pixels, or more than MAX_PIXELS.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise DecodeError(f"{height}x{width} pixels, but 1 to {MAX_PIXELS:,} can be used")


def decode(tags: pydicom.Dataset, least: tuple[int, int] | None) -> NDArray[Any]:
    """Return the stored values, signed if the header says so, with unused bits cleared.

    Args:
        tags: the data set of a single grey image.
        least: fewest rows and columns a reduced resolution may have; None for full resolution.

    Returns:
        (h, w) at full resolution, or at the smallest resolution of a JPEG 2000 stream that has at least `least`.

    Raises:
        DecodeError: no decoder for this transfer syntax, or the pixel data does not match the header.
    """
    syntax = UID(str(tags.file_meta.TransferSyntaxUID))
    shift = _shift(tags)
    if syntax in _NATIVE:
        _refuse_length(tags)
        stored_hw = _by_pydicom(tags, int(tags.HighBit) + 1, "")
    elif syntax == RLELossless:
        stored_hw = _run_lengths(tags)
    elif syntax in streams.KINDS:
        if shift:
            raise DecodeError(
                f"high bit {tags.HighBit} with {tags.BitsStored} bits stored, but compressed images must store the low "
                "bits; fetch or convert it again"
            )
        return _decode_stream(tags, _stream(tags, syntax), least)
    else:
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise DecodeError(f"no decoder for {name}; convert it, e.g. to Explicit VR Little Endian")
    return stored_hw >> shift if shift else stored_hw


def _shift(tags: pydicom.Dataset) -> int:
    """Return the position of the lowest stored bit; refuse impossible combinations.

    Source: DICOM PS3.5 8.1.1. Old files keep overlays in the unused bits.
    """
    allocated, bits, high = int(tags.BitsAllocated), int(tags.BitsStored), int(tags.get("HighBit", tags.BitsStored - 1))
    if allocated not in (8, 16, 32) or not bits - 1 <= high < allocated:
        raise DecodeError(
            f"{bits} bits stored up to bit {high} of {allocated} allocated, but they must fit into 8, 16 or 32; "
            "fetch or convert it again"
        )
    if tags.PixelRepresentation not in (0, 1):
        raise DecodeError("pixel representation is neither 0 (unsigned) nor 1 (signed); fetch or convert it again")
    tags.HighBit = high
    return high + 1 - bits


def _refuse_length(tags: pydicom.Dataset) -> None:
    """Refuse uncompressed pixel data whose length does not match the header; up to one row of zeros may follow."""
    row = int(tags.Columns) * int(tags.BitsAllocated) // 8
    expected, length = int(tags.Rows) * row, len(tags.PixelData)
    if length < expected or length - expected > max(row, 1) or bytes(tags.PixelData[expected:]).strip(b"\0"):
        raise DecodeError(
            f"{length:,} bytes of pixels where its header's {tags.Rows}x{tags.Columns} take {expected:,}; "
            "fetch the file again"
        )


def _by_pydicom(tags: pydicom.Dataset, bits: int, plugin: str) -> NDArray[Any]:
    """Decode with BitsStored set to `bits` for the call: pydicom clears the bits above it."""
    original, tags.BitsStored = tags.BitsStored, bits
    try:
        stored_hw: NDArray[Any] = pixel_array(tags, decoding_plugin=plugin)
    finally:
        tags.BitsStored = original
    return stored_hw


def _run_lengths(tags: pydicom.Dataset) -> NDArray[Any]:
    """Decode RLE, and clear the bits above the stored ones, as pydicom does. Source: DICOM PS3.5, annex G.

    pydicom's own decoder expands a whole segment before it checks the length, so a small file can exhaust memory. Here
    each segment, which holds one byte of every pixel, gets a buffer for exactly the header's pixels.

    Raises:
        PackbitsError, struct.error: a run is cut off, or the frame has no header.
    """
    rows, columns, width = int(tags.Rows), int(tags.Columns), int(tags.BitsAllocated) // 8
    frame = get_frame(tags.PixelData, 0, number_of_frames=1)
    count, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1:count], len(frame)]
    if count != width or not all(64 <= start <= end for start, end in zip(starts, ends, strict=False)):
        raise DecodeError(f"its RLE header does not describe {8 * width}-bit pixels; fetch the file again")
    bytes_hw = [_unrolled(frame[start:end], rows, columns) for start, end in zip(starts, ends, strict=False)]
    kind = "i" if tags.PixelRepresentation else "u"
    stored_hw = cv2.merge(bytes_hw[::-1]).view(f"<{kind}{width}").reshape(rows, columns)  # the highest byte came first
    return _cleared(stored_hw, int(tags.HighBit) + 1)


def _unrolled(segment: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """Decode one RLE segment, which must hold one byte per pixel; one padding byte may follow."""
    room = np.empty(rows * columns, np.uint8)
    try:
        values = imagecodecs.packbits_decode(segment, out=room.data)
    except imagecodecs.PackbitsError as error:
        if "OUTPUT_TOO_SMALL" not in str(error):
            raise
        raise DecodeError(
            f"its pixel data has more than the {rows}x{columns} pixels of its header; fetch the file again"
        ) from None
    if len(values) < room.size:
        raise DecodeError(
            f"its pixel data has fewer than the {rows}x{columns} pixels of its header; fetch the file again"
        )
    return room.reshape(rows, columns)


def _cleared(stored_hw: NDArray[Any], bits: int) -> NDArray[Any]:
    """Keep the lowest `bits` bits and clear the others; in signed values, fill them with the sign."""
    unused = stored_hw.itemsize * 8 - bits
    return (stored_hw << unused) >> unused if unused else stored_hw


def _stream(tags: pydicom.Dataset, syntax: str) -> Stream:
    """Return the compressed frame; refuse one whose kind, size or depth differs from the header.

    A decoder would guess, or allocate whatever the stream asks for.
    """
    kinds = streams.KINDS[syntax]
    stream = streams.parse(get_frame(tags.PixelData, 0, number_of_frames=1))
    if stream is None or stream.kind not in kinds:
        kind = stream.kind if stream else "of no known kind"
        raise DecodeError(f"its header says {kinds[0]}, its stream is {kind}; fetch or convert it again")
    if (stream.rows, stream.columns) != (tags.Rows, tags.Columns):
        raise DecodeError(
            f"its header says {tags.Rows}x{tags.Columns} pixels, its stream {stream.rows}x{stream.columns}; "
            "fetch or convert it again"
        )
    if stream.components != 1 or not 2 <= stream.precision <= min(int(tags.BitsAllocated), 16):
        raise DecodeError(
            f"its stream has {stream.components} components of {stream.precision} bits, but its header allows 1 "
            f"of at most {tags.BitsAllocated}; fetch or convert it again"
        )
    if not streams.ends(stream):
        raise DecodeError("its stream is cut off: it has no end marker; fetch the file again")
    return stream


def _decode_stream(tags: pydicom.Dataset, stream: Stream, least: tuple[int, int] | None) -> NDArray[Any]:
    level = _level(tags, stream, least) if least else 0
    if level:
        return _reduced(stream, level)
    decode = _DECODERS.get(stream.kind)
    if decode:
        kind = "i" if tags.PixelRepresentation else "u"
        wide_hw = np.asarray(decode(stream.data)).astype(f"u{int(tags.BitsAllocated) // 8}", copy=False)
        stored_hw = _cleared(wide_hw.view(wide_hw.dtype.str.replace("u", kind)), int(tags.BitsStored))
    else:
        # without the boxes of a JP2 file, which can trap pydicom in an endless loop
        tags.PixelData = encapsulate([stream.data])
        stored_hw = _by_pydicom(tags, int(tags.BitsStored), _JPEG_2000)
    if stored_hw.shape != (tags.Rows, tags.Columns):
        size = "x".join(str(side) for side in stored_hw.shape)
        raise DecodeError(f"{size} pixels where its header says {tags.Rows}x{tags.Columns}")
    return stored_hw


def _level(tags: pydicom.Dataset, stream: Stream, least: tuple[int, int]) -> int:
    """Return how often the stream may be halved: 0 if reduced values could differ in meaning from full ones."""
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

    Along each axis, a reduced value sits at the first of the 2**level values it replaces, not at their centre. Linear
    interpolation moves it to the centre, because outlines refer to the film's own pixels. If 2**level does not divide a
    side, the last value covers fewer pixels, and the image shrinks by less than 2**level px of the film.
    """
    image = Jpeg2KImageFile(BytesIO(stream.data))
    # Pillow rounds reduced sizes to nearest and then rejects OpenJPEG's, which are rounded up: use a multiple
    image._size = tuple(-(-side // 2**level) * 2**level for side in (stream.columns, stream.rows))
    image.reduce = level
    image.load()
    container = 8 if stream.precision <= 8 else 16
    # Pillow puts the values into the high bits of its 8 or 16
    values_hw: NDArray[Any] = np.asarray(image) >> (container - stream.precision)
    share = (2**level - 1) / 2 ** (level + 1)
    taps = np.array([1 - share, share], np.float32)
    values_hw = cv2.sepFilter2D(values_hw, -1, taps, taps, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    if stream.signed:
        values_hw = (values_hw.astype(np.int32) - 2 ** (stream.precision - 1)).astype(np.int16)
    return values_hw
