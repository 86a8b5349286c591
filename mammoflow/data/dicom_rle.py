"""RLE lossless, the run lengths of DICOM: one frame -> its values. NumPy only.

pydicom's own decoder unrolls whatever a segment holds before it counts, so that a small file may take all memory; this
one stops at the size that the header names, and refuses what is shorter or longer.

Source: DICOM PS3.5, annex G.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_HEADER = 64
_NO_RUN = 128
_FILLING = b"\0\x80"


def decode(frame: bytes, rows: int, columns: int, bytes_per_value: int) -> NDArray[np.unsignedinteger]:
    """Return the values of one grey frame, unsigned, (rows, columns).

    Raises:
        ValueError: the segments are not those of such a frame.
    """
    starts = np.frombuffer(frame, "<u4", 1 + bytes_per_value)
    if starts[0] != bytes_per_value:
        raise ValueError(f"{starts[0]} segments, but values of {bytes_per_value} bytes have as many")
    bounds = [*(int(start) for start in starts[1:]), len(frame)]
    if bounds[0] < _HEADER or bounds != sorted(bounds):
        raise ValueError("segments that overlap")
    planes = [np.frombuffer(_unrolled(frame[first:last], rows * columns), np.uint8) for first, last in pairwise(bounds)]
    values = np.empty((rows, columns, bytes_per_value), np.uint8)
    for index, plane in enumerate(reversed(planes)):  # the highest byte comes first
        values[..., index] = plane.reshape(rows, columns)
    return values.view(f"<u{bytes_per_value}")[..., 0]


def _unrolled(segment: bytes, size: int) -> bytearray:
    """Return a segment's bytes: n + 1 of them follow a byte n below 128; of 129 and above, the next 257 - n times."""
    out = bytearray()
    at, end = 0, len(segment)
    while len(out) < size and at < end:
        head = segment[at]
        at += 1
        if head < _NO_RUN:
            out += segment[at : at + head + 1]
            at += head + 1
        elif head > _NO_RUN:
            out += segment[at : at + 1] * (257 - head)
            at += 1
    if len(out) != size or at > end:
        raise ValueError(f"a segment of {len(out)} bytes, but {size} pixels")
    if segment[at:].strip(_FILLING):
        raise ValueError(f"a segment of more than the {size} bytes of its pixels")
    return out
