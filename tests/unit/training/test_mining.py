"""Hard-example mining: which patches are chosen, and how they are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_lake import HEIGHT, SIDE, WIDTH, film

from mammoflow import recipes
from mammoflow.config import PatchConfig, TrunkConfig
from mammoflow.data import hard_patches, patches
from mammoflow.data.hard_patches import APART, Scan
from mammoflow.data.patches import Lesion
from mammoflow.errors import ConfigError
from mammoflow.models import classifiers
from mammoflow.models.classifiers import PatchSpec
from mammoflow.training import mining

CONFIG = PatchConfig(side=SIDE, per_lesion=6)


def drawn(seed: int, *, outlined: bool = True) -> tuple[np.ndarray, list[Lesion], list[patches.Patch]]:
    rng = np.random.default_rng(seed)
    pixels, mask = film(rng, malignant=True)
    lesions = [
        Lesion(lesion_id="a", kind="mass", pathology="malignant", mask=mask),
        Lesion(lesion_id="b", kind="mass", pathology="benign", mask=np.roll(mask, 30, axis=0) if outlined else None),
    ]
    return pixels, lesions, patches.cut(pixels, lesions, CONFIG, rng)


def scanned(seed: int, step: int = 8) -> Scan:
    rows, columns = np.mgrid[: HEIGHT - SIDE + 1 : step, : WIDTH - SIDE + 1 : step]
    corners = np.stack([rows.ravel(), columns.ravel()], axis=1)
    scores = np.random.default_rng(seed).dirichlet(np.ones(5), len(corners)).astype(np.float32)
    return Scan(corners, scores)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 30), st.floats(0, 1))
def test_as_many_patches_of_each_lesion_and_all_of_them_qualify(seed: int, share: float) -> None:
    pixels, lesions, chosen = drawn(seed)
    scan = scanned(seed)
    changed = hard_patches.exchange(chosen, pixels, lesions, scan, share, CONFIG)
    assert [(p.lesion_id, p.label) for p in changed] == [(p.lesion_id, p.label) for p in chosen]
    union = np.logical_or(lesions[0].mask, lesions[1].mask)
    tissue = patches.tissue_mask(pixels)
    for lesion_id in ("a", "b", None):
        own = [p for p in changed if p.lesion_id == lesion_id]
        hard = [p for p in own if p.mined]
        kept = [p for p in chosen if p.lesion_id == lesion_id][: len(own) - len(hard)]
        assert own == [*kept, *hard], "the others are as drawn"
        assert len(hard) <= int(share * len(own) + 0.5)
        for patch in hard:
            window = np.s_[patch.row : patch.row + SIDE, patch.column : patch.column + SIDE]
            if lesion_id is None:
                assert not union[window].any()
                assert patch.overlap == pytest.approx(tissue[window].mean())
                assert patch.overlap >= CONFIG.min_tissue
            else:
                mask = lesions["ab".index(lesion_id)].mask
                assert patch.overlap == pytest.approx(mask[window].sum() / min(SIDE**2, mask.sum()))
                assert patch.overlap >= CONFIG.min_overlap
        apart = [max(abs(p.row - q.row), abs(p.column - q.column)) for p in hard for q in hard if p is not q]
        assert min(apart, default=APART) >= APART


def test_the_hardest_are_those_of_the_lowest_probability_of_what_they_show() -> None:
    pixels, lesions, chosen = drawn(3)
    scan = scanned(3)
    scan.scores[:, 0] = 0.9
    free = [
        place
        for place, (row, column) in enumerate(scan.corners)
        if not np.logical_or(lesions[0].mask, lesions[1].mask)[row : row + SIDE, column : column + SIDE].any()
        and patches.tissue_mask(pixels)[row : row + SIDE, column : column + SIDE].mean() >= CONFIG.min_tissue
    ]
    hardest = free[len(free) // 2]
    scan.scores[hardest, 0] = 0.1
    changed = hard_patches.exchange(chosen, pixels, lesions, scan, 1 / 12, CONFIG)
    (found,) = [p for p in changed if p.mined and p.lesion_id is None]
    assert (found.row, found.column) == tuple(scan.corners[hardest])
    assert hard_patches.exchange(chosen, pixels, lesions, scan, 0, CONFIG) == chosen


def test_background_that_may_show_a_lesion_stays_as_drawn() -> None:
    pixels, lesions, chosen = drawn(1, outlined=False)
    changed = hard_patches.exchange(chosen, pixels, lesions, scanned(1), 1, CONFIG)
    assert [p for p in changed if p.lesion_id is None] == [p for p in chosen if p.lesion_id is None]
    assert any(p.mined for p in changed), "the outlined lesion's are exchanged"


@pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow"])
def test_a_scan_has_the_heatmaps_scores_at_the_heatmaps_positions(backbone: str) -> None:
    spec = PatchSpec(precision="fp32", backbone=backbone, classes=CONFIG.classes, mean_grey=60.0, side=40, weights=None)
    model = classifiers.patch_classifier(spec, seed=0).eval()
    pixels = np.random.default_rng(0).integers(0, 65536, (150, 130)).astype(np.uint16)
    found = mining.scan(model, pixels)
    assert (found.corners >= 0).all()
    assert (found.corners + 40 <= pixels.shape).all()
    assert len({*map(tuple, found.corners.tolist())}) == len(found.corners)
    whole = classifiers.heatmap(model, torch.from_numpy(pixels[:128, :128].copy()))
    shifted = classifiers.heatmap(model, torch.from_numpy(pixels[16:144, :128].copy()))
    at = {tuple(corner): scores for corner, scores in zip(found.corners.tolist(), found.scores, strict=True)}
    np.testing.assert_array_equal(at[64, 32], whole[2, 1])
    np.testing.assert_array_equal(at[48, 64], shifted[1, 2])
    assert found.scores.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("backbone", ["resnet10_narrow", "vgg9_bn_narrow", "timm:tf_efficientnet_lite0"])
def test_a_scan_names_the_place_that_it_scored(backbone: str) -> None:
    """What moves with the image by 16 px has its scores 16 px on, far from the borders."""
    spec = PatchSpec(
        precision="fp32", backbone=backbone, classes=CONFIG.classes, mean_grey=128.0, side=64, weights=None
    )
    model = classifiers.patch_classifier(spec, seed=0)
    pixels = np.random.default_rng(0).integers(0, 65536, (448, 448)).astype(np.uint16)
    model.train()(classifiers.to_input(torch.from_numpy(pixels[None, :192, :192])))  # BatchNorm sees something
    model.eval()

    def at(image: np.ndarray, row: int, column: int) -> np.ndarray:
        found = mining.scan(model, image)
        (place,) = np.flatnonzero((found.corners == (row, column)).all(axis=1))
        return found.scores[place]

    here, there = at(pixels, 192, 192), at(np.roll(pixels, (16, 16), axis=(0, 1)), 208, 208)
    elsewhere = at(pixels, 208, 208)
    assert np.abs(here - there).max() < 0.5 * np.abs(here - elsewhere).max()


def test_what_cannot_be_mined_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hard_examples is 1.5, but must be between 0 and 1"):
        TrunkConfig(hard_examples=1.5)
    config = recipes.ALL["cbis-s1-resnet50"]()
    with pytest.raises(ConfigError, match=r"patches.set is 'S1', but must be S10 for hard-example mining"):
        replace(config, trunks=(replace(config.trunks[0], hard_examples=0.5),))
