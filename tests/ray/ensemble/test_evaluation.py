"""Scores tables from real shards and models in Ray tasks, and the lock on the test split."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from made_lake import FILMS, make

from mammoflow import lake, tracking
from mammoflow.config import EnsembleConfig
from mammoflow.ensemble import ensemble, evaluation, selection, subgroups
from mammoflow.errors import LakeError, SplitError
from mammoflow.lake.schema import SCORES
from mammoflow.models import classifiers, model_files
from mammoflow.registry import model_card, predictor


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def val_scores(made, ray_cluster):
    return evaluation.score_split(made.folders, made.images, "val", made.config.compute)


def test_scores_are_those_of_the_model_on_each_image(made, val_scores):
    assert val_scores.schema == SCORES
    assert val_scores.num_rows == 2 * FILMS["val"]
    name, folder = next(iter(made.folders.items()))
    model = model_files.from_files(lake.read_folder(folder))
    rows = {row["image_id"]: row for row in ensemble.rows_of(val_scores, name).to_pylist()}
    films = lake.read_table(made.images.file("shards"), ["image_id", "split", "label", "pixels"])
    for index, film in enumerate(films.drop_columns("pixels").to_pylist()):
        if film["split"] != "val":
            assert film["image_id"] not in rows
            continue
        pixels = np.array(films["pixels"].slice(index, 1).combine_chunks().to_numpy_ndarray())
        plain, averaged = classifiers.flip_averaged(model, torch.from_numpy(pixels))
        row = rows[film["image_id"]]
        assert (row["score"], row["score_tta"]) == pytest.approx((plain[0], averaged[0]), abs=1e-6)
        assert (row["label"], row["split"]) == (film["label"], "val")


def test_bf16_scores_are_those_of_the_predictor_in_bf16(made, val_scores, ray_cluster, tmp_path):
    folders = {name: str(tmp_path / "members" / name) for name in made.folders}
    for name, folder in made.folders.items():
        model = model_files.from_files(lake.read_folder(folder))
        model.spec = replace(model.spec, precision="bf16")
        lake.write_folder(folders[name], model_files.to_files(model))
    scores = evaluation.score_split(folders, made.images, "val", made.config.compute)
    frozen = selection.choose(scores, made.ranking, EnsembleConfig())
    seen = evaluation.training_profile(made.images, made.config.compute)
    judged = model_card.validation(scores, frozen, "youden")
    code = tracking.code_tags()
    card = model_card.write(made.config, made.images, code=code, started_from=None, validation=judged, artefacts={})
    about = predictor.About(ensemble=frozen, images=made.config.images, precision="bf16", profile=seen, card=card)
    predictor.write_folder(str(tmp_path), about, folders, ensemble.average(scores, frozen))
    films = lake.read_table(made.images.file("shards"), ["image_id", "split", "pixels"]).sort_by("image_id")
    films = films.filter(pc.equal(films["split"], "val"))
    members = predictor.read_folder(str(tmp_path)).score(films["pixels"].combine_chunks().to_numpy_ndarray())
    for name, column in zip(frozen.names, members.T, strict=True):
        half, full = (ensemble.rows_of(table, name) for table in (scores, val_scores))
        assert half["image_id"].to_pylist() == films["image_id"].to_pylist()
        np.testing.assert_allclose(half["score_tta"].to_numpy(), column, atol=5e-3)
        np.testing.assert_allclose(half["score_tta"].to_numpy(), full["score_tta"].to_numpy(), atol=0.03)
        assert (half["score_tta"].to_numpy() != full["score_tta"].to_numpy()).any()


def test_the_test_split_stays_closed_until_the_ensemble_is_frozen(made, val_scores):
    compute = made.config.compute
    for locked in (None, val_scores, {"cutoff": 0.5}):
        with pytest.raises(SplitError, match="stays closed until members and cut-off are frozen"):
            evaluation.score_split(made.folders, made.images, "test", compute, ensemble=locked)
        with pytest.raises(SplitError, match="stays closed"):
            evaluation.patch_accuracy(made.trunk.file("best"), made.patches, "test", compute, ensemble=locked)
    frozen = selection.choose(val_scores, made.ranking, EnsembleConfig())
    scores = evaluation.score_split(made.folders, made.images, "test", compute, ensemble=frozen)
    assert set(scores["split"].to_pylist()) == {"test"}
    assert scores.num_rows == 2 * FILMS["test"]


def test_the_choice_is_the_same_where_no_test_image_exists(made, val_scores, tmp_path):
    """The code that selects can't have read the test split: it works on a copy of the lake that lacks it."""
    shutil.copytree(made.images.url, tmp_path / "images")
    for shard in (tmp_path / "images" / "shards").glob("test-*"):
        shard.unlink()
    without = replace(made.images, url=str(tmp_path / "images"))
    scores = evaluation.score_split(made.folders, without, "val", made.config.compute)
    choice = selection.choose_each(scores, made.ranking, EnsembleConfig())
    assert choice == selection.choose_each(val_scores, made.ranking, EnsembleConfig())
    with pytest.raises(LakeError, match="no shard of split 'test'"):
        evaluation.score_split(made.folders, without, "test", made.config.compute, ensemble=choice["greedy"])


def test_facts_of_images_stand_beside_their_scores(made, val_scores):
    facts = evaluation.image_facts(made.images, "val")
    name = next(iter(made.folders))
    assert facts["image_id"].equals(ensemble.rows_of(val_scores, name)["image_id"])
    assert {kind for kinds in facts["kinds"].to_pylist() for kind in kinds} <= {"mass", "calcification", "other"}
    groups = subgroups.table(ensemble.rows_of(val_scores, name), facts, 0.5)
    assert sum(group.images for group in groups if group.by == "density") == FILMS["val"]
    with pytest.raises(SplitError, match="stays closed"):
        evaluation.image_facts(made.images, "test")


def test_patch_accuracy_counts_every_certain_patch(made, ray_cluster):
    figures = evaluation.patch_accuracy(made.trunk.file("best"), made.patches, "val", made.config.compute)
    confusion = np.array(figures.confusion)
    assert confusion.sum() == figures.patches == 2 * FILMS["val"] - 1  # one background is unverified
    assert confusion.sum(axis=1).tolist() == [FILMS["val"] - 1, 5, 5, 0, 0]
    assert figures.accuracy == pytest.approx(np.trace(confusion) / confusion.sum())
    recalls = [confusion[c, c] / confusion[c].sum() for c in range(3)]
    assert figures.balanced_accuracy == pytest.approx(np.mean(recalls))
    model = model_files.from_files(lake.read_folder(made.trunk.file("best")))
    shard = lake.read_table(made.patches.file("shards", "val-000000000000.parquet"))
    pixels = torch.from_numpy(np.array(shard["pixels"].combine_chunks().to_numpy_ndarray()))
    with torch.inference_mode():
        named = model(classifiers.to_input(pixels)).argmax(1).numpy()
    certain = ~shard["unverified"].to_numpy()
    assert (named == shard["label"].to_numpy())[certain].mean() == pytest.approx(figures.accuracy)


def test_what_is_not_there_is_named(made, ray_cluster):
    compute = made.config.compute
    with pytest.raises(SplitError, match="'validation' is unknown"):
        evaluation.score_split(made.folders, made.images, "validation", compute)
    with pytest.raises(LakeError, match="no shard of split 'val'"):
        evaluation.score_split(made.folders, made.trunk, "val", compute)
