"""Damaged image files from seeds, and a process apart that reads them: what ends it, or takes too long, is found here.

python tests/support/damage.py FIRST LAST FOLDER     # reads files FIRST to LAST - 1; a JSON line before and after each
"""

import json
import re
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path

import cv2
import encoded
import numpy as np
import pydicom
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless
from small_dicom import breast

from mammoflow.config import ImageConfig
from mammoflow.data import decode
from mammoflow.data.dicom import streams
from mammoflow.errors import DecodeError

POLICIES = [
    ImageConfig(height=64, width=64, intensity=intensity, face=face, reduced=reduced)
    for intensity in ("full_range", "window", "percentile")
    for face in ("as_is", "right")
    for reduced in (False, True)
]
TIME_LIMIT = 10.0
"""Seconds a file."""
SYNTAXES = (
    *(f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99", ".5", ".4.100", ".4.94", ".4.204")),
    *streams.KINDS,
)
NUMBERS = (0, 1, 2, 7, 8, 12, 15, 16, 17, 31, 33, 47, 64, 255, 256, 4095, 32767, 65535)
WORDS = ("", "x", "1e400", "-1e400", "nan", "9" * 16, "A\\B\\C", "0", "-1", "1e-300", "\\", "MONOCHROME", "é^\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """One file and what may come of it."""

    kind: str
    data: bytes
    policy: ImageConfig
    suffix: str = ".dcm"
    whole: bytes | None = None
    """The file undamaged: if there is an image, it is this one's; None where any image may come."""
    refused: bool = False
    """No image may come of it."""


@cache
def bases() -> dict[str, bytes]:
    every = {name: one.data for name, one in encoded.EVERY.items()}
    film = breast(192, 128)
    stream = encoded.jpeg_2000(film)
    return every | {"jpeg 2000, larger": encoded.with_stream(film, 16, JPEG2000Lossless, stream)}


def make(seed: int) -> Damaged:
    """The damaged file of a seed."""
    rng = np.random.default_rng(seed)
    kinds = (flips, pixel_flips, truncation, pixel_header, other_syntax, grey_tags, names, other_format)
    policy = POLICIES[int(rng.integers(len(POLICIES)))]
    name = sorted(bases())[int(rng.integers(len(bases())))]
    return kinds[seed % len(kinds)](bases()[name], policy, rng, name)


def flips(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Bytes changed anywhere."""
    return Damaged(kind="flips", data=changed_bytes(data, 0, len(data), rng), policy=policy)


def changed_bytes(data: bytes, first: int, last: int, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in rng.integers(first, last, int(rng.integers(1, 30))):
        out[at] = int(rng.integers(256))
    return bytes(out)


def pixel_flips(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Bytes changed within the pixel data, half of the time at its start: headers of streams."""
    element = pydicom.dcmread(BytesIO(data))["PixelData"]
    first = max(data.rfind(element.value[:64]), 132)
    last = min(len(data), first + 200) if rng.integers(2) else len(data)
    return Damaged(kind="pixel flips", data=changed_bytes(data, first, last, rng), policy=policy)


def truncation(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    cut = data[: int(rng.integers(1, len(data)))]
    return Damaged(kind="truncation", data=cut, policy=policy, whole=data)


def pixel_header(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Another number in what decides how pixels are read; of some, no image can come."""
    tags = pydicom.dcmread(BytesIO(data))
    keywords = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation")
    keyword = (*keywords, "NumberOfFrames", "PhotometricInterpretation")[int(rng.integers(len(keywords) + 2))]
    before = tags.get(keyword)
    if keyword == "PhotometricInterpretation":
        value = ("RGB", "MONOCHROME", "MONOCHROME1", "YBR_FULL", "")[int(rng.integers(5))]
    else:
        value = int(NUMBERS[int(rng.integers(len(NUMBERS)))])
    setattr(tags, keyword, value)
    sure = keyword in ("Rows", "Columns", "SamplesPerPixel") or (keyword == "NumberOfFrames" and value > 1)
    return Damaged(kind=f"header: {keyword}", data=encoded.saved(tags), policy=policy, refused=sure and value != before)


def other_syntax(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Another transfer syntax of the same length of name, as far as there is one; the rest stays."""
    own = str(pydicom.dcmread(BytesIO(data), stop_before_pixels=True).file_meta.TransferSyntaxUID)
    other = SYNTAXES[int(rng.integers(len(SYNTAXES)))]
    size = len(own) + len(own) % 2
    other = other[:size].ljust(size, "\0")
    return Damaged(
        kind="syntax", data=data.replace(own.encode().ljust(size, b"\0"), other.encode(), 1), policy=policy, whole=data
    )


def grey_tags(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Garbage in windows, LUTs, rescale and padding."""
    tags = pydicom.dcmread(BytesIO(data))
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [int(rng.choice(NUMBERS)) for _ in range(int(rng.integers(1, 4)))]
    lut["LUTDescriptor"].VR = "US"
    lut.LUTData = [int(rng.choice(NUMBERS)) for _ in range(int(rng.integers(0, 6)))]
    lut["LUTData"].VR = "US"
    number = lambda: float(rng.choice([0, 1, -1, 1e-9, 4e4, -4e4, 1e30, 2000]))  # noqa: E731
    choices = {
        "WindowCenter": number,
        "WindowWidth": number,
        "RescaleSlope": number,
        "RescaleIntercept": number,
        "PixelPaddingValue": lambda: int(rng.choice(NUMBERS)),
        "PixelPaddingRangeLimit": lambda: int(rng.choice(NUMBERS)),
        "VOILUTSequence": lambda: [lut],
        "ModalityLUTSequence": lambda: [lut],
        "VOILUTFunction": lambda: str(rng.choice(["SIGMOID", "LINEAR_EXACT", "NONE"])),
    }
    for keyword in rng.choice(list(choices), int(rng.integers(1, 5)), replace=False):
        setattr(tags, keyword, choices[keyword]())
        if keyword.startswith("PixelPadding"):
            tags[keyword].VR = "US"
    return Damaged(kind="grey tags", data=encoded.saved(tags), policy=policy)


def names(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """Garbage in what says nothing of pixels; the image stays, or the file is refused."""
    tags = pydicom.dcmread(BytesIO(data))
    texts = (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientAge",
        "StudyTime",
        "SeriesDescription",
        "StationName",
    )
    for keyword in rng.choice(texts, 3, replace=False):
        tags.add_new(Tag(keyword), "LT", str(rng.choice(WORDS)))
    for _ in range(3):
        tag = Tag(int(rng.integers(9, 0x20, dtype=int)) | 1, int(rng.integers(0x10, 0xFFFF)))
        tags.add_new(tag, str(rng.choice(["UN", "OB"])), rng.bytes(int(rng.integers(0, 40)) * 2))
    return Damaged(kind="names", data=encoded.saved(tags), policy=policy, whole=data)


def other_format(data: bytes, policy: ImageConfig, rng: np.random.Generator, name: str) -> Damaged:
    """PNG, TIFF, PGM or JPEG, with bytes changed or cut off."""
    suffix = (".png", ".tiff", ".pgm", ".jpg")[int(rng.integers(4))]
    film = breast(96, 64)
    whole = cv2.imencode(suffix, film if suffix != ".jpg" else (film >> 8).astype(np.uint8))[1].tobytes()
    first = 200 if rng.integers(2) else len(whole)
    bad = changed_bytes(whole, 0, min(first, len(whole)), rng)
    if rng.integers(2):
        bad = bad[: int(rng.integers(4, len(bad)))]
    return Damaged(kind=f"format {suffix}", data=bad, policy=policy, suffix=suffix)


def verdict(seed: int, folder: Path) -> str:
    """`image`, `refused`, or `wrong: ...`."""
    one = make(seed)
    path = folder / f"damaged{one.suffix}"
    path.write_bytes(one.data)
    try:
        pixels = decode.load_image(str(path), one.policy).pixels
    except DecodeError as error:
        return "refused" if str(path) in str(error) else f"wrong: {one.kind}: the message does not name the file"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
        return f"wrong: {one.kind}: {type(error).__name__}: {error}"
    if one.refused:
        return f"wrong: {one.kind}: an image came of it"
    if pixels.shape != (64, 64) or pixels.dtype != np.uint16:
        return f"wrong: {one.kind}: {pixels.dtype} pixels of {pixels.shape}"
    if one.whole is not None:
        path.write_bytes(one.whole)
        if not np.array_equal(decode.load_image(str(path), one.policy).pixels, pixels):
            return f"wrong: {one.kind}: another image than the undamaged file's"
    return "image"


@dataclass(slots=True)
class Storm:
    """What became of the files."""

    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    peak: int = 0
    """Largest memory of a process [bytes]."""
    slowest: float = 0.0
    said: str = ""
    """What the processes wrote to stderr."""


def storm(first: int, last: int, folder: Path) -> Storm:
    """Read damaged files in a process apart, started anew after a file that ended it or took too long."""
    found = Storm()
    while first < last:
        first = _until_it_ends(first, last, folder, found)
    return found


def _until_it_ends(first: int, last: int, folder: Path, found: Storm) -> int:
    command = [sys.executable, __file__, str(first), str(last), str(folder)]
    errors = folder / "stderr"
    with errors.open("wb") as stream, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream) as process:
        seed, began = first, None
        for line in _lines(process, found):
            if "peak" in line:
                seed, began = line["seed"] + 1, None
                found.peak, found.slowest = max(found.peak, line["peak"]), max(found.slowest, line["seconds"])
                found.verdicts[line["verdict"].partition(":")[0]] += 1
                if line["verdict"].startswith("wrong"):
                    found.wrong.append(f"seed {line['seed']}: {line['verdict']}")
            else:
                began = line["seed"]
        process.kill()
        code = process.wait()
    found.said += errors.read_text(errors="replace")
    if began is not None or seed < last:
        found.wrong.append(f"seed {seed}: its process ended with {code}, or took over {TIME_LIMIT} s")
        return seed + 1
    return last


def _lines(process: subprocess.Popen, found: Storm) -> Iterator[dict]:
    """Yield what the process prints, until it ends or is silent for too long."""
    patience = 60.0  # until it has imported everything
    while select.select([process.stdout], [], [], patience)[0]:
        line = process.stdout.readline()
        if not line:
            return
        patience = TIME_LIMIT
        yield json.loads(line)


def memory() -> int:
    """The most memory that this process took [bytes]; getrusage may tell that of the one that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def main() -> None:
    first, last, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    cv2.setNumThreads(1)
    for seed in range(first, last):
        print(json.dumps({"seed": seed}), flush=True)
        began = time.perf_counter()
        said = verdict(seed, folder)
        peak = memory()
        seconds = time.perf_counter() - began
        print(json.dumps({"seed": seed, "verdict": said, "peak": peak, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
