"""The two-step baseline on Ray: it scores images, and its test split stays closed until it is frozen."""

from dataclasses import replace

import pytest
from made_lake import FILMS, make

from mammoflow.config import EnsembleConfig, TwoStepConfig
from mammoflow.ensemble import performance, split_door, two_step
from mammoflow.errors import SplitError
from mammoflow.lake.schema import SCORES

SMALL = TwoStepConfig(trees=40, depth=4, min_split=4)


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
    point = performance.measure(test, frozen).at_cutoff
    assert point.cutoff == frozen.cutoff
    # The same in one task a shard as in one for all; flips change the heatmap, so the mean is another score.
    again = two_step.score_split(*asked, frozen=replace(frozen, cutoff=0.1))
    assert again.equals(test)
    assert split_door.open_split(made.images, "test", frozen)
