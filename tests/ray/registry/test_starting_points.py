"""Whole-image classifiers of other data to go on from: found, refused, brought into the lake, trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whole_images
from made_lake import make
from registering import members, register

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config, EnsembleConfig, ImageConfig, ImageTrainingConfig, StageConfig
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import ConfigError, LakeError, SpecError, TrackingError
from mammoflow.facts.results import Interval
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Lake
from mammoflow.models import classifiers, model_files
from mammoflow.pipeline import build, graph, stages
from mammoflow.registry import promotion, starting_points
from mammoflow.registry.registry import Registry
from mammoflow.search import tuning

NAME = "of-elsewhere"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("starts"))


@pytest.fixture(scope="module")
def store(made) -> Lake:
    """A lake whose registry holds two members as version 1, the champion."""
    folder = made.search.url.split("/search/")[0]
    figures = {
        "val_images": 10,
        "val_auc": 0.8,
        "val_by_patient": Interval(low=0.7, high=0.9),
        "val_sensitivity": 0.8,
        "val_specificity": 0.7,
    }
    frozen = Ensemble(members=members(made), cutoff=0.5, **figures)
    uri = f"sqlite:///{folder}/mlflow/mlflow.db"
    register(made, uri, frozen, NAME)
    promotion.promote(Registry(uri), NAME)
    return Lake(folder)


def asking(made, start: str, **images: int) -> Config:
    return replace(made.config, start=start, images=replace(made.config.images, **images))


def test_the_members_of_the_champion_are_found_and_copied_once(made, store, tmp_path) -> None:
    found = starting_points.find(asking(made, f"models:/{NAME}@champion"), store)
    assert found.name == f"models:/{NAME}/1"
    assert starting_points.find(asking(made, f"models:/{NAME}/1"), store).identity == found.identity
    assert {
        name: model_files.read_spec(lake.read_bytes(f"{folder}/model.json")) for name, folder in made.folders.items()
    } == found.specs
    out = Lake(str(tmp_path)).artefact("search", "made")
    folders = starting_points.fetch(found, out)
    for name, folder in folders.items():
        assert folder.startswith(out.url)
        assert lake.read_folder(folder) == lake.read_folder(made.folders[name])
    broken, whole = (Path(folder) / "model.safetensors" for folder in folders.values())
    before = whole.stat().st_mtime_ns
    starting_points.fetch(found, out)
    assert whole.stat().st_mtime_ns == before
    broken.unlink()  # as a kill between two files leaves it
    assert starting_points.fetch(found, out) == folders
    assert broken.is_file()


def test_a_folder_is_known_by_its_contents(made, tmp_path) -> None:
    (name, folder), *_ = made.folders.items()
    found = starting_points.find(asking(made, folder), Lake(str(tmp_path)))
    (copied,) = starting_points.fetch(found, Lake(str(tmp_path)).artefact("search", "made")).values()
    assert lake.read_folder(copied) == lake.read_folder(folder)
    assert list(found.specs) == [name]
    same, other = tmp_path / "same", tmp_path / "other"
    lake.write_folder(str(same), lake.read_folder(folder))
    lake.write_folder(str(other), lake.read_folder(list(made.folders.values())[1]))
    identities = [starting_points.find(asking(made, str(one)), Lake(str(tmp_path))).identity for one in (same, other)]
    assert [one == found.identity for one in identities] == [True, False]


def test_what_cannot_be_gone_on_from_is_refused(made, store, tmp_path) -> None:
    (folder, *_) = made.folders.values()
    for start, images, error, reason in (
        (made.trunk.file("best"), {}, ConfigError, "is a patch classifier, but start wants whole-image classifiers"),
        (f"models:/{NAME}@nobody", {}, TrackingError, "is not registered"),
        (f"models:/{NAME}/7", {}, TrackingError, "register one with `mammoflow select`"),
        (str(tmp_path), {}, LakeError, "model.json"),
        (folder, {"height": 64, "width": 64}, SpecError, "shrink"),
    ):
        with pytest.raises(error, match=reason):
            starting_points.find(asking(made, start, **images), store)
    own = EnsembleConfig(model_name=NAME)
    starting_points.check_name(replace(asking(made, f"models:/{NAME}/1"), ensemble=own))
    with pytest.raises(ConfigError, match=r"would begin from itself; give --ensemble\.model-name another"):
        starting_points.check_name(replace(asking(made, f"models:/{NAME}@champion"), ensemble=own))
    with pytest.raises(TrackingError, match="no model is registered"):
        starting_points.find(asking(made, f"models:/{NAME}@champion"), Lake(str(tmp_path)))


def test_a_registered_ensemble_scores_images_reduced_as_its_own(made, store) -> None:
    found = starting_points.find(asking(made, f"models:/{NAME}@champion"), store)
    starting_points.check_images(found.registered, made.config)
    for change, flag in (({"fit": "pad"}, "--images.fit stretch"), ({"intensity": "percentile"}, "--images.intensity")):
        other = replace(made.config, images=replace(made.config.images, **change))
        with pytest.raises(ConfigError, match=f"give {flag}"):
            starting_points.check_images(found.registered, other)
    with pytest.raises(ConfigError, match="names no registered ensemble; give one with --start"):
        build.ensure("external", replace(made.config, lake=store.root, start=next(iter(made.folders.values()))))


def test_a_model_goes_to_other_sizes_with_its_weights_and_the_new_mean(made) -> None:
    model = model_files.from_files(lake.read_folder(next(iter(made.folders.values()))))
    images = ImageConfig(height=192, width=160, fit="pad")
    new = classifiers.adapt(model, images, mean_grey=44.33, precision="fp32")
    assert (new.spec.height, new.spec.width, new.spec.fit, new.spec.mean_grey) == (192, 160, "pad", 44.33)
    assert new.trunk.mean_grey == 44.33
    state, before = new.state_dict(), model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (1, 192, 160), dtype=np.uint16))
    assert np.isfinite(classifiers.flip_averaged(new, pixels)[0]).all()


def test_layers_that_belong_to_a_size_keep_it(made) -> None:
    patches = model_files.from_files(lake.read_folder(made.trunk.file("best")))
    (model,) = whole_images.candidates(patches, ["fc-pool1-16-8"], made.config.images, 0).values()
    with pytest.raises(
        ConfigError, match=r"images of 160x128, and top.*no meaning at 192x160; keep --images.height 160"
    ):
        classifiers.adapted(model.spec, ImageConfig(height=192, width=160), 50.0)
    assert classifiers.adapted(model.spec, made.config.images, 50.0).mean_grey == 50.0


def test_a_config_wants_trunks_or_a_start() -> None:
    smoke = recipes.smoke()
    assert replace(smoke, start="models:/mammoflow@champion", trunks=()).trunks == ()
    with pytest.raises(ConfigError, match="name one, or give --start"):
        replace(smoke, trunks=())


@pytest.mark.usefixtures("ray_cluster")
def test_each_goes_on_with_all_its_layers_and_a_frozen_trunk_where_asked(made, store) -> None:
    stages = (StageConfig(trained="last", lr=1e-2, epochs=0), StageConfig(trained="all", lr=1e-3, epochs=2))
    config = replace(
        made.config,
        trunks=(),
        start=f"models:/{NAME}/1",
        image_training=ImageTrainingConfig(stages=stages, batch=4, precision="fp32"),
        search=replace(made.config.search, survivors="all"),
        compute=ComputeConfig(images_per_shard=4),
    )
    found = starting_points.find(config, store)
    out = store.artefact("search", "on", found.identity)
    said = tuning.search(config, store, made.images, {}, out, starting_points.fetch(found, out))
    assert {row.name for row in said.ranking} == set(made.folders)
    for row in said.ranking:
        assert (row.epochs, row.survived) == (2, True)
        before, after = (
            model_files.from_files(lake.read_folder(folder))
            for folder in (made.folders[row.name], out.file("candidates", row.name, "last"))
        )
        assert after.spec.mean_grey == made.images.facts(ImagesFacts).mean_grey
        moved = {
            name.split(".")[0]
            for name, value in before.named_parameters()
            if not torch.equal(value, after.state_dict()[name])
        }
        assert moved == {"trunk", "top"}


def test_a_search_follows_what_could_not_be_used_and_names_its_images(made, store, tmp_path) -> None:
    config = replace(asking(made, f"models:/{NAME}/1"), trunks=())
    images = graph.locate(config, store).images
    facts = made.images.facts(ImagesFacts)
    found = []
    for left_out in (None, "a", "b", "a"):
        images.finish(replace(facts, left_out=left_out))
        artefacts = graph.locate(config, store)
        found.append((artefacts.search.fingerprint, artefacts.evaluation.fingerprint))
    assert found[1] == found[3]
    assert len({*found}) == 3
    assert "images" in stages.STAGES["search"].needs


def test_ingest_asks_for_no_classifier_to_start_from(tmp_path, monkeypatch) -> None:
    config = replace(recipes.smoke(), lake=str(tmp_path), start="models:/nobody@champion")
    monkeypatch.setattr(starting_points, "find", None)
    artefacts = build._open(config, ["phantoms", "images", "patches"])
    assert artefacts.starts is None
