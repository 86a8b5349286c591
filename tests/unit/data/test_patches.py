import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_dicom import breast, disc

from mammoflow.config import PatchConfig
from mammoflow.data import decode, patches
from mammoflow.errors import ConfigError, PatchError

S10 = PatchConfig(side=32)
S1 = PatchConfig(set="S1", side=32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def overlap(mask: np.ndarray, row: int, column: int, side: int) -> float:
    """The reference's rule, straight from its definition."""
    inside = mask[row : row + side, column : column + side].sum()
    return max(inside / mask.sum(), inside / side**2)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    data=st.data(),
    least=st.sampled_from([0.5, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
def test_draws_come_from_exactly_the_positions_that_qualify(height, width, data, least, seed):
    config = PatchConfig(side=16, per_lesion=200, min_overlap=least)
    mask = np.zeros((height, width), np.bool_)
    for _ in range(data.draw(st.integers(1, 3))):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        mask[top : top + data.draw(st.integers(1, 30)), left : left + data.draw(st.integers(1, 30))] = True
    places = [(r, c) for r in range(height - 15) for c in range(width - 15)]
    share = {place: overlap(mask, *place, 16) for place in places}
    allowed = {place for place in places if share[place] >= least - 1e-12}
    draw = patches.lesion_corners(mask, config, rng(seed))
    drawn = {(int(r), int(c)) for r, c in draw.corners}
    assert len(draw.corners) == 200
    assert draw.below_min == (not allowed)
    assert drawn <= (allowed or {place for place in places if share[place] == max(share.values())})
    assert draw.shares == pytest.approx([share[int(r), int(c)] for r, c in draw.corners])


@pytest.mark.parametrize(("height", "width"), [(60, 60), (150, 120)])
def test_draws_are_uniform_over_a_lesion_of_hard_shape(height, width):
    mask = np.zeros((height, width), np.bool_)
    row, column = (height - 40) // 2, (width - 40) // 2
    mask[row : row + 40, column : column + 4] = mask[row : row + 4, column : column + 40] = (
        True  # longer than the patch
    )
    config = PatchConfig(side=32, per_lesion=20_000, min_overlap=0.7)
    sums = patches.window_sums(mask, 32)
    allowed = np.flatnonzero(sums >= 0.7 * mask.sum())
    draw = patches.lesion_corners(mask, config, rng())
    counts = np.bincount(draw.corners @ [sums.shape[1], 1], minlength=sums.size)[allowed]
    assert counts.sum() == 20_000
    assert chisquare(counts).pvalue > 0.001


def test_s1_is_centred_on_the_lesion_and_moved_inside_the_image():
    middle = patches.lesion_corners(disc(100, 80, 50, 40, 10) > 0, S1, rng())
    assert middle.corners.tolist() == [[34, 24]]
    assert middle.shares[0] == 1
    corner = patches.lesion_corners(disc(100, 80, 3, 78, 2) > 0, S1, rng())
    assert corner.corners.tolist() == [[0, 48]]


def test_background_holds_no_pixel_of_any_lesion_and_enough_tissue():
    image = breast()
    tissue = patches.tissue_mask(image)
    lesions = (disc(240, 160, 80, 40, 15) | disc(240, 160, 160, 60, 8)) > 0
    draw = patches.background_corners(lesions, tissue, 500, S10, rng())
    assert not draw.below_min
    assert len({tuple(corner) for corner in draw.corners.tolist()}) > 200
    for (row, column), share in zip(draw.corners, draw.shares, strict=True):
        window = np.s_[row : row + 32, column : column + 32]
        assert not lesions[window].any()
        assert tissue[window].mean() == pytest.approx(share)
        assert share >= 0.5


def test_background_takes_the_best_position_where_none_has_enough_tissue_and_nothing_where_there_is_none():
    tissue = disc(64, 64, 32, 32, 8) > 0
    best = patches.background_corners(np.zeros((64, 64), np.bool_), tissue, 3, S10, rng())
    assert best.below_min
    assert best.shares == pytest.approx([tissue.sum() / 1024] * 3)
    assert len(patches.background_corners(np.ones((64, 64), np.bool_), tissue, 3, S10, rng()).corners) == 0


def lesion(name: str, mask, kind: str = "mass", pathology: str = "malignant") -> patches.Lesion:
    return patches.Lesion(lesion_id=name, kind=kind, pathology=pathology, mask=mask)


def test_each_lesion_brings_its_patches_and_as_many_of_background():
    image = breast()
    lesions = [
        lesion("a", disc(240, 160, 80, 40, 12) > 0),
        lesion("b", disc(240, 160, 150, 50, 3) > 0, "calcification", "benign"),
    ]
    for config, per_lesion in ((S10, 10), (S1, 1)):
        cut = patches.cut(image, lesions, config, rng())
        assert [p.lesion_id for p in cut] == ["a"] * per_lesion + ["b"] * per_lesion + [None] * 2 * per_lesion
        labels = {p.lesion_id: S10.classes[p.label] for p in cut}
        assert labels == {"a": "malignant_mass", "b": "benign_calcification", None: "background"}
        assert not any(p.below_min or p.unverified for p in cut)
        assert cut == patches.cut(image, lesions, config, rng()), "the same seed cuts the same patches"
    assert patches.cut(image, [], S10, rng()) == []


def test_a_lesion_without_outline_gives_background_flagged_as_unverified():
    cut = patches.cut(breast(), [lesion("a", None), lesion("b", disc(240, 160, 80, 40, 12) > 0)], S10, rng())
    assert sum(p.lesion_id == "b" for p in cut) == 10
    assert [p.unverified for p in cut if p.lesion_id is None] == [True] * 20
    assert not any(p.unverified for p in cut if p.lesion_id)


def test_what_can_not_be_cut_is_refused():
    mask = disc(240, 160, 80, 40, 12) > 0
    with pytest.raises(ConfigError, match="malignant_distortion, but the classes are background"):
        patches.cut(breast(), [lesion("a", mask, "distortion")], S10, rng())
    with pytest.raises(PatchError, match="outline is empty"):
        patches.cut(breast(), [lesion("a", mask & False)], S10, rng())
    with pytest.raises(PatchError, match="240x160, smaller than a patch of 224x224"):
        patches.cut(breast(), [lesion("a", mask)], PatchConfig(), rng())


def test_tissue_is_the_breast_without_letters_and_borders():
    image = breast(480, 320)
    truth = image > 5000
    image[20:40, 230:300] = 60000  # a label
    image[:, 316:] = 60000  # a film border
    image[476:] = 60000
    found = patches.tissue_mask(image)
    assert (found & truth).sum() / (found | truth).sum() > 0.95
    assert not found[:, 300:].any()
    assert not patches.tissue_mask(np.zeros((64, 64), np.uint16)).any()


def test_tissue_of_the_real_films_is_one_breast_at_the_chest_wall(real_films):
    for path in sorted(real_films.rglob("*.dcm")):
        from mammoflow.config import ImageConfig

        decoded = decode.load_image(str(path), ImageConfig(height=288, width=224))
        tissue = patches.tissue_mask(decoded.pixels)
        assert 0.15 < tissue.mean() < 0.6
        at_wall, at_air = (0, -1) if decoded.identity.laterality == "L" else (-1, 0)
        assert tissue[:, at_wall].mean() > 0.4, "the breast reaches the chest wall"
        assert not tissue[:, at_air].any(), "and not the other side"
        assert decoded.pixels[tissue].mean() > 5 * decoded.pixels[~tissue].mean()
