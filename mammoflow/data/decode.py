"""One image file -> pixels and what they mean; one code path for training and for scoring. No Ray.

Shape letters: h, w rows and columns of the file [px]; H, W rows and columns of the reduced image [px].
Pixels are uint16 over the full range: 0 is air (dark), 65535 the largest value that the stored bits can hold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from mammoflow import lake
from mammoflow.config import ImageConfig
from mammoflow.errors import DecodeError

FULL = 65535
MAX_PIXELS = 200_000_000
"""Larger images are refused before anything is allocated; the largest mammograms have about 50 million pixels."""
ASPECT_TOLERANCE = 0.03
"""A mask whose aspect ratio is off by more than this share is not this film's."""
LARGEST_RESIZE = 1.5
"""A mask more than this many times larger or smaller than its film, on a side, is not this film's."""

_SUBPIXEL_BITS = 4
_SUBPIXEL = 2**_SUBPIXEL_BITS

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
_OTHER_FORMATS = (b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"P5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One image as the models see it, and what its file says of it."""

    pixels: NDArray[np.uint16]
    """(H, W), full range, air dark."""
    fit: "Fit"
    """How the file's pixels became these; lesion outlines follow the same map."""
    patient_id: str | None
    """Only where the tags hold a release's own case name (CBIS-DDSM); a hospital's id is never passed on."""
    laterality: str | None
    """L | R, or None where the file doesn't say."""
    view: str | None
    """CC | MLO | another view's code, or None where the file doesn't say."""

    @property
    def source_height(self) -> int:
        """Rows of the file [px]."""
        return self.fit.source_height

    @property
    def source_width(self) -> int:
        """Columns of the file [px]."""
        return self.fit.source_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The map from a file's pixels to the reduced image: a resize to (height, width), then air around it."""

    source_height: int
    source_width: int
    height: int
    width: int
    top: int
    left: int
    bottom: int
    right: int

    def apply(self, pixels_hw: NDArray[Any]) -> NDArray[Any]:
        """Resize by area (linear where a side grows) and pad with zeros; the dtype stays."""
        shrinks = self.height <= self.source_height and self.width <= self.source_width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        inner = cv2.resize(pixels_hw, (self.width, self.height), interpolation=how)
        return np.pad(inner, ((self.top, self.bottom), (self.left, self.right)))

    def apply_mask(self, mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Reduce an outline: the cells it covers by half, or, where there is none, the cell it covers most."""
        cover_HW = self.apply(mask_hw.astype(np.float32))
        reduced_HW = cover_HW >= 0.5
        if not reduced_HW.any():
            reduced_HW = (cover_HW == cover_HW.max()) & (cover_HW > 0)
        return np.asarray(reduced_HW, np.bool_)


def plan_fit(source_height: int, source_width: int, images: ImageConfig) -> Fit:
    """Return the map of a film of this size: `stretch` fills (H, W); `pad` keeps the aspect and centres it in air."""
    height, width = images.height, images.width
    if images.fit == "pad":
        scale = min(images.height / source_height, images.width / source_width)
        height = max(1, min(images.height, round(source_height * scale)))
        width = max(1, min(images.width, round(source_width * scale)))
    top, left = (images.height - height) // 2, (images.width - width) // 2
    return Fit(
        source_height=source_height,
        source_width=source_width,
        height=height,
        width=width,
        top=top,
        left=left,
        bottom=images.height - height - top,
        right=images.width - width - left,
    )


def load_image(path: str, images: ImageConfig) -> Decoded:
    """Read, decode and reduce one image file: DICOM, PNG, TIFF or PGM of 8 to 16 bits.

    Args:
        path: local path or URL.
        images: the target size and fit.

    Raises:
        DecodeError: the file is absent, damaged, of another format, in colour, of several frames, without pixels,
            too large, or constant.

    Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 8 (encoding); paper, methods (reduction to 1152x896).
    """
    pixels_hw, largest, identity = _read(path)
    lowest, highest = int(pixels_hw.min()), int(pixels_hw.max())
    if lowest == highest:
        raise DecodeError(f"{path}: every pixel is {lowest}, so it shows nothing; fetch the file again")
    fit = plan_fit(pixels_hw.shape[0], pixels_hw.shape[1], images)
    reduced_HW = fit.apply(pixels_hw.astype(np.float32))  # averages keep their fractions until the range is full
    full_HW = np.rint(reduced_HW.astype(np.float64) * (FULL / largest)).astype(np.uint16)
    return Decoded(pixels=full_HW, fit=fit, **identity)


@dataclass(frozen=True, slots=True)
class Outline:
    """A lesion's outline on its film."""

    mask: NDArray[np.bool_]
    """(h, w) of the film, True on the lesion."""
    note: str | None
    """What was done to it, where it was not used as it came."""


def load_mask(candidates: list[str], height: int, width: int) -> Outline:
    """Find a lesion's outline among files that may hold it, by their pixels alone.

    A mask holds two values and has the film's shape, or nearly: then it is resized and says so. A crop of the film
    is neither.

    Args:
        candidates: local paths or URLs, the likeliest first.
        height: rows of the film [px].
        width: columns of the film [px].

    Raises:
        DecodeError: no candidate is a mask of this film; says why for each.
    """
    reasons = []
    resized: list[tuple[float, NDArray[np.bool_]]] = []
    for path in candidates:
        try:
            mask = _binary(path)
            off = _misfit(path, mask, height, width)
        except DecodeError as error:
            reasons.append(str(error))
            continue
        if mask.shape == (height, width):
            return Outline(mask, None)
        resized.append((off, mask))
    if not resized:
        raise DecodeError(f"no outline of this lesion: {'; '.join(reasons) or 'no file was named'}")
    mask = min(resized, key=lambda pair: pair[0])[1]
    fitted = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    if not fitted.any():
        raise DecodeError("no outline of this lesion: it vanishes when resized to the film's size")
    return Outline(fitted, f"outline of {_size(mask)} resized to its film's {height}x{width}")


def draw_outline(vertices: Sequence[Sequence[float]], height: int, width: int, *, from_bottom: bool) -> Outline:
    """Fill a lesion's outline given by its vertices; what reaches past the film's edges is cut off.

    Args:
        vertices: (row, column) in the film's pixels.
        height: rows of the film [px].
        width: columns of the film [px].
        from_bottom: rows are counted from the lower edge.

    Raises:
        DecodeError: nothing of it lies on the film.
    """
    points_V2 = np.array(vertices, np.float64)
    if from_bottom:
        points_V2[:, 0] = height - 1 - points_V2[:, 0]
    inside = np.clip(points_V2, -1, [height, width])
    note = None if np.array_equal(inside, points_V2) else "outline cut off at the film's edge"
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(inside[:, ::-1] * _SUBPIXEL).astype(np.int32)], 1, shift=_SUBPIXEL_BITS)
    if not mask.any():
        raise DecodeError(f"no outline of this lesion: its vertices lie outside the film of {height}x{width}")
    return Outline(mask.astype(np.bool_), note)


def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """Return a mask as 1-bit PNG, as the lake keeps it."""
    _, data = cv2.imencode(".png", mask_HW.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return bytes(data.tobytes())


def decode_mask(png: bytes) -> NDArray[np.bool_]:
    """Return a 1-bit PNG as bool (H, W)."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DecodeError("an outline in the lake is no PNG; remove the artefact and decode again")
    return np.asarray(image > 0, np.bool_)


def _size(pixels: NDArray[Any]) -> str:
    return "x".join(str(side) for side in pixels.shape)


def _binary(path: str) -> NDArray[np.bool_]:
    """Read a file of exactly two values as a mask: True where the larger one is."""
    pixels_hw, _, _ = _read(path)
    lowest, highest = pixels_hw.min(), pixels_hw.max()
    if lowest == highest or not ((pixels_hw == lowest) | (pixels_hw == highest)).all():
        raise DecodeError(f"{path}: is no mask, which holds exactly two values")
    return np.asarray(pixels_hw == highest, np.bool_)


def _misfit(path: str, mask: NDArray[np.bool_], height: int, width: int) -> float:
    """Return how far a mask's shape is off its film's, 0 for equal; refuse what can't be this film's."""
    by_rows, by_columns = mask.shape[0] / height, mask.shape[1] / width
    aspect = max(by_rows / by_columns, by_columns / by_rows) - 1
    resize = max(by_rows, 1 / by_rows, by_columns, 1 / by_columns)
    if aspect > ASPECT_TOLERANCE:
        raise DecodeError(
            f"{path}: a mask of {_size(mask)} for a film of {height}x{width}, an aspect off by {aspect:.0%} where "
            f"{ASPECT_TOLERANCE:.0%} is allowed; it belongs to another film"
        )
    if resize > LARGEST_RESIZE:
        raise DecodeError(
            f"{path}: a mask of {_size(mask)} for a film of {height}x{width}, {resize:.1f} times off where "
            f"{LARGEST_RESIZE} is allowed; it belongs to another film"
        )
    return float(aspect + resize - 1)


def _read(path: str) -> tuple[NDArray[Any], int, dict[str, str | None]]:
    """Return a file's raw pixels (h, w), unsigned from 0; the largest value they may take; patient, side and view."""
    data = _read_file(path)
    if data[128:132] == b"DICM":
        return _read_dicom(path, data)
    if data.startswith(_OTHER_FORMATS):
        return _read_other(path, data)
    raise DecodeError(f"{path}: neither DICOM (`DICM` at byte 128) nor PNG, TIFF or PGM; convert it to one of them")


def _read_file(path: str) -> bytes:
    try:
        fs, inner = lake.filesystem(path)
        with fs.open_input_file(inner) as stream:
            data = bytes(stream.read())
    except FileNotFoundError as error:
        raise DecodeError(f"{path}: no such file; fetch it") from error
    except (OSError, pa.ArrowException) as error:
        raise DecodeError(f"{path}: can't be read ({error}); check permissions and the disk") from error
    if not data:
        raise DecodeError(f"{path}: the file is empty; fetch it again")
    return data


def _read_dicom(path: str, data: bytes) -> tuple[NDArray[Any], int, dict[str, str | None]]:
    try:
        tags = pydicom.dcmread(BytesIO(data))
        _refuse_kind(path, tags)
        pixels = pixel_array(tags)
        bits, signed = int(tags.BitsStored), bool(tags.PixelRepresentation)
        inverted = (tags.PhotometricInterpretation == "MONOCHROME1") != (float(tags.get("RescaleSlope") or 1) < 0)
        identity = _identity(tags)
    except DecodeError:
        raise
    except Exception as error:  # parsers and codecs raise anything on damaged files
        what = " ".join(str(error).split())[:300]
        raise DecodeError(f"{path}: damaged DICOM ({type(error).__name__}: {what}); fetch the file again") from error
    if pixels.ndim != 2 or pixels.shape != (tags.Rows, tags.Columns):
        raise DecodeError(f"{path}: {_size(pixels)} pixels where its header says {tags.Rows}x{tags.Columns}")
    largest = 2**bits - 1  # pydicom clears the bits above those stored
    if signed:
        pixels = pixels.astype(np.int32) + 2 ** (bits - 1)
    pixels = pixels.astype(np.uint8 if bits <= 8 else np.uint16, copy=False)
    return (largest - pixels if inverted else pixels), largest, identity


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
    _refuse_size(path, tags.Rows, tags.Columns)


def _refuse_size(path: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{path}: {height}x{width} pixels, but at most {MAX_PIXELS:,} can be used")


def _read_other(path: str, data: bytes) -> tuple[NDArray[Any], int, dict[str, str | None]]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DecodeError(f"{path}: damaged image ({error.err}); fetch the file again") from error
    if image is None:
        raise DecodeError(f"{path}: a damaged or unsupported PNG, TIFF or PGM; fetch or convert it again")
    if image.ndim == 3 and image.shape[2] >= 3 and (image[..., :3] == image[..., :1]).all():
        image = image[..., 0]  # grey saved as colour
    if image.ndim != 2:
        raise DecodeError(f"{path}: in colour; a mammogram is grey, so save it with one channel")
    if image.dtype not in (np.uint8, np.uint16):
        raise DecodeError(f"{path}: pixels of type {image.dtype}, but 8 or 16 bits unsigned can be used; convert it")
    _refuse_size(path, *image.shape)
    return image, 255 if image.dtype == np.uint8 else FULL, {"patient_id": None, "laterality": None, "view": None}


def read_identity(path: str) -> dict[str, str | None]:
    """Return what a DICOM file's header says: `patient_id`, `laterality`, `view` as in `Decoded`; no pixel is read.

    Raises:
        DecodeError: the file is absent or no DICOM.
    """
    try:
        fs, inner = lake.filesystem(path)
        with fs.open_input_file(inner) as stream:
            return _identity(pydicom.dcmread(stream, stop_before_pixels=True))
    except Exception as error:  # parsers raise anything on damaged files
        what = " ".join(str(error).split())[:300]
        raise DecodeError(f"{path}: damaged DICOM ({type(error).__name__}: {what}); fetch the file again") from error


def _coded_view(tags: pydicom.Dataset) -> str | None:
    """Return the view of ViewCodeSequence. Source: DICOM PS3.16, CID 4014."""
    for item in tags.get("ViewCodeSequence") or ():
        code = str(item.get("CodeValue") or "")
        if code in _VIEW_CODES:
            return _VIEW_CODES[code]
    return None


def _identity(tags: pydicom.Dataset) -> dict[str, str | None]:
    """Return patient, side and view by the tags; by the case name in PatientID where CBIS-DDSM leaves tags out."""
    case = _CASE_NAME.match(str(tags.get("PatientID") or ""))
    side = str(tags.get("ImageLaterality") or tags.get("Laterality") or (case and case[2]) or "")
    view = str(tags.get("ViewPosition") or _coded_view(tags) or (case and case[3]) or "")
    return {
        "patient_id": case[1] if case else None,
        "laterality": {"L": "L", "R": "R", "LEFT": "L", "RIGHT": "R"}.get(side.upper()),
        "view": view.upper() or None,
    }
