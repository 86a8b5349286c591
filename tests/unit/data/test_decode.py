import pickle
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless
from small_dicom import breast, dicom, disc

from mammoflow.config import ImageConfig
from mammoflow.data import decode, outlines
from mammoflow.data import fit as fitting
from mammoflow.errors import DecodeError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's remarks on damaged files
SMALL = ImageConfig(height=96, width=64)


def put(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_the_stored_bits_are_stretched_to_the_full_range_and_averaged_by_area(tmp_path):
    film = np.zeros((192, 128), np.uint16)
    film[:96] = 4095  # 12 bits full
    film[96:, :64] = 4095 // 3
    path = put(tmp_path, "a.dcm", dicom(film, 12))
    pixels = decode.load_image(path, SMALL).pixels
    assert pixels.dtype == np.uint16
    assert pixels.shape == (96, 64)
    assert (pixels[:48] == 65535).all()
    assert (pixels[48:, :32] == 65535 // 3).all()
    checkers = np.indices((192, 128)).sum(axis=0).astype(np.uint16) % 2 * 4095
    mean = decode.load_image(put(tmp_path, "b.dcm", dicom(checkers, 12)), SMALL).pixels
    assert np.abs(mean.astype(int) - 32767.5).max() <= 0.5, "a 2x2 block of 0 and 4095 averages to the middle"


@pytest.mark.parametrize(
    ("dtype", "bits", "signed", "photometric"),
    [
        (np.uint8, 8, False, "MONOCHROME2"),
        (np.uint16, 10, False, "MONOCHROME2"),
        (np.uint16, 16, False, "MONOCHROME1"),
        (np.int16, 14, True, "MONOCHROME2"),
        (np.int16, 16, True, "MONOCHROME1"),
    ],
)
def test_signed_pixels_and_inverted_grey_scales_give_the_same_picture(tmp_path, dtype, bits, signed, photometric):
    top = 2**bits - 1
    ramp = np.linspace(0, top, 96 * 64).round().astype(np.int64).reshape(96, 64)
    stored = (top - ramp if photometric == "MONOCHROME1" else ramp) - (2 ** (bits - 1) if signed else 0)
    data = dicom(stored.astype(dtype), bits, signed=signed, photometric=photometric)
    pixels = decode.load_image(put(tmp_path, "a.dcm", data), SMALL).pixels
    assert np.abs(pixels.astype(int) - ramp * 65535 / top).max() <= 0.501


def test_real_compressed_files_decode_to_the_pixels_of_their_uncompressed_twin():
    config = ImageConfig(height=64, width=64)
    plain = decode.load_image(get_testdata_file("MR_small.dcm"), config).pixels
    for name in ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        assert np.array_equal(decode.load_image(get_testdata_file(name), config).pixels, plain), name


def test_png_tiff_and_pgm_give_the_pixels_of_the_dicom(tmp_path):
    film = breast()
    expected = decode.load_image(put(tmp_path, "a.dcm", dicom(film)), SMALL)
    for suffix in (".png", ".tiff", ".pgm"):
        path = put(tmp_path, f"a{suffix}", cv2.imencode(suffix, film)[1].tobytes())
        assert np.array_equal(decode.load_image(path, SMALL).pixels, expected.pixels)
        eight = put(tmp_path, f"b{suffix}", cv2.imencode(suffix, (film >> 8).astype(np.uint8))[1].tobytes())
        assert np.abs(decode.load_image(eight, SMALL).pixels.astype(int) - expected.pixels).max() < 300
    assert (expected.fit.source_height, expected.fit.source_width) == film.shape


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientID": "Mass-Test_P_00820_RIGHT_MLO"}, ("P_00820", "R", "MLO")),
        ({"PatientID": "12345678", "ImageLaterality": "L", "ViewPosition": "CC"}, (None, "L", "CC")),
        ({"Laterality": "R"}, (None, "R", None)),
        ({"ImageLaterality": "B"}, (None, None, None)),
    ],
)
def test_side_and_view_come_from_the_tags_and_a_hospital_s_id_from_nowhere(tmp_path, tags, expected):
    decoded = decode.load_image(put(tmp_path, "a.dcm", dicom(breast(), **tags)), SMALL)
    said = decoded.identity
    assert (said.patient_id, said.laterality, said.view) == expected


def rle(film: np.ndarray) -> bytes:
    item = pydicom.dcmread(BytesIO(dicom(film)))
    item.compress(RLELossless)
    out = BytesIO()
    item.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all" * 100, "neither DICOM"),
        (dicom(breast())[:5000], "bytes of pixels where its header's 240x160 take 76,800"),
        (dicom(breast())[:200], "cut off"),
        (rle(breast())[:-500], "damaged DICOM|cut off"),
        (dicom(np.full((240, 160), 7, np.uint16)), "every pixel is 7"),
        (dicom(breast(), NumberOfFrames=2), "2 frames"),
        (dicom(breast(), Rows=30000, Columns=30000), r"30000x30000 pixels, but 1 to 200,000,000"),
        (dicom(breast(), Rows=10), "76,800 bytes of pixels where its header's 10x160 take 3,200"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "damaged"),
        (cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (50, 50, 3)))[1].tobytes(), "in colour"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name_with_a_reason(tmp_path, data, reason):
    path = put(tmp_path, "bad.dcm", data)
    with pytest.raises(DecodeError, match=rf"bad\.dcm: .*({reason})") as caught:
        decode.load_image(path, SMALL)
    with pytest.raises(DecodeError, match=reason) as of_bytes:
        decode.decode_bytes(data, SMALL)
    assert str(of_bytes.value) == caught.value.reason
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.path, str(error)) == (path, f"{path}: {error.reason}")
        assert path not in error.reason, "shown once"


def test_absent_files_colour_and_tomosynthesis_are_refused(tmp_path):
    with pytest.raises(DecodeError, match="no such file"):
        decode.load_image(str(tmp_path / "gone.dcm"), SMALL)
    with pytest.raises(DecodeError, match="in colour"):
        decode.load_image(get_testdata_file("SC_rgb_small_odd.dcm"), SMALL)
    with pytest.raises(DecodeError, match="15 frames"):
        decode.load_image(get_testdata_file("rtdose.dcm"), SMALL)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.lists(st.tuples(st.integers(132, 20000), st.integers(0, 255)), min_size=1, max_size=30))
def test_damaged_bytes_end_in_an_image_or_a_decode_error(tmp_path_factory, cut, flips):
    data = bytearray(rle(breast(96, 64)))
    for position, value in flips:
        data[position % len(data)] = value
    path = put(tmp_path_factory.mktemp("fuzz"), "a.dcm", bytes(data[: len(data) - cut]))
    try:
        assert decode.load_image(path, SMALL).pixels.shape == (96, 64)
    except DecodeError as error:
        assert path in str(error)  # noqa: PT017 - either outcome is right


def test_pad_keeps_the_aspect_and_masks_follow(tmp_path):
    film = breast(200, 50)
    config = ImageConfig(height=64, width=64, fit="pad")
    decoded = decode.load_image(put(tmp_path, "a.dcm", dicom(film)), config)
    filled = np.flatnonzero(decoded.pixels.any(axis=0))
    assert (filled[0], filled[-1]) == (24, 39), "16 columns in the middle"
    mask = np.zeros(film.shape, np.bool_)
    mask[100:150, 0:25] = True
    reduced = decoded.fit.apply_mask(mask)
    assert np.array_equal(np.argwhere(reduced)[[0, -1]], [[32, 24], [47, 31]])


@settings(max_examples=60, deadline=None)
@given(height=st.integers(64, 900), width=st.integers(64, 900), data=st.data(), fit=st.sampled_from(["stretch", "pad"]))
def test_no_lesion_vanishes_however_small_and_it_stays_where_it_was(height, width, data, fit):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    plan = fitting.plan_fit(height, width, ImageConfig(height=64, width=64, fit=fit))
    mask = np.zeros((height, width), np.bool_)
    mask[row, column] = True
    reduced = np.argwhere(plan.apply_mask(mask))
    assert len(reduced) >= 1
    expected = np.array(
        [plan.top + (row + 0.5) * plan.height / height - 0.5, plan.left + (column + 0.5) * plan.width / width - 0.5]
    )
    assert np.abs(reduced - expected).max() <= 1.01


@settings(max_examples=60, deadline=None)
@given(
    height=st.sampled_from([416, 577, 640, 901]),
    width=st.sampled_from([320, 448, 500, 701]),
    mirrored=st.booleans(),
    fit=st.sampled_from(["stretch", "pad"]),
    row=st.integers(20, 390),
    column=st.integers(20, 300),
    radius=st.integers(1, 60),
)
def test_an_outline_is_reduced_near_the_lesion_as_it_would_be_whole(height, width, mirrored, fit, row, column, radius):
    plan = fitting.plan_fit(height, width, ImageConfig(height=144, width=112, fit=fit), mirrored=mirrored)
    mask = disc(height, width, row, column, radius) > 0
    cover = plan.apply(mask.astype(np.float32))
    sure = np.abs(cover - 0.5) > 1e-4  # a half may be rounded either way
    whole = cover >= 0.5 if (cover >= 0.5).any() else (cover == cover.max())
    assert np.array_equal(plan.apply_mask(mask)[sure], whole[sure])


def test_masks_come_back_from_the_lake_as_they_went_in():
    mask = disc(97, 61, 40, 30, 20) > 0
    png = outlines.encode_mask(mask)
    assert np.array_equal(outlines.decode_mask(png), mask)
    assert png[24] == 1, "bit depth in the PNG header"


class TestLoadMask:
    """Pixels decide which of several files is the mask."""

    film = breast()
    mask = disc(240, 160, 100, 60, 20)

    def test_the_binary_file_of_the_film_s_shape_wins_whatever_its_place(self, tmp_path):
        crop = put(tmp_path, "000001.dcm", dicom(self.film[80:120, 40:80]))
        film = put(tmp_path, "film.dcm", dicom(self.film))
        mask = put(tmp_path, "000000.dcm", dicom(self.mask, 8))
        for candidates in ([crop, film, mask], [mask, crop], [str(tmp_path / "gone.dcm"), mask]):
            outline = outlines.load_mask(candidates, 240, 160)
            assert np.array_equal(outline.mask, self.mask > 0)
            assert outline.note is None

    def test_a_mask_slightly_off_is_resized_and_says_so(self, tmp_path):
        path = put(tmp_path, "a.dcm", dicom(disc(210, 140, 100, 60, 20), 8))
        outline = outlines.load_mask([path], 240, 160)
        assert outline.mask.shape == (240, 160)
        assert "210x140 resized to its film's 240x160" in outline.note
        assert outline.mask.sum() == pytest.approx((self.mask > 0).sum() * (240 / 210) ** 2, rel=0.05)

    @pytest.mark.parametrize(
        ("other", "reason"),
        [
            (disc(240, 150, 100, 60, 20), "an aspect off by 7% where 3% is allowed"),
            (disc(120, 80, 50, 30, 10), "2.0 times off where 1.5 is allowed"),
            (np.zeros((240, 160), np.uint8), "not a mask, which holds exactly two values"),
        ],
    )
    def test_a_mask_of_another_film_or_an_empty_one_is_refused(self, tmp_path, other, reason):
        path = put(tmp_path, "a.dcm", dicom(other, 8))
        with pytest.raises(DecodeError, match=f"no outline of this lesion: .*{reason}"):
            outlines.load_mask([path], 240, 160)
