"""One film in every transfer syntax that mammoflow decodes, as DICOM, for tests.

What no encoder at hand can write stands ready in streams/, made with imagecodecs 2026.3.6 from `FILM`: HTJ2K (OpenJPH),
JPEG-LS (CharLS), JPEG baseline, extended and lossless with predictor 4 (libjpeg-turbo).
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from small_dicom import breast, dicom

from mammoflow.data.phantom import dicom as phantom_dicom

STREAMS = Path(__file__).parent / "streams"
FILM = breast(48, 32)
"""16 bits; the others are its highest 12 or 8."""
IDENTITY = phantom_dicom.Identity(patient="x", description="y", study="1.2", series="1.3", instance="1.4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A DICOM file and what it should decode to."""

    data: bytes
    stored: NDArray[np.uint16]
    bits: int = 16
    error: int = 0
    """How far off its values may be."""


def with_stream(film: NDArray, bits: int, syntax: UID, stream: bytes, **tags) -> bytes:
    """A DICOM file around a compressed stream."""
    item = pydicom.dcmread(BytesIO(dicom(film, bits, **tags)))
    item.file_meta.TransferSyntaxUID = syntax
    item.PixelData = encapsulate([stream])
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True
    return saved(item)


def saved(item: pydicom.Dataset) -> bytes:
    out = BytesIO()
    item.save_as(out)
    return out.getvalue()


def uncompressed(film: NDArray, syntax: UID) -> bytes:
    item = pydicom.dcmread(BytesIO(dicom(film)))
    item.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        item.PixelData = film.astype(">u2").tobytes()
    out = BytesIO()
    little = syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(out, item, little_endian=little, implicit_vr=syntax == ImplicitVRLittleEndian, force_encoding=True)
    return out.getvalue()


def jpeg_2000(film: NDArray, *, boxes: bool = False, **options) -> bytes:
    """A stream by Pillow: `signed`, `irreversible`, `num_resolutions` and others are its options."""
    out = BytesIO()
    Image.fromarray(film).save(out, "JPEG2000", no_jp2=not boxes, **options)
    return out.getvalue()


def every_syntax() -> dict[str, Encoded]:
    """The same film by name of the syntax."""
    ready = {
        "htj2k lossless": ("htj2k_lossless.j2c", HTJ2KLossless, 16, 0),
        "htj2k lossless, 12 bits": ("htj2k_lossless_12.j2c", HTJ2KLossless, 12, 0),
        "htj2k lossless rpcl": ("htj2k_lossless.j2c", HTJ2KLosslessRPCL, 16, 0),
        "htj2k": ("htj2k_lossy.j2c", HTJ2K, 16, 60),
        "jpeg baseline": ("jpeg_baseline_8.jpg", JPEGBaseline8Bit, 8, 5),
        "jpeg extended, 8 bits": ("jpeg_baseline_8.jpg", JPEGExtended12Bit, 8, 5),
        "jpeg extended, 12 bits": ("jpeg_extended_12.jpg", JPEGExtended12Bit, 12, 60),
        "jpeg lossless, predictor 4": ("jpeg_lossless_p4.jpg", JPEGLossless, 16, 0),
        "jpeg-ls": ("jpegls_lossless.jls", JPEGLSLossless, 16, 0),
        "jpeg-ls, 12 bits": ("jpegls_lossless_12.jls", JPEGLSLossless, 12, 0),
        "jpeg-ls near": ("jpegls_near.jls", JPEGLSNearLossless, 16, 3),
    }
    found = {}
    for name, (file, syntax, bits, error) in ready.items():
        stored = FILM >> (16 - bits)
        container = stored.astype(np.uint8) if bits == 8 else stored
        data = with_stream(container, bits, syntax, (STREAMS / file).read_bytes())
        found[name] = Encoded(data=data, stored=stored, bits=bits, error=error)
    for name, syntax in (
        ("implicit", ImplicitVRLittleEndian),
        ("big endian", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        found[name] = Encoded(data=uncompressed(FILM, syntax), stored=FILM)
    for codec, syntax in phantom_dicom.SYNTAXES.items():
        for bits in (16, 8) if syntax != JPEGLosslessSV1 else (16,):
            film = FILM if bits == 16 else (FILM >> 8).astype(np.uint8)
            data = phantom_dicom.encode(film, codec, IDENTITY)
            found[f"{codec}, {bits} bits"] = Encoded(data=data, stored=film.astype(np.uint16), bits=bits)
    found["rle by pydicom"] = Encoded(data=run_lengths(FILM), stored=FILM)
    boxes = with_stream(FILM, 16, JPEG2000Lossless, jpeg_2000(FILM, boxes=True))
    found["jpeg 2000 in boxes"] = Encoded(data=boxes, stored=FILM)
    lossy = with_stream(FILM, 16, JPEG2000, jpeg_2000(FILM, irreversible=True, quality_mode="dB", quality_layers=[70]))
    found["jpeg 2000 lossy"] = Encoded(data=lossy, stored=FILM, error=100)
    return found


def run_lengths(film: NDArray) -> bytes:
    item = pydicom.dcmread(BytesIO(dicom(film)))
    item.compress(RLELossless, encoding_plugin="pydicom")
    return saved(item)


EVERY = every_syntax()
