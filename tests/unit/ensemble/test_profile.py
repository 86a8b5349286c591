"""What training images look like: images of their kind pass, others are named with value and range."""

import numpy as np
import pytest
from small_dicom import breast

from mammoflow.ensemble import profile
from mammoflow.facts import codec


@pytest.fixture(scope="module")
def seen():
    """The profile of forty drawn breasts of one vendor."""
    figures = np.array([profile.figures(breast(seed=seed)) for seed in range(40)])
    return profile.fit(figures, ["Hologic"] * 30 + [None] * 10)


def test_images_of_the_same_kind_pass(seen):
    flagged = [profile.warnings(seen, breast(seed=seed), "Hologic") for seed in range(100, 140)]
    assert sum(map(bool, flagged)) <= 2


def test_what_differs_is_named(seen):
    film = breast(seed=200)
    for changed, name in (
        ((film // 4).astype(np.uint16), "median"),
        (np.where(film > film.min(), 60000 + film // 20, 0).astype(np.uint16), "lower"),
        (np.zeros_like(film), "breast"),
    ):
        found = profile.warnings(seen, changed, None)
        assert any(text.startswith(f"{name} ") and "trained on 0." in text for text in found), found


def test_vendors_are_held_against_those_of_training(seen):
    film = breast(seed=201)
    assert profile.warnings(seen, film, None) == []
    assert profile.warnings(seen, film, "Siemens") == ["vendor Siemens, trained on Hologic"]
    nobody = profile.fit(np.array([profile.figures(film)]), [None])
    assert nobody.vendors == ()
    assert profile.warnings(nobody, film, "Siemens") == []


def test_json_keeps_every_digit(seen):
    assert codec.from_json(codec.to_json(seen), profile.Profile, "a file") == seen
