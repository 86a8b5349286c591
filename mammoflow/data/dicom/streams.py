"""Read the header inside a compressed frame: kind, size, depth. Standard library only.

Decoders allocate whatever this header asks for, so it is read first and compared with the DICOM header.

Source: DICOM PS3.5 8.2, 10 and A.4 (transfer syntaxes); ITU-T T.81 B.1.1, T.87 C.1 (JPEG, JPEG-LS: markers), T.800 A
(JPEG 2000: codestream) and I (boxes of a JP2 file).
"""

from dataclasses import dataclass

JPEG_2000 = "JPEG 2000"
END = b"\xff\xd9"
"""The marker that ends every JPEG, JPEG-LS and JPEG 2000 stream."""

_FRAME_MARKERS = {
    0xC0: "JPEG baseline",
    0xC1: "JPEG extended",
    0xC3: "JPEG lossless",
    0xF7: "JPEG-LS",
}
KINDS = {
    "1.2.840.10008.1.2.4.50": ("JPEG baseline",),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", "JPEG baseline"),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless",),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless",),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS",),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS",),
    **{f"1.2.840.10008.1.2.4.{number}": (JPEG_2000,) for number in (90, 91, 201, 202, 203)},
}
"""Transfer syntax to the kinds of stream it may hold, its own first."""
_NO_LENGTH = (0x01, *range(0xD0, 0xD9))
_MAX_TILES = 65535
"""T.800 A.4.2: a tile's index has 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A compressed frame and its own header."""

    kind: str
    data: bytes
    """From the first marker of the codestream to its end; without the boxes of a JP2 file."""
    rows: int
    columns: int
    components: int
    precision: int
    """Bits per value."""
    signed: bool = False
    """JPEG 2000 only."""
    levels: int = 0
    """Reduced resolutions that JPEG 2000 can decode on their own, each half as large as the one before."""


def parse(data: bytes) -> Stream | None:
    """Return a frame with its own header, or None if it has no header of a known kind."""
    at = max(data.find(b"\xff\x4f\xff\x51", 0, 512), 0)  # a JP2 file holds boxes before its codestream
    if data[at : at + 4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000(data[at:] if at else data)
    return _jpeg(data) if data.startswith(b"\xff\xd8") else None


def ends(stream: Stream) -> bool:
    """Tell whether the stream has its end marker; padding may follow it."""
    at = stream.data.rfind(END)
    return at >= 0 and not stream.data[at + 2 :].strip(b"\0\xff")


def _jpeg(data: bytes) -> Stream | None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        elif marker in _FRAME_MARKERS and at + 10 <= len(data):
            rows, columns = (int.from_bytes(data[start : start + 2], "big") for start in (at + 5, at + 7))
            return Stream(
                kind=_FRAME_MARKERS[marker],
                data=data,
                rows=rows,
                columns=columns,
                components=data[at + 9],
                precision=data[at + 4],
            )
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _jpeg_2000(data: bytes) -> Stream | None:
    """Read the SIZ (size) and COD (coding style) segments of a main header."""
    if len(data) < 45:
        return None
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = (
        int.from_bytes(data[start : start + 4], "big") for start in range(8, 40, 4)
    )
    steps = data[43], data[44]
    if not (tile_x and tile_y and x1 > x0 >= tile_x0 and y1 > y0 >= tile_y0) or steps != (1, 1):
        return None
    tiles = -((tile_x0 - x1) // tile_x) * -((tile_y0 - y1) // tile_y)
    if tiles > _MAX_TILES:
        return None
    return Stream(
        kind=JPEG_2000,
        data=data,
        rows=y1 - y0,
        columns=x1 - x0,
        components=int.from_bytes(data[40:42], "big"),
        precision=(data[42] & 0x7F) + 1,
        signed=bool(data[42] & 0x80),
        levels=_levels(data) if (x0, y0) == (0, 0) else 0,
    )


def _levels(data: bytes) -> int:
    """Return the smallest number of decomposition levels in the main header, 0 if it names none.

    A tile's header may name fewer; the decoder then refuses.
    """
    at, levels = 4 + int.from_bytes(data[4:6], "big"), []
    while at + 12 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x90, 0xD9):
        if data[at + 1] == 0x52:
            levels.append(data[at + 9])
        elif data[at + 1] == 0x53:  # COC: coding style of one component
            levels.append(data[at + 6])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return min(levels, default=0) if max(levels, default=0) <= 32 else 0
