"""The two-step baseline: figures of regions by hand, the forest as data, scores through Ray with the lock on test."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_lake import FILMS, make
from sklearn.ensemble import RandomForestClassifier

from mammoflow.config import CLASSES, EnsembleConfig, TwoStepConfig
from mammoflow.ensemble import ensemble, evaluation, forest, region_features, two_step
from mammoflow.errors import ConfigError, LakeError, SplitError
from mammoflow.lake.schema import SCORES

SMALL = TwoStepConfig(trees=40, depth=4, min_split=4)


def heatmap(**maps):
    """A heatmap of 30x22 cells: background, but for what the maps of some classes say."""
    values = np.zeros((30, 22, len(CLASSES)), np.float32)
    for name, map_uv in maps.items():
        values[..., CLASSES.index(name)] = map_uv
    values[..., 0] = 1 - values.sum(axis=-1)
    return values


def named(map_uvC, cutoffs=(0.5,), regions=2):
    figures = region_features.features(map_uvC, cutoffs, regions)
    return dict(zip(region_features.names(CLASSES, cutoffs, regions), figures, strict=True))


def test_a_rectangle_by_hand():
    mass = np.zeros((30, 22))
    mass[10:13, 5:10] = 0.8
    mass[11, 7] = 0.9
    mass[20, 20] = 0.6
    found = named(heatmap(malignant_mass=mass))
    assert found["malignant_mass: maximum"] == pytest.approx(0.9)
    assert (found["malignant_mass > 0.5: regions"], found["malignant_mass > 0.5: area"]) == (2, 16)
    first = {name.split(": ")[1]: value for name, value in found.items() if "malignant_mass > 0.5, region 1" in name}
    assert list(first) == list(region_features.OF_REGION)
    assert first["area"] == 15
    for figure in ("area/convex", "area/filled", "extent", "solidity", "Euler number"):
        assert first[figure] == 1
    assert first["mean"] == pytest.approx((14 * 0.8 + 0.9) / 15)
    assert first["maximum"] == pytest.approx(0.9)
    assert first["equivalent diameter"] == pytest.approx((4 * 15 / np.pi) ** 0.5)
    # Variances of 0..4 and 0..2 along the sides: 2 and 2/3; the axes are 4 times their roots.
    assert (first["inertia 1"], first["inertia 2"]) == pytest.approx((2, 2 / 3))
    assert (first["major axis"], first["minor axis"]) == pytest.approx((4 * 2**0.5, 4 * (2 / 3) ** 0.5))
    assert first["eccentricity"] == pytest.approx((1 - 1 / 3) ** 0.5)
    assert first["perimeter"] == 12
    second = found["malignant_mass > 0.5, region 2: area"]
    assert second == 1
    assert all(value == 0 for name, value in found.items() if not name.startswith("malignant_mass"))


def test_a_ring_has_a_hole_and_corners_touch():
    ring = np.zeros((30, 22))
    ring[4:9, 4:9] = 0.7
    ring[6, 6] = 0
    ring[9, 9] = 0.7
    found = named(heatmap(benign_calcification=ring))
    assert found["benign_calcification > 0.5: regions"] == 1
    assert found["benign_calcification > 0.5, region 1: Euler number"] == 0
    assert found["benign_calcification > 0.5, region 1: area/filled"] == pytest.approx(25 / 26)


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
def test_any_map_gives_as_many_finite_figures(seed, density):
    rng = np.random.default_rng(seed)
    values = rng.random((30, 22, len(CLASSES))).astype(np.float32) * (rng.random((30, 22, 1)) < density)
    cutoffs, regions = (0.3, 0.9), 3
    found = region_features.features(values, cutoffs, regions)
    assert len(found) == len(region_features.names(CLASSES, cutoffs, regions))
    assert len(found) == (len(CLASSES) - 1) * (1 + len(cutoffs) * (2 + regions * len(region_features.OF_REGION)))
    assert np.isfinite(found).all()
    mirrored = region_features.features(np.ascontiguousarray(values[:, ::-1]), cutoffs, 1)
    names = region_features.names(CLASSES, cutoffs, 1)
    whole = region_features.features(values, cutoffs, 1)
    same = [n for n, name in enumerate(names) if name.endswith(("maximum", ": regions", ": area"))]
    assert mirrored[same] == pytest.approx(whole[same])


def drawn(images=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    return rng.normal(0, 1, (images, 6)) + labels[:, None] * [1, 0.5, 0, 0, 0, 0], labels


def test_the_forest_is_that_of_scikit_learn_and_is_kept_as_data():
    figures, labels = drawn()
    fitted = forest.fit(figures, labels, SMALL, seed=3)
    theirs = RandomForestClassifier(40, max_depth=4, min_samples_split=4, class_weight="balanced", random_state=3).fit(
        figures, labels
    )
    fresh, _ = drawn(images=500, seed=1)
    np.testing.assert_allclose(fitted.predict(fresh), theirs.predict_proba(fresh)[:, 1], atol=1e-12)
    data = forest.to_bytes(fitted)
    again = forest.from_bytes(data)
    assert (again.predict(fresh) == fitted.predict(fresh)).all()
    assert forest.to_bytes(forest.fit(figures, labels, SMALL, seed=3)) == data
    with pytest.raises(LakeError, match="fit it anew"):
        forest.from_bytes(data[: len(data) // 2])


def test_a_forest_that_could_not_split_is_refused():
    figures, labels = drawn(images=100)
    with pytest.raises(ConfigError, match=r"min_split is 300.* 100 training images.*--two-step\.min-split 16"):
        forest.fit(figures, labels, TwoStepConfig(), seed=0)
    with pytest.raises(SplitError, match="of one class"):
        forest.fit(figures, np.zeros(100, int), SMALL, seed=0)
    for wrong in ({"cutoffs": ()}, {"cutoffs": (1.2,)}, {"regions": 0}, {"min_split": 1}):
        with pytest.raises(ConfigError, match=f"two_step.{next(iter(wrong))}"):
            TwoStepConfig(**wrong)


def test_images_are_scored_and_test_stays_closed_until_the_baseline_is_frozen(tmp_path_factory, ray_cluster):
    made = make(tmp_path_factory.mktemp("two-step"))
    folder, compute = made.trunk.file("best"), made.config.compute
    fitted = two_step.fit(folder, made.images, SMALL, compute, seed=0)
    val = two_step.score_split(fitted, folder, made.images, "val", SMALL, compute)
    assert val.schema == SCORES
    assert val.num_rows == FILMS["val"]
    assert set(val["model"].to_pylist()) == {two_step.NAME}
    asked = (fitted, folder, made.images, "test", SMALL, compute)
    with pytest.raises(SplitError, match="stays closed"):
        two_step.score_split(*asked)
    frozen = two_step.choose(val, "resnet10_narrow", EnsembleConfig())
    test = two_step.score_split(*asked, frozen=frozen)
    assert test.num_rows == FILMS["test"]
    point = ensemble.performance(test, frozen)
    assert point.cutoff == frozen.cutoff
    # The same in one task a shard as in one for all; flips change the heatmap, so the mean is another score.
    again = two_step.score_split(*asked, frozen=replace(frozen, cutoff=0.1))
    assert again.equals(test)
    assert evaluation.open_shards(made.images, "test", frozen)
