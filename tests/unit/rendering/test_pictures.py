"""Pictures of films show the breast as it is, and nothing of what is burnt in beside it."""

import cv2
import numpy as np
import pytest
from small_dicom import breast, disc

from mammoflow.rendering import pictures


def burn_in(pixels: np.ndarray) -> np.ndarray:
    """Add a sticker, a name and a side's letter to the air of a film of 576 x 448 px."""
    marks = np.zeros(pixels.shape, np.uint8)
    cv2.rectangle(marks, (330, 10), (440, 60), 255, cv2.FILLED)
    cv2.putText(marks, "ROE, JANE", (250, 550), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    cv2.putText(marks, "L", (390, 320), cv2.FONT_HERSHEY_SIMPLEX, 2.5, 255, 12)
    return np.where(marks > 0, np.uint16(65535), pixels)


def plain() -> np.ndarray:
    return cv2.resize(breast(), (448, 576), interpolation=cv2.INTER_AREA)


def shown(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def sheet(pixels: np.ndarray) -> bytes:
    return pictures.contact_sheet([pictures.Framed(pixels=pixels, lesions=[], frames=[], caption="F")], 1, "")


def heatmaps(pixels: np.ndarray) -> bytes:
    cold = pictures.Heatmap(values=np.zeros((18, 14), np.float32), side=32)
    return pictures.heatmaps(pixels, [], [cold], "")


@pytest.mark.parametrize("draw", [lambda pixels: pictures.film(pixels, [], ""), sheet, heatmaps])
def test_a_label_burnt_into_a_film_is_in_no_picture_and_the_breast_is_unchanged(draw):
    film = plain()
    marked = burn_in(film)
    assert (marked != film).sum() > 5000
    np.testing.assert_array_equal(shown(draw(marked)), shown(draw(film)))


def test_all_of_the_breast_is_shown_to_its_skin():
    marked, tissue = burn_in(plain()), plain() > 1000
    picture = shown(pictures.film(marked, [], ""))
    difference = np.abs(picture.astype(int) - (marked >> 8))[tissue]
    assert difference.mean() < 4, "JPEG's own error"
    assert picture[~cv2.dilate(tissue.astype(np.uint8), disc(61, 61, 30, 30, 30)).astype(bool)].max() < 30


def test_a_film_without_any_breast_is_shown_as_air():
    strokes = np.full((576, 448), 300, np.uint16)
    strokes[500:503, 100:300] = strokes[500:540, 200:203] = 65535
    assert shown(pictures.film(strokes, [], "")).max() < 8
