"""Files that claim more than they hold, or tell more than they should: small memory, and no identity in any message."""

import logging
import struct
import traceback
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import encoded
import numpy as np
import pydicom
import pytest
from encoded import EVERY, FILM, jpeg_2000, saved, with_stream
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from small_dicom import breast, dicom

from mammoflow.config import ImageConfig
from mammoflow.data import decode
from mammoflow.data.dicom import reader
from mammoflow.errors import DecodeError

SMALL = ImageConfig(height=96, width=64)
MEMORY = 64 * 2**20


def refusal(folder: Path, data: bytes, name: str = "a.dcm") -> str:
    """The reason why a file is refused, for which only little memory may be taken."""
    (folder / name).write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as caught:
            decode.load_image(str(folder / name), SMALL)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_a_header_of_absurd_size_reserves_nothing(tmp_path):
    assert "65535x65535 pixels, but 1 to 200,000,000" in refusal(tmp_path, dicom(FILM, Rows=65535, Columns=65535))


def huge_codestream(**sizes: int) -> bytes:
    """A JPEG 2000 stream with other sizes in its segment SIZ, by offset name."""
    at = {"x1": 8, "y1": 12, "x0": 16, "y0": 20, "tile_x": 24, "tile_y": 28}
    stream = bytearray(jpeg_2000(FILM))
    for name, value in sizes.items():
        stream[at[name] : at[name] + 4] = value.to_bytes(4, "big")
    return bytes(stream)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"x1": 100_000, "y1": 100_000, "tile_x": 100_000, "tile_y": 100_000}, "its stream 100000x100000"),
        ({"tile_x": 1, "tile_y": 1, "x1": 2**20, "y1": 2**20}, "of no known kind"),
        ({"tile_x": 0}, "of no known kind"),
        ({"x0": 40}, "of no known kind"),
    ],
)
def test_a_jpeg_2000_stream_that_claims_another_size_is_refused_before_it_is_decoded(tmp_path, sizes, reason):
    assert reason in refusal(tmp_path, with_stream(FILM, 16, JPEG2000Lossless, huge_codestream(**sizes)))


def huge_jpeg() -> bytes:
    stream = bytearray((encoded.STREAMS / "jpeg_baseline_8.jpg").read_bytes())
    at = stream.find(b"\xff\xc0")
    stream[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return bytes(stream)


def test_a_jpeg_stream_that_claims_another_size_is_refused_before_it_is_decoded(tmp_path):
    stream = huge_jpeg()
    data = with_stream((FILM >> 8).astype(np.uint8), 8, JPEGBaseline8Bit, stream)
    assert "its header says 48x32 pixels, its stream 65535x65535" in refusal(tmp_path, data)


def test_boxes_of_no_length_do_not_hang(tmp_path):
    """pydicom walks along the boxes of a JP2 file; one of no length keeps it where it is."""
    stream = bytearray(jpeg_2000(FILM, boxes=True))
    stream[12:16] = b"\0\0\0\0"
    (tmp_path / "a.dcm").write_bytes(with_stream(FILM, 16, JPEG2000Lossless, bytes(stream)))
    whole = reader.read((tmp_path / "a.dcm").read_bytes(), SMALL)
    assert np.array_equal(whole.pixels, FILM)


def test_runs_that_unroll_without_end_are_refused(tmp_path):
    segment = b"\x81\x00" * 1_000_000  # 128 million bytes
    stream = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
    assert "more than the 48x32 pixels" in refusal(tmp_path, with_stream(FILM, 16, RLELossless, stream))


def test_a_deflated_file_that_grows_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_INFLATED", 2**25)
    item = pydicom.dcmread(BytesIO(EVERY["deflated"].data))
    assert item.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    whole = EVERY["deflated"].data
    start = 128 + 4 + 12 + item.file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = whole[:start] + packer.compress(bytes(2**28)) + packer.flush()
    assert len(bomb) < 2**20
    assert "inflates to more than 33,554,432 bytes" in refusal(tmp_path, bomb)
    with pytest.raises(DecodeError, match="inflates to more than"):
        reader.read_identity(str(tmp_path / "a.dcm"))


def png(width: int, height: int, depth: int = 16, colour: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    whole = cv2.imencode(".tiff", FILM)[1].tobytes()
    at = int.from_bytes(whole[4:8], "little")
    out = bytearray(whole)
    for entry in range(int.from_bytes(whole[at : at + 2], "little")):
        first = at + 2 + 12 * entry
        tag = int.from_bytes(whole[first : first + 2], "little")
        if tag in (256, 257):
            out[first + 2 : first + 12] = struct.pack("<HII", 4, 1, {256: width, 257: height}[tag])
    return bytes(out)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", png(100_000, 100_000), "100000x100000 pixels, but 1 to"),
        ("a.png", png(60_000, 3_000, colour=6), "3000x240000 pixels, but 1 to"),
        ("a.png", png(10_000, 10_000), "10000x10000 pixels can't be in"),
        ("a.tiff", tiff(100_000, 100_000), "100000x100000 pixels, but 1 to"),
        ("a.pgm", b"P5 100000 100000 65535\n" + bytes(100), "100000x100000 pixels, but 1 to"),
        ("a.pgm", b"P5 x 10 255\n", "a damaged header"),
        ("a.jpg", huge_jpeg(), "65535x65535 pixels, but 1 to"),
    ],
)
def test_other_formats_that_claim_too_much_are_refused_before_they_are_decoded(tmp_path, name, data, reason):
    assert reason in refusal(tmp_path, data, name)


def test_chunks_longer_than_their_png_are_refused_unread(tmp_path):
    data = bytearray(cv2.imencode(".png", breast())[1].tobytes())
    data[33:37] = (2**31 - 1).to_bytes(4, "big")
    assert "pixels can't be in" in refusal(tmp_path, bytes(data), "a.png")


def test_several_frames_of_a_tiff_are_refused(tmp_path):
    assert cv2.imwritemulti(str(tmp_path / "many.tiff"), [FILM, FILM])
    assert "2 frames, but only single images" in refusal(tmp_path, (tmp_path / "many.tiff").read_bytes(), "a.tiff")


SECRET = "DOE^JANE"
"""Eight characters, and the placeholders below too, so that they can be exchanged in a file's bytes."""
PLACES = {
    "PatientName": ("PN", "PLACE^01"),
    "PatientID": ("LO", "PLACE-02"),
    "AccessionNumber": ("SH", "PLACE-03"),
    "PatientComments": ("LT", "PLACE-04"),
    "PatientAddress": ("LO", "PLACE-05"),
    "InstitutionAddress": ("ST", "PLACE-06"),
    "TextValue": ("UT", "PLACE-07"),
    "PatientBirthDate": ("DA", "19000101"),
    "StudyTime": ("TM", "101010.1"),
    "AcquisitionDateTime": ("DT", "19010101"),
    "PatientAge": ("AS", "055Y055Y"),
    "BodyPartExamined": ("CS", "PLACE_08"),
    "ViewPosition": ("CS", "PLACE_09"),
    "ImageLaterality": ("CS", "PLACE_10"),
    "PatientOrientation": ("CS", "PLACE_11"),
    "ImageType": ("CS", "PLACE_12"),
    "SeriesDescription": ("LO", "PLACE-13"),
    "PhotometricInterpretation": ("CS", "PLACE_14"),
    "RescaleSlope": ("DS", "1.000001"),
    "WindowCenter": ("DS", "30000.01"),
    "WindowWidth": ("DS", "20000.01"),
    "VOILUTFunction": ("CS", "PLACE_15"),
    "NumberOfFrames": ("IS", "00000001"),
    "InstanceNumber": ("IS", "00000002"),
    "StudyInstanceUID": ("UI", "1.2.3.44"),
    "SOPClassUID": ("UI", "1.2.3.45"),
    "SpecificCharacterSet": ("CS", "PLACE_16"),
}


def identified(keyword: str) -> bytes:
    """A film whose file holds the secret in one element of a text VR, and in its name, id and birth date."""
    item = pydicom.dcmread(BytesIO(dicom(FILM, WindowCenter=30000, WindowWidth=20000)))
    exchanged = {keyword, "PatientName", "PatientID", "PatientBirthDate"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in exchanged:
            vr, place = PLACES[name]
            item.add_new(name, vr, place)
        data = saved(item)
    for name in exchanged:
        _, place = PLACES[name]
        assert data.count(place.encode()) == 1
        data = data.replace(place.encode(), SECRET.encode())
    return data


def damaged(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "syntax":
        return data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    if how == "unknown syntax":
        return data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.DOE^JANE.1\0\0")
    if how == "flips":
        rng = np.random.default_rng(0)
        out = bytearray(data)
        for at in rng.integers(132, len(data) - FILM.nbytes, 25):
            out[at] = int(rng.integers(256))
        return bytes(out)
    return data


@pytest.mark.parametrize("how", ["whole", "cut", "syntax", "unknown syntax", "flips"])
@pytest.mark.parametrize("keyword", PLACES)
@pytest.mark.parametrize("intensity", ["full_range", "window"])
def test_nothing_of_the_patient_reaches_errors_warnings_logs_or_stderr(keyword, how, intensity, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    data = damaged(identified(keyword), how)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            said = str(reader.read(data, ImageConfig(intensity=intensity)).identity)
        except DecodeError as error:
            said = "".join(traceback.format_exception(error))
    out, err = capfd.readouterr()
    everything = "\n".join([said, out, err, caplog.text, *(str(one.message) for one in warned)])
    assert "DOE" not in everything
    assert "JANE" not in everything


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_parser_s_own_words_would_have_told():
    """What the test above is up against: pydicom quotes values."""
    tags = pydicom.dcmread(BytesIO(identified("RescaleSlope")))
    with pytest.raises(ValueError, match="DOE"):
        float(tags.RescaleSlope)


def item(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("tags", "laterality", "view", "faces"),
    [
        ({"PatientOrientation": ["A", "R"]}, None, None, "right"),
        ({"PatientOrientation": ["P", "FL"]}, None, None, "left"),
        ({"PatientOrientation": ["AL", "F"]}, None, None, "right"),
        ({"PatientOrientation": "CC", "ViewPosition": "CC"}, None, "CC", None),
        ({"PatientOrientation": ["L", "F"]}, None, None, None),
        ({"PatientOrientation": ["APRON", "F"]}, None, None, None),
        ({"ViewPosition": "xccl"}, None, "XCCL", None),
        ({"ViewPosition": "DOE"}, None, None, None),
        ({"ImageLaterality": "L", "Laterality": "R"}, "L", None, None),
        ({"Laterality": "R"}, "R", None, None),
        ({"FrameAnatomySequence": [item(FrameLaterality="L")]}, "L", None, None),
        (
            {"SharedFunctionalGroupsSequence": [item(FrameAnatomySequence=[item(FrameLaterality="R")])]},
            "R",
            None,
            None,
        ),
        (
            {"AnatomicRegionSequence": [item(AnatomicRegionModifierSequence=[item(CodeValue="24028007")])]},
            "R",
            None,
            None,
        ),
        (
            {
                "PrimaryAnatomicStructureSequence": [
                    item(PrimaryAnatomicStructureModifierSequence=[item(CodeValue="G-A101")])
                ]
            },
            "L",
            None,
            None,
        ),
        ({"PrimaryAnatomicStructureModifierSequence": [item(CodeValue="7771000")]}, "L", None, None),
        ({"AnatomicRegionSequence": [item(CodeValue="T-04000")]}, None, None, None),
        ({"ViewCodeSequence": [item(CodeValue="399368009")], "ImageLaterality": "B"}, None, "MLO", None),
    ],
)
def test_side_view_and_direction_by_tags_and_codes(tags, laterality, view, faces):
    said = reader.read(dicom(breast(), **tags), SMALL).identity
    assert (said.laterality, said.view, said.faces) == (laterality, view, faces)


def test_a_breast_faces_where_its_file_says_rather_than_where_it_is_bright(tmp_path):
    towards_right = breast()
    for orientation, mirrored in (("A", False), ("P", True), ("CC", False)):
        (tmp_path / "a.dcm").write_bytes(dicom(towards_right, PatientOrientation=[orientation, "F"]))
        config = ImageConfig(height=96, width=64, face="right")
        assert decode.load_image(str(tmp_path / "a.dcm"), config).fit.mirrored == mirrored
