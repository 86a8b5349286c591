"""The contact sheet of a made run: every split's films, their outlines and the frames of their patches."""

import cv2
import numpy as np
from made_lake import SIDE, make

from mammoflow import lake
from mammoflow.rendering import pictures
from mammoflow.reports import contact_sheet


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).sum(axis=2) < 60).sum())


def test_it_shows_outlines_and_frames_of_both_kinds(tmp_path) -> None:
    made = make(tmp_path)
    url = contact_sheet.write(made.images, made.patches, SIDE, "phantom data")
    assert url == made.patches.file("contact_sheet.jpg")
    sheet = cv2.imdecode(np.frombuffer(lake.read_bytes(url), np.uint8), cv2.IMREAD_COLOR)
    rows = 2  # 4 films a shard, the first of each of three splits: 12 tiles in rows of 6
    assert sheet.shape[0] > rows * 480
    assert sheet.shape[1] == 6 * (384 + 4)
    for colour in (pictures.MALIGNANT_BGR, pictures.BENIGN_BGR, pictures.BACKGROUND_BGR, pictures.LESION_BGR):
        assert near(sheet, colour) > 200


def test_a_frame_lies_where_its_patch_was_cut() -> None:
    pixels = np.zeros((288, 224), np.uint16)
    frame = pictures.Frame(row=100, column=20, side=SIDE, background=True)
    film = pictures.Framed(pixels=pixels, lesions=[], frames=[frame], caption="F")
    sheet = cv2.imdecode(np.frombuffer(pictures.contact_sheet([film], 1, ""), np.uint8), cv2.IMREAD_COLOR)
    green = sheet[2:482, 2:386, 1].astype(int) > 60
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    np.testing.assert_allclose([rows[0], rows[-1]], [100 * 480 / 288, (100 + SIDE) * 480 / 288], atol=3)
    np.testing.assert_allclose([columns[0], columns[-1]], [20 * 384 / 224, (20 + SIDE) * 384 / 224], atol=3)
