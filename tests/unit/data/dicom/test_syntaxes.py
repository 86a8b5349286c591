"""Every transfer syntax gives the film's own values: compressed or not, of any depth, and at a reduced resolution."""

from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from encoded import EVERY, FILM, jpeg_2000, saved, with_stream
from openjpeg.utils import encode
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from small_dicom import breast, dicom

from mammoflow.config import ImageConfig
from mammoflow.data import decode
from mammoflow.data.dicom import reader, stored_values
from mammoflow.errors import DecodeError

FULL_RANGE = ImageConfig()


def read(data: bytes, **policy) -> reader.Raw:
    return reader.read(data, ImageConfig(**policy))


@pytest.mark.parametrize("name", EVERY)
def test_the_same_film_in_every_syntax(name):
    one = EVERY[name]
    raw = read(one.data)
    assert raw.pixels.shape == (raw.height, raw.width) == FILM.shape
    assert raw.largest == 2**one.bits - 1
    assert np.abs(raw.pixels.astype(int) - one.stored).max() <= one.error


@pytest.mark.parametrize(
    "twin", ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless", "MR_small_padded"]
)
def test_real_files_and_their_uncompressed_twin(twin):
    plain, other = (read(Path(get_testdata_file(f"{name}.dcm")).read_bytes()).pixels for name in ("MR_small", twin))
    assert np.array_equal(plain, other)


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.100",  # MPEG2
        "1.2.840.10008.1.2.4.102",  # MPEG-4
        "1.2.840.10008.1.2.4.94",  # JPIP
        "1.2.840.10008.1.2.4.92",  # JPEG 2000 of several components
        "1.2.840.10008.1.2.7.1",  # video
        "1.2.3.4.5678",
    ],
)
def test_what_has_no_decoder_is_refused(syntax):
    with pytest.raises(DecodeError, match=r"^no decoder for .*; convert it") as caught:
        read(with_stream(FILM, 16, syntax, b"\0" * 100))
    assert "5678" not in str(caught.value), "an unknown UID may be a hospital's"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("how", ["raw", "overlay", "high", "rle", "jpeg 2000"])
def test_bits_signs_and_grey_scales(bits, photometric, signed, how):
    wanted = FILM >> (16 - bits)
    values = (2**bits - 1 - wanted.astype(int)) if photometric == "MONOCHROME1" else wanted.astype(int)
    values = values - 2 ** (bits - 1) if signed else values
    unsigned = values.astype(np.int64) & (2**bits - 1)
    options = {"photometric": photometric}
    if how == "jpeg 2000":
        levels = values + (2 ** (bits - 1) if signed else 0)
        data = with_stream(
            values.astype(np.int16 if signed else np.uint16),
            bits,
            JPEG2000Lossless,
            codestream(levels.astype(np.uint16), bits, signed=signed),
            signed=signed,
            **options,
        )
    else:
        stored = unsigned.astype(np.uint16)
        unused = 16 - bits
        if how == "overlay" and unused:
            stored |= np.uint16(1 << bits) * (np.indices(stored.shape).sum(axis=0) % 2).astype(np.uint16)
        if how == "high":
            stored = (stored << unused) | np.uint16(2**unused - 1)
        if how == "rle" and bits == 8:  # pydicom's encoder takes them for bytes
            stored = stored.astype(np.uint8)
        item = pydicom.dcmread(BytesIO(dicom(stored, bits, signed=signed, **options)))
        if how == "high":
            item.HighBit = 15
        if how == "rle":
            item.compress(RLELossless, encoding_plugin="pydicom")
        data = saved(item)
    raw = read(data)
    assert raw.largest == 2**bits - 1
    assert np.array_equal(raw.pixels, wanted)


def codestream(levels: np.ndarray, bits: int, *, signed: bool = False) -> bytes:
    """A JPEG 2000 stream of unsigned `levels`, of so many bits; Pillow writes 8 and 16 only."""
    values = levels.astype(int) - (2 ** (bits - 1) if signed else 0)
    array = values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return bytes(encode(array, bits_stored=bits, photometric_interpretation=2, codec_format=0))


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("shape", [(384, 256), (387, 261), (301, 203)])
def test_jpeg_2000_is_decoded_at_the_smallest_resolution_that_is_large_enough(tmp_path, shape, boxes):
    film = smooth(shape)
    (tmp_path / "a.dcm").write_bytes(with_stream(film, 16, JPEG2000Lossless, jpeg_2000(film, boxes=boxes)))
    level = 1 if shape[0] < 384 else 2
    raw = read((tmp_path / "a.dcm").read_bytes(), height=96, width=64, reduced=True)
    assert raw.pixels.shape == tuple(-(-side // 2**level) for side in shape)
    assert (raw.height, raw.width) == shape
    full, fast = (
        decode.load_image(str(tmp_path / "a.dcm"), ImageConfig(height=96, width=64, reduced=reduced))
        for reduced in (False, True)
    )
    assert fast.fit == full.fit
    assert (fast.fit.source_height, fast.fit.source_width) == shape
    off = 30 if shape[0] % 4 == 0 else 500  # a side that 4 does not divide shrinks by up to 3 px
    assert 0 < np.abs(fast.pixels.astype(int) - full.pixels).mean() < off


def smooth(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (30000 + 20000 * np.sin(rows / 40) * np.cos(columns / 30)).astype(np.uint16)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_reduced_values_of_every_depth_and_sign_are_near_the_full_ones(bits, signed):
    film = smooth((384, 256)) >> (16 - bits)
    stored = film.astype(int) - (2 ** (bits - 1) if signed else 0)
    container = stored.astype(np.int16 if signed else np.uint16)
    data = with_stream(container, bits, JPEG2000Lossless, codestream(film, bits, signed=signed), signed=signed)
    raw = read(data, height=96, width=64, reduced=True)
    assert raw.pixels.shape == (96, 64)
    means = film.reshape(96, 4, 64, 4).mean(axis=(1, 3))
    assert np.abs(raw.pixels - means).max() <= max(1.5, 2**bits / 30)
    assert np.abs(raw.pixels - means).mean() <= max(1, 2**bits / 80)


@pytest.mark.parametrize("name", ["htj2k lossless", "htj2k"])
def test_htj2k_at_a_reduced_resolution(name):
    assert read(EVERY[name].data, reduced=True).pixels.shape == FILM.shape
    tags = pydicom.dcmread(BytesIO(EVERY[name].data))
    halves = stored_values.decode(tags, (24, 16))
    means = EVERY[name].stored.reshape(24, 2, 16, 2).mean(axis=(1, 3))
    assert halves.shape == (24, 16)
    assert np.corrcoef(halves.ravel(), means.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("policy", "tags"),
    [
        ({"fit": "pad"}, {}),
        ({"face": "right"}, {}),
        ({"intensity": "percentile"}, {}),
        ({"intensity": "window"}, {"WindowCenter": 30000, "WindowWidth": 50000}),
        ({}, {"photometric": "MONOCHROME1"}),
        ({}, {"PixelPaddingValue": 10000}),
    ],
)
def test_policies_hold_at_a_reduced_resolution(tmp_path, policy, tags):
    film = np.ascontiguousarray(np.where(breast(384, 300)[:, ::-1] > 300, smooth((384, 300)), 10000)).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(with_stream(film, 16, JPEG2000Lossless, jpeg_2000(film), **tags))
    full, fast = (
        decode.load_image(str(tmp_path / "a.dcm"), ImageConfig(height=96, width=64, reduced=reduced, **policy))
        for reduced in (False, True)
    )
    assert fast.fit == full.fit
    difference = np.abs(fast.pixels.astype(int) - full.pixels)
    assert np.median(difference) < 30
    if "PixelPaddingValue" in tags or policy.get("intensity") == "percentile":
        assert difference.max() == 0, "padding and percentiles are found on full pixels alone"


def test_other_syntaxes_are_decoded_in_full_whatever_is_asked(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom(smooth((384, 256))))
    full, fast = (
        decode.load_image(str(tmp_path / "a.dcm"), ImageConfig(height=96, width=64, reduced=reduced)).pixels
        for reduced in (False, True)
    )
    assert np.array_equal(full, fast)


def changed(data: bytes, **tags) -> bytes:
    item = pydicom.dcmread(BytesIO(data))
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return saved(item)


@pytest.mark.parametrize(
    ("name", "tags", "reason"),
    [
        ("jpeg-ls", {"Rows": 47}, "its header says 47x32 pixels, its stream 48x32"),
        ("jpeg lossless, predictor 4", {"Columns": 33}, "its header says 48x33 pixels, its stream 48x32"),
        ("jpeg2000, 16 bits", {"Rows": 20}, "its header says 20x32 pixels, its stream 48x32"),
        ("jpeg-ls", {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "its stream has 1 components of 16 bits"),
        ("jpeg-ls, 12 bits", {"HighBit": 15}, "high bit 15 with 12 bits stored"),
        ("raw, 16 bits", {"HighBit": 14}, "16 bits stored up to bit 14 of 16"),
        ("raw, 16 bits", {"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "of 12 allocated"),
        ("raw, 16 bits", {"PixelRepresentation": 3}, "neither 0 .* nor 1"),
        ("raw, 16 bits", {"Rows": 49}, "3,072 bytes of pixels where its header's 49x32 take 3,136"),
        ("raw, 16 bits", {"Columns": 31}, "3,072 bytes of pixels where its header's 48x31 take 2,976"),
        ("rle, 16 bits", {"Rows": 47}, "more than the 47x32 pixels of its header"),
        ("rle, 16 bits", {"Columns": 16}, "more than the 48x16 pixels of its header"),
        ("rle, 16 bits", {"Rows": 49}, "fewer than the 49x32 pixels of its header"),
        (
            "rle, 16 bits",
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
            "its RLE header does not describe 8-bit pixels",
        ),
        ("raw, 16 bits", {"Rows": 0}, "0x32 pixels, but 1 to"),
        ("raw, 16 bits", {"NumberOfFrames": 60}, "60 frames.*tomosynthesis"),
        ("raw, 16 bits", {"SamplesPerPixel": 3}, "in colour"),
        ("raw, 16 bits", {"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ("raw, 16 bits", {"BitsStored": 1, "HighBit": 0}, "1 bits stored, but only 2 to 16"),
    ],
)
def test_pixels_that_do_not_match_their_header_are_refused(name, tags, reason):
    with pytest.raises(DecodeError, match=reason):
        read(changed(EVERY[name].data, **tags))


@pytest.mark.parametrize(
    "name", ["jpeg-ls", "jpeg lossless, predictor 4", "jpeg2000, 16 bits", "jpeg baseline", "htj2k"]
)
def test_streams_that_were_cut_off_are_refused(name):
    item = pydicom.dcmread(BytesIO(EVERY[name].data))
    stream = pydicom.encaps.get_frame(item.PixelData, 0, number_of_frames=1)
    item.PixelData = pydicom.encaps.encapsulate([stream[: len(stream) * 3 // 4]])
    with pytest.raises(DecodeError, match="its stream is cut off: it has no end marker"):
        read(saved(item))


@pytest.mark.slow
def test_two_decoders_agree_on_the_real_films(real_films):
    films = sorted(real_films.rglob("*.dcm"))
    assert len(films) == 8
    for path in films:
        ours = reader.read(path.read_bytes(), FULL_RANGE).pixels
        tags = pydicom.dcmread(path)
        assert tags.file_meta.TransferSyntaxUID == RLELossless
        assert np.array_equal(ours, pixel_array(tags)), path.name
        assert np.array_equal(ours, by_gdcm(path)), path.name


def by_gdcm(path: Path) -> np.ndarray:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "<u2").reshape(image.GetDimension(1), image.GetDimension(0))


def test_one_syntax_s_stream_under_another_s_name():
    for name, other in (("jpeg-ls", JPEGLosslessSV1), ("jpeg baseline", JPEGLSLossless), ("htj2k", JPEGLSLossless)):
        item = pydicom.dcmread(BytesIO(EVERY[name].data))
        item.file_meta.TransferSyntaxUID = other
        with pytest.raises(DecodeError, match="fetch or convert it again"):
            read(saved(item))
