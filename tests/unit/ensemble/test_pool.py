"""Candidates of earlier searches that may join an ensemble: found in a real MLflow database by what they saw."""

from dataclasses import replace

import pytest
from made_lake import make

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.data import splits
from mammoflow.ensemble import pool
from mammoflow.errors import ConfigError
from mammoflow.lake import Lake
from mammoflow.tracking import BEST_METRIC, PLACE_TAG, SEARCHES, WEIGHTS_TAG, Tracker


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def store(made):
    return Lake(made.search.url.split("/search/")[0])


@pytest.fixture(scope="module")
def runs(made, store):
    """Runs of other searches, each lacking something but the good ones."""
    tracker = Tracker.open(store, SEARCHES)
    weights = f"{next(iter(made.folders.values()))}/model.safetensors"
    same = {**splits.same_data(made.images), "precision": made.config.image_training.precision}
    found = {}
    for name, auc, changed, state, tags in (
        ("better", 0.9, {}, "finished", {}),
        ("good", 0.8, {}, "finished", {}),
        ("pruned", 0.99, {}, "pruned at epoch 3", {}),
        ("failed", 0.99, {}, "failed: loss is nan", {}),
        ("other-images", 0.99, {"images": "0" * 12}, "finished", {}),
        ("other-splits", 0.99, {"splits": "0" * 12}, "finished", {}),
        ("other-precision", 0.99, {"precision": "another"}, "finished", {}),
        ("own", 0.99, {}, "finished", {PLACE_TAG: made.search.url}),
        ("gone", 0.85, {}, "finished", {WEIGHTS_TAG: f"{store.root}/no/model.safetensors"}),
    ):
        params = same | {"kind": "VGG-VGG", "backbone": "vgg16", "top_layers": "8x1,8x1", "changes": "lr*2"} | changed
        run = tracker.start(name, params=params, tags={PLACE_TAG: "elsewhere", WEIGHTS_TAG: weights} | tags)
        tracker.log(run, {BEST_METRIC: auc, "val_auc": 0.5}, step=1)
        tracker.mark(run, state)
        found[name] = run
    return found


def asking(made, **settings):
    return replace(made.config, ensemble=EnsembleConfig(**settings))


@pytest.mark.slow
def test_only_finished_ones_on_the_same_data_are_let_in(made, store, runs, capsys):
    found = pool.find(asking(made, pool="all"), store, made.images, made.search)
    assert [row.run_id for row in found] == [runs["better"], runs["good"]]
    first = found[0]
    assert first.name == f"better-{runs['better'][:8]}"
    assert (first.kind, first.top_layers) == ("VGG-VGG", "8x1,8x1 lr*2")
    assert lake.exists(f"{first.folder}/model.json")
    assert f"no weights any more: runs {runs['gone']}" in capsys.readouterr().out


def test_none_is_asked_for_unless_wanted(made, store, runs):
    assert pool.find(asking(made), store, made.images, made.search) == []
    (only,) = pool.find(asking(made, pool="all", pool_size=1), store, made.images, made.search)
    assert only.run_id == runs["better"]
    unfinished = store.artefact("search", "unfinished")
    assert pool.find(asking(made, pool="all"), store, made.images, unfinished) == []
    with pytest.raises(ConfigError, match="pool_size"):
        EnsembleConfig(pool="all", pool_size=0)
