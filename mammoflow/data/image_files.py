"""Read one image file: its pixels, unsigned and with air dark, before any reduction. No Ray.

Shape letters: h, w rows and columns of the file [px].
"""

from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
import pyarrow as pa
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mammoflow.config import ImageConfig
from mammoflow.data.dicom import reader
from mammoflow.data.dicom.quiet import quiet
from mammoflow.data.dicom.reader import FULL, Identity, Raw, refuse_size
from mammoflow.errors import DecodeError, naming
from mammoflow.lake import stores

MAX_BYTES = 2**30
"""Larger files are refused unread; an uncompressed film of 50 million pixels takes a tenth of it."""

_DEFLATED = 1032
"""Largest compression ratio of deflate, the only compression of PNG."""
_OTHER_FORMATS = (b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"P5", b"\xff\xd8\xff")
_OPENERS: dict[bytes, Callable[[BytesIO], ImageFile]] = {
    b"\x89P": PngImageFile,
    b"II": TiffImageFile,
    b"MM": TiffImageFile,
    b"P5": PpmImageFile,
    b"\xff\xd8": JpegImageFile,
}
_NOBODY = Identity(patient_id=None, laterality=None, view=None, vendor=None)


def read(path: str, images: ImageConfig) -> Raw:
    """Read one image file: `parse` what `fetch` returns, and name the file in errors."""
    with naming(path):
        return parse(fetch(path), images)


def parse(data: bytes, images: ImageConfig) -> Raw:
    """Decode the bytes of one image file: DICOM, PNG, TIFF, PGM or JPEG, 8 to 16 bits.

    Args:
        data: the whole file.
        images: its intensity policy and window.

    Raises:
        DecodeError: the file is damaged, of another format, in colour, of several frames, without pixels, too large, or
            no mammogram; or it lacks the window that the intensity policy needs.
    """
    if not data:
        raise DecodeError("the file is empty; fetch it again")
    if reader.is_dicom(data):
        return reader.read(data, images)
    if data.startswith(_OTHER_FORMATS):
        return _parse_other(data, images)
    raise DecodeError("neither DICOM (`DICM` at byte 128) nor PNG, TIFF, PGM or JPEG; convert it to one of them")


def fetch(path: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: local path or URL.

    Raises:
        DecodeError: it is absent, too large or can't be read.
    """
    try:
        fs, inner = stores.filesystem(path)
        with fs.open_input_file(inner) as stream:
            if stream.size() > MAX_BYTES:
                raise DecodeError(f"{stream.size():,} bytes, but at most {MAX_BYTES:,} can be used")
            return bytes(stream.read())
    except FileNotFoundError as error:
        raise DecodeError("no such file; fetch it") from error
    except (OSError, pa.ArrowException) as error:
        raise DecodeError(f"can't be read ({error}); check permissions and the disk") from error


def _parse_other(data: bytes, images: ImageConfig) -> Raw:
    if images.intensity == "window":
        raise DecodeError("only DICOM files have a window; use --images.intensity full_range or percentile")
    height, width = _check_header(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DecodeError(f"damaged image ({error.err}); fetch the file again") from error
    if image is None:
        raise DecodeError("a damaged or unsupported PNG, TIFF, PGM or JPEG; fetch or convert it again")
    if image.ndim == 3 and image.shape[2] >= 3 and (image[..., :3] == image[..., :1]).all():
        image = image[..., 0]  # grey saved as colour
    if image.ndim != 2:
        raise DecodeError("in colour; a mammogram is grey, so save it with one channel")
    if image.dtype not in (np.uint8, np.uint16):
        raise DecodeError(f"pixels of type {image.dtype}, but only unsigned 8 or 16 bits can be used; convert it")
    if image.shape != (height, width):
        size = "x".join(str(side) for side in image.shape)
        raise DecodeError(f"{size} pixels where its header says {height}x{width}; fetch the file again")
    largest = 255 if image.dtype == np.uint8 else FULL
    return Raw(pixels=image, largest=largest, height=height, width=width, identity=_NOBODY)


def _check_header(data: bytes) -> tuple[int, int]:
    """Return rows and columns from the header; refuse several frames and too large sizes before allocating memory.

    Pillow's format classes read the header alone, without `Image.open`, whose size limit is lower than ours.
    """
    try:
        with quiet(), _OPENERS[data[:2]](BytesIO(data)) as image:
            width, height = image.size
            bands, deep = len(image.getbands()), "16" in image.mode
            frames = getattr(image, "n_frames", 1)
    except Exception as error:  # it raises anything on damaged files
        raise DecodeError(f"a damaged header ({type(error).__name__}); fetch or convert it again") from error
    refuse_size(height, width * bands)
    least = height * width * bands * (16 if deep else 1) // 8  # bytes, at the fewest bits per value
    if data.startswith(b"\x89PNG") and (least > _DEFLATED * len(data) or not _has_all_chunks(data)):
        raise DecodeError(f"{height}x{width} pixels can't be in {len(data):,} bytes; fetch the file again")
    if frames != 1:
        raise DecodeError(f"{frames} frames, but only single images can be used")
    return height, width


def _has_all_chunks(png: bytes) -> bool:
    """Tell whether every chunk of a PNG, up to the last, lies within the file: OpenCV allocates what a chunk claims."""
    at = 8
    while at + 12 <= len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        at += 12 + length
        if kind == b"IEND":
            return at <= len(png)
    return False
