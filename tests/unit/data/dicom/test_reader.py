"""What DICOM says of grey values and of what a file shows: windows, LUTs, padding, streams, kinds that are refused."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1
from small_dicom import breast, dicom

from mammoflow.config import ImageConfig
from mammoflow.data import decode, image_files, outlines
from mammoflow.data.phantom import dicom as phantom_dicom
from mammoflow.errors import DecodeError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SAME = {"height": 96, "width": 64}
RAMP = np.arange(96 * 64, dtype=np.uint16).reshape(96, 64)  # 13 bits


def load(folder: Path, data: bytes, **policy) -> decode.Decoded:
    (folder / "a.dcm").write_bytes(data)
    return decode.load_image(str(folder / "a.dcm"), ImageConfig(**SAME, **policy))


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, spread over 0-65535."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 65535


def test_a_window_is_spread_over_the_full_range(tmp_path):
    data = dicom(RAMP, 13, WindowCenter=3000, WindowWidth=2000)
    shown = load(tmp_path, data, intensity="window").pixels
    assert np.abs(shown - linear(RAMP, 3000, 2000)).max() <= 1
    assert np.abs(load(tmp_path, data).pixels - RAMP * (65535 / 8191)).max() <= 0.51, "as stored by default"


def test_of_several_windows_the_first_is_taken_or_the_one_named(tmp_path):
    data = dicom(RAMP, 13, WindowCenter=[3000, 1000], WindowWidth=[2000, 500])
    assert np.abs(load(tmp_path, data, intensity="window").pixels - linear(RAMP, 3000, 2000)).max() <= 1
    assert np.abs(load(tmp_path, data, intensity="window", window=1).pixels - linear(RAMP, 1000, 500)).max() <= 1
    with pytest.raises(DecodeError, match="window 2 is asked for, but it has 2"):
        load(tmp_path, data, intensity="window", window=2)
    with pytest.raises(DecodeError, match=r"window 0 is asked for, but it has 0; use --images\.intensity full_range"):
        load(tmp_path, dicom(RAMP, 13), intensity="window")


def test_exact_and_sigmoid_windows(tmp_path):
    exact = dicom(RAMP, 13, WindowCenter=3000, WindowWidth=2000, VOILUTFunction="LINEAR_EXACT")
    expected = np.clip((RAMP - 3000.0) / 2000 + 0.5, 0, 1) * 65535
    assert np.abs(load(tmp_path, exact, intensity="window").pixels - expected).max() <= 1
    sigmoid = dicom(RAMP, 13, WindowCenter=3000, WindowWidth=2000, VOILUTFunction="SIGMOID")
    expected = 65535 / (1 + np.exp(-4 * (RAMP - 3000.0) / 2000))
    assert np.abs(load(tmp_path, sigmoid, intensity="window").pixels - expected).max() <= 1


def test_a_window_follows_rescale_and_an_inverted_grey_scale(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 5000, "WindowWidth": 4000}
    shown = load(tmp_path, dicom(RAMP, 13, **tags), intensity="window").pixels
    assert np.abs(shown - linear(RAMP * 2.0 - 1000, 5000, 4000)).max() <= 1
    inverted = load(tmp_path, dicom(RAMP, 13, photometric="MONOCHROME1", **tags), intensity="window").pixels
    assert np.abs(65535 - inverted.astype(int) - shown).max() <= 1


def test_a_voi_lut_is_looked_up(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 2000, 8], [0, 85, 170, 255]
    lut["LUTData"].VR = "US"
    shown = load(tmp_path, dicom(RAMP, 13, VOILUTSequence=[lut]), intensity="window").pixels
    steps = np.clip(RAMP.astype(int) - 2000, 0, 3) * 85 * 257
    assert np.array_equal(shown, steps)


def test_percentiles_clip_the_brightest_and_darkest(tmp_path):
    film = RAMP.copy()
    film[0, 0] = 8191  # a label
    shown = load(tmp_path, dicom(film, 13), intensity="percentile").pixels.astype(float)
    low, high = np.percentile(film, [0.5, 99.5])
    assert np.abs(shown - np.clip((film - low) / (high - low), 0, 1) * 65535).max() < 40
    assert shown.min() == 0
    assert shown.max() == 65535


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_air(tmp_path, photometric):
    film = np.where(RAMP < 640, 5000, RAMP).astype(np.uint16)
    film[-1, -1] = 5004
    tags = {"PixelPaddingValue": 5000, "PixelPaddingRangeLimit": 5004}
    shown = load(tmp_path, dicom(film, 13, photometric=photometric, **tags)).pixels
    padded = (film >= 5000) & (film <= 5004)
    assert (shown[padded] == 0).all()
    assert (shown[~padded] > 0).all()


def test_breasts_are_mirrored_to_face_right_with_their_outlines(tmp_path):
    left = np.ascontiguousarray(breast()[:, ::-1])
    data = dicom(left)
    mirrored = load(tmp_path, data, face="right")
    (tmp_path / "b.dcm").write_bytes(dicom(breast()))
    right = decode.load_image(str(tmp_path / "b.dcm"), ImageConfig(**SAME, face="right"))
    assert mirrored.fit.mirrored
    assert not right.fit.mirrored
    assert np.array_equal(mirrored.pixels, right.pixels)
    box = [(100, 120), (100, 150), (140, 150), (140, 120)]
    outline = outlines.draw_outline(box, 240, 160, from_bottom=False).mask
    columns = np.flatnonzero(mirrored.fit.apply_mask(outline).any(axis=0))
    assert (columns[0], columns[-1]) == (4, 15)  # 9 to 39 of 160, reduced to 64


def test_a_stream_of_another_syntax_than_the_header_says_is_refused(tmp_path):
    identity = phantom_dicom.Identity(patient="x", description="y", study="1.2", series="1.3", instance="1.4")
    for codec, name, other in (
        ("jpeg2000", "JPEG 2000", JPEGLosslessSV1),
        ("jpeg-lossless", "JPEG lossless", JPEG2000Lossless),
    ):
        data = phantom_dicom.encode(breast(), codec, identity)
        assert np.abs(load(tmp_path, data).pixels.astype(int) - load(tmp_path, dicom(breast())).pixels).max() == 0
        tags = pydicom.dcmread(BytesIO(data))
        tags.file_meta.TransferSyntaxUID = other
        out = BytesIO()
        tags.save_as(out)
        with pytest.raises(DecodeError, match=f"its stream is {name}; fetch or convert it again"):
            load(tmp_path, out.getvalue())
        tags.file_meta.TransferSyntaxUID = JPEG2000Lossless
        tags.PixelData = encapsulate([b"\0\0" + next(generate_frames(tags.PixelData, number_of_frames=1))[2:]])
        out = BytesIO()
        tags.save_as(out)
        with pytest.raises(DecodeError, match="its stream is of no known kind"):
            load(tmp_path, out.getvalue())


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "JPEG2000.dcm",
        "JPEGLSNearLossless_16.dcm",
        "JPGExtended.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "image_dfl.dcm",
    ],
)
def test_real_files_of_many_syntaxes_can_be_used(name):
    decoded = decode.load_image(get_testdata_file(name), ImageConfig(**SAME))
    assert decoded.pixels.shape == (96, 64)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "", "SPECIMEN"]},
        {"SeriesDescription": "R CC wire localization"},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]},
    ],
)
def test_what_is_no_screening_view_is_refused_by_its_tags(tmp_path, tags):
    with pytest.raises(DecodeError, match="which is no screening view; leave it out of the source"):
        load(tmp_path, dicom(breast(), **tags))


def test_files_too_large_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_BYTES", 1000)
    with pytest.raises(DecodeError, match="bytes, but at most 1,000 can be used"):
        load(tmp_path, dicom(breast()))
