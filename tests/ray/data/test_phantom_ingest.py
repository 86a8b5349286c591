"""Each layout of phantoms, whole: drawn, listed, decoded and cut on Ray, with every outline, label and patch there."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mammoflow import lake
from mammoflow.config import ComputeConfig, Config, ImageConfig, PatchConfig, PhantomConfig, SplitConfig, TrunkConfig
from mammoflow.data import ingest
from mammoflow.data.phantom import release
from mammoflow.data.phantom.layouts import LAYOUTS, inbreast
from mammoflow.data.phantom.marginals import MALIGNANT
from mammoflow.errors import ConfigError
from mammoflow.lake import Lake
from mammoflow.pipeline import graph
from mammoflow.pipeline.build import find

LAYOUT_NAMES = ("inbreast", "csv_folder")


def config(layout: str, **changes) -> Config:
    base = {
        "name": "test",
        "phantoms": PhantomConfig(layout=layout, patients=16, height=256, width=192, compressed=0.6, two_series=0.2),
        "images": ImageConfig(height=120, width=80),
        "splits": SplitConfig(protocol="70-30", val=0.3),
        "patches": PatchConfig(side=32, per_lesion=4),
        "trunks": (TrunkConfig(backbone="resnet10_narrow", weights=None, top_layers=("[8-8-16]x1,[8-8-16]x1",)),),
        "compute": ComputeConfig(images_per_shard=20),
    }
    return Config(**{**base, **changes})


def silent(_: str) -> None:
    pass


def planned_films(run: Config) -> Counter:
    """Films that the release's reader uses, by whether they are malignant."""
    films = [film for patient in release.plan(run.phantoms, run.seed) for film in patient.films]
    if run.phantoms.layout == "inbreast":
        films = [film for film in films if inbreast.birads(film, run.seed) != "3"]
    return Counter(any(lesion.pathology == MALIGNANT for lesion in film.lesions) for film in films)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_a_layout_goes_all_the_way_with_every_outline_label_and_patch(layout, tmp_path, ray_cluster):
    run = config(layout)
    made = graph.locate(run, Lake(str(tmp_path)))
    drawn = ingest.draw_phantoms(run, made.one("phantoms"), silent)
    assert drawn.patients == 16
    images = ingest.decode_images(run, made.source, made.images, silent)
    assert (images.quarantined, images.outlines_missing, images.duplicates) == (0, 0, 0)
    rows = lake.read_table(made.images.file("shards")).drop_columns(["pixels"]).to_pylist()
    labels = Counter(bool(row["label"]) for row in rows)
    assert labels == planned_films(run)
    assert labels[False] > labels[True] > 0
    assert all((row["source_height"], row["source_width"]) == (256, 192) for row in rows)
    assert any(not row["lesions"] for row in rows), "normal films"
    assert {row["view"] for row in rows} == {"CC", "MLO"}

    expected = defaultdict(Counter)
    for row in rows:
        for lesion in row["lesions"]:
            assert lesion["mask_png"] is not None
            if lesion["kind"] != "other":
                expected[row["split"]][f"{lesion['pathology']}_{lesion['kind']}"] += 4
                expected[row["split"]]["background"] += 4
    patches = ingest.cut_patches(run, made.images, made.patches, silent)
    assert {split: Counter(of) for split, of in patches.patches.items()} == expected
    assert (patches.unverified, patches.quarantined) == (0, 0)
    normal = {row["image_id"] for row in rows if not row["lesions"]}
    cut = lake.read_table(made.patches.file("shards"), columns=["image_id"])["image_id"].to_pylist()
    assert not normal & {*cut}, "a film without lesions gives no patch"


def test_the_layout_names_the_artefacts_and_the_dataset(tmp_path):
    store = Lake(str(tmp_path))
    fingerprints = set()
    for layout in LAYOUTS:
        made = graph.locate(config(layout), store)
        assert made.one("phantoms").name == layout
        assert made.images.name == f"phantoms-{layout}-120x80"
        assert made.patches.name == f"phantoms-{layout}-120x80-S10"
        fingerprints.add(made.images.fingerprint)
        assert find([], config(layout, lake=str(tmp_path))).config.dataset == layout
    assert len(fingerprints) == len(LAYOUTS)
    with pytest.raises(ConfigError, match=r"'inbreast', but phantoms .* layout 'csv_folder'.*--phantoms\.layout"):
        find([], config("csv_folder", lake=str(tmp_path), dataset="inbreast"))


def test_a_rerun_without_its_ledger_draws_the_same_release(tmp_path, ray_cluster):
    run = config("csv_folder", compute=ComputeConfig(images_per_shard=40))
    made = graph.locate(run, Lake(str(tmp_path)))
    summary = ingest.draw_phantoms(run, made.one("phantoms"), silent)
    root = Path(made.source)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(before) == summary.files + 2
    for gone in ("films/P_00001*", "lesions.csv"):
        next(root.glob(gone)).unlink()
    for entry in Path(made.one("phantoms").file("ledger")).iterdir():
        entry.unlink()
    assert ingest.draw_phantoms(run, made.one("phantoms"), silent) == summary
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
