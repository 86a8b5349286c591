import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small_dicom import breast, dicom, release, write

from mammoflow import lake
from mammoflow.config import ComputeConfig, Config, ImageConfig, PatchConfig, PhantomConfig, SplitConfig
from mammoflow.data import ingest, outlines
from mammoflow.data.ingest import shards
from mammoflow.errors import ConfigError, LakeError, SplitError
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact, Lake

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config(**changes) -> Config:
    base = {
        "name": "test",
        "images": ImageConfig(height=120, width=80),
        "splits": SplitConfig(test=0.25, val=0.25),
        "patches": PatchConfig(side=32, per_lesion=4),
        "compute": ComputeConfig(images_per_shard=5),
    }
    return Config(**{**base, **changes})


def silent(_: str) -> None:
    pass


def contents(artefact: Artefact) -> dict[str, bytes]:
    root = Path(artefact.url)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """24 films of 12 patients; one file is missing, one is cut off, one mask is missing."""
    root = tmp_path_factory.mktemp("cbis")
    release(root, patients=12)
    shutil.rmtree(root / "Mass-Training_P_00000_LEFT_CC")
    shutil.rmtree(root / "Mass-Training_P_00001_LEFT_CC_1")
    cut = next((root / "Mass-Training_P_00002_LEFT_CC").rglob("*.dcm"))
    cut.write_bytes(cut.read_bytes()[:3000])
    return root


@pytest.fixture(scope="module")
def images(source, tmp_path_factory, ray_cluster) -> tuple[Artefact, ImagesFacts]:
    out = Lake(str(tmp_path_factory.mktemp("lake"))).artefact("images", "test")
    return out, ingest.decode_images(config(), str(source), out, silent)


def test_every_image_ends_in_a_shard_or_in_quarantine_once(images, source):
    out, summary = images
    rows = lake.read_table(out.file("shards")).drop_columns(["pixels"]).to_pylist()
    quarantine = {row["image_id"]: row for row in lake.read_table(out.file("quarantine.parquet")).to_pylist()}
    exams = {row["image_id"]: row for row in lake.read_table(out.file("exams.parquet")).to_pylist()}
    fatal = {image_id for image_id, row in quarantine.items() if row["fatal"]}
    assert fatal == {"Mass-Training_P_00000_LEFT_CC", "Mass-Training_P_00002_LEFT_CC"}
    assert "no such file" in quarantine["Mass-Training_P_00000_LEFT_CC"]["reason"]
    assert sorted([row["image_id"] for row in rows] + list(fatal)) == sorted(exams)
    assert len(exams) == 24
    for row in rows:
        exam = exams[row["image_id"]]
        assert {k: row[k] for k in ("split", "label", "film_id", "laterality", "view", "density")} == {
            k: exam[k] for k in ("split", "label", "film_id", "laterality", "view", "density")
        }
        assert (row["source_height"], row["source_width"]) == (240, 160)
    no_mask = quarantine["Mass-Training_P_00001_LEFT_CC"]
    assert (no_mask["stage"], no_mask["fatal"]) == ("mask", False)
    assert [r["image_id"] for r in rows if r["lesions"][0]["mask_png"] is None] == ["Mass-Training_P_00001_LEFT_CC"]
    assert (summary.quarantined, summary.outlines_missing) == (2, 1)
    for split in ("train", "val", "test"):
        mine = [row for row in rows if row["split"] == split]
        assert summary.images[split] == len(mine)
        assert summary.malignant[split] == sum(row["label"] for row in mine)
        assert summary.patients[split] == len({row["patient_id"] for row in mine})


def test_pixels_outlines_and_mean_grey_are_those_of_the_films(images):
    out, summary = images
    train = []
    for url in lake.iter_shards(out):
        split = Path(url).name.partition("-")[0]
        table = pq.read_table(url)
        assert set(table["split"].to_pylist()) <= {split}
        assert table.num_rows <= 5
        for row, pixels in zip(table.to_pylist(), table["pixels"].combine_chunks().to_numpy_ndarray(), strict=True):
            if split == "train":
                train.append(pixels)
            if row["lesions"][0]["mask_png"]:
                mask = outlines.decode_mask(row["lesions"][0]["mask_png"])
                assert mask.shape == pixels.shape == (120, 80)
                assert mask.sum() == pytest.approx(np.pi * 9**2, rel=0.05), "a disc of radius 18, reduced by two"
    assert summary.mean_grey == pytest.approx(np.mean(train) * 255 / 65535)


def test_grey_values_of_all_films_are_counted(images):
    out, summary = images
    pixels = np.stack([p for url in lake.iter_shards(out) for _, p in shards.read_images(url)])
    expected, _ = np.histogram(pixels, bins=256, range=(0, 65536))
    assert summary.histogram == expected.tolist()
    assert sum(summary.histogram) == sum(summary.images.values()) * 120 * 80


def test_order_follows_from_the_images_and_not_from_settings(images, source, tmp_path):
    """A setting that is renamed or added must not change what any seed gives."""
    out, _ = images
    store = Lake(str(tmp_path / "lake"))
    stems = [Path(url).stem.rpartition("-") for url in lake.iter_shards(out)]
    other = store.artefact("images", "other settings")
    settings = replace(config().images, intensity="percentile")
    ingest.decode_images(config(images=settings), str(source), other, silent)
    others = [Path(url).stem.rpartition("-") for url in lake.iter_shards(other)]
    assert [kin for kin, _, _ in others] == [kin for kin, _, _ in stems]
    assert not {mark for _, _, mark in others} & {mark for _, _, mark in stems}
    patch_ids = []
    for decoded in (out, other):
        cut = store.artefact("patches", "of", decoded)
        ingest.cut_patches(config(), decoded, cut, silent)
        patch_ids.append(lake.read_table(cut.file("shards"), columns=["patch_id"])["patch_id"].to_pylist())
    assert patch_ids[0] == patch_ids[1]


def test_a_rerun_does_only_what_is_missing_and_gives_the_same_bytes(images, source, tmp_path):
    first, summary = images
    out = Artefact("images", "test", first.fingerprint, str(tmp_path / "copy"))
    shutil.copytree(first.url, out.url)
    shards = sorted(Path(out.file("shards")).iterdir())
    kept = {path: path.stat().st_mtime_ns for path in shards[1:]}
    shards[0].unlink()
    shards[0].with_name(f".{shards[0].name}.half").write_bytes(b"what a killed task leaves")
    lines: list[str] = []
    assert ingest.decode_images(config(), str(source), out, lines.append) == summary
    assert {path: path.stat().st_mtime_ns for path in shards[1:]} == kept
    assert "images decoded before" in lines[0]
    shards[0].with_name(f".{shards[0].name}.half").unlink()
    assert contents(out) == contents(first)


def test_other_shard_sizes_after_a_kill_double_no_row(images, source, tmp_path):
    first, summary = images
    out = Artefact("images", "test", first.fingerprint, str(tmp_path / "copy"))
    shutil.copytree(first.url, out.url)
    next(Path(out.file("shards")).iterdir()).unlink()
    larger = ingest.decode_images(config(compute=ComputeConfig(images_per_shard=9)), str(source), out, silent)
    assert larger == summary
    ids = lake.read_table(out.file("shards"), columns=["image_id"])["image_id"].to_pylist()
    assert len(ids) == len({*ids}) == sum(summary.images.values())


def test_patches_are_cut_from_their_images_and_counted(images, tmp_path):
    decoded, _ = images
    out = Lake(str(tmp_path)).artefact("patches", "test")
    summary = ingest.cut_patches(config(), decoded, out, silent)
    table = lake.read_table(out.file("shards"))
    rows = table.drop_columns(["pixels"]).to_pylist()
    pixels_NPP = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["pixels"].chunks if len(chunk)])
    source_pixels = {}
    for url in lake.iter_shards(decoded):
        shard = pq.read_table(url)
        stack = shard["pixels"].combine_chunks().to_numpy_ndarray()
        source_pixels |= dict(zip(shard["image_id"].to_pylist(), stack, strict=True))
    assert len({row["patch_id"] for row in rows}) == len(rows)
    for row, pixels in zip(rows, pixels_NPP, strict=True):
        window = np.s_[row["row"] : row["row"] + 32, row["column"] : row["column"] + 32]
        assert np.array_equal(pixels, source_pixels[row["image_id"]][window])
    unverified = [row for row in rows if row["unverified"]]
    assert {row["image_id"] for row in unverified} == {"Mass-Training_P_00001_LEFT_CC"}
    assert summary.unverified == len(unverified) == 4
    total = 21 * 4 + 22 * 4  # lesions with an outline, and background of every image
    assert sum(sum(of.values()) for of in summary.patches.values()) == len(rows) == total
    first = rows[: len(rows) // 4]
    assert len({row["label"] for row in first}) > 1, "rows are shuffled within a shard"
    again = Lake(str(tmp_path / "again")).artefact("patches", "test")
    assert ingest.cut_patches(config(), decoded, again, silent) == summary
    assert contents(again) == contents(out)


def test_own_images_go_all_the_way_with_their_outlines_and_splits(tmp_path, ray_cluster):
    rows, lesions = ["path,patient_id,laterality,view,label,split"], ["path,kind,pathology,x,y,radius,polygon"]
    for n in range(12):
        split, malignant = ("train", "val", "test")[n // 4], n % 2
        film = breast(seed=n)
        write(tmp_path / "own" / f"{n}.png", cv2.imencode(".png", film)[1].tobytes())
        rows.append(f"{n}.png,p{n},L,CC,{malignant},{split}")
        pathology = ("benign", "malignant")[malignant]
        lesions.append(f"{n}.png,mass,{pathology},60,110,15,")
        lesions.append(f"{n}.png,other,{pathology},,,,20 150 60 150 40 190")
    write(tmp_path / "own" / "images.csv", "\n".join(rows).encode())
    write(tmp_path / "own" / "lesions.csv", "\n".join(lesions).encode())
    run = config(splits=SplitConfig(protocol="given"))
    root = Lake(str(tmp_path / "lake"))
    decoded, cut = root.artefact("images", "own"), root.artefact("patches", "own")
    summary = ingest.decode_images(run, str(tmp_path / "own"), decoded, silent)
    assert summary.images == {"train": 4, "val": 4, "test": 4}
    assert summary.quarantined == summary.outlines_missing == 0
    assert summary.source == {"rows": 12, "images": 12, "patients": 12}
    counts = ingest.cut_patches(run, decoded, cut, silent).patches
    assert counts["train"] == {
        "background": 16,
        "malignant_mass": 8,
        "benign_mass": 8,
        "malignant_calcification": 0,
        "benign_calcification": 0,
    }
    row = lake.read_table(decoded.file("shards")).to_pylist()[0]
    circle = outlines.decode_mask(row["lesions"][0]["mask_png"])
    assert np.argwhere(circle).mean(axis=0) == pytest.approx([110 / 2, 60 / 2], abs=1), "(row, column), reduced by two"


def test_the_lake_knows_the_vendor_and_not_what_else_the_file_says(tmp_path, ray_cluster):
    makers = ["HOLOGIC, Inc.", "Clinic of Jane Roe", None]
    rows = ["path,patient_id,laterality,view,label,split"]
    for n, maker in enumerate(makers):
        tags = {"Manufacturer": maker} if maker else {}
        write(tmp_path / "own" / f"{n}.dcm", dicom(breast(seed=n), **tags))
        rows.append(f"{n}.dcm,p{n},L,CC,{n % 2},test")
    write(tmp_path / "own" / "images.csv", "\n".join(rows).encode())
    out = Lake(str(tmp_path / "lake")).artefact("images", "own")
    ingest.decode_images(config(splits=SplitConfig(protocol="given")), str(tmp_path / "own"), out, silent)
    table = lake.read_table(out.file("shards")).sort_by("image_id")
    assert table["vendor"].to_pylist() == ["Hologic", "other", None]
    assert not any(b"Jane" in path.read_bytes() for path in Path(out.url).rglob("*.*"))


def test_a_manifest_of_one_ingest_gives_another_its_splits(images, source, tmp_path):
    published = tmp_path / "splits.csv"
    published.write_bytes(lake.read_bytes(images[0].file("splits.csv")))
    run = config(splits=SplitConfig(manifest=str(published)), seed=7)
    out = Lake(str(tmp_path / "lake")).artefact("images", "again")
    assert ingest.decode_images(run, str(source), out, silent).images == images[1].images
    assert lake.read_bytes(out.file("splits.csv")) == published.read_bytes()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_pixels_under_two_ids_are_found_and_across_splits_an_error(tmp_path, split, ray_cluster):
    rows = ["path,patient_id,laterality,view,label,split"]
    for n in range(6):
        write(tmp_path / "own" / f"{n}.png", cv2.imencode(".png", breast(seed=n))[1].tobytes())
        rows.append(f"{n}.png,p{n},L,CC,{n % 2},{('train', 'val', 'test')[n // 2]}")
    write(tmp_path / "own" / "twin.tiff", cv2.imencode(".tiff", breast(seed=0))[1].tobytes())
    write(tmp_path / "own" / "images.csv", "\n".join([*rows, f"twin.tiff,p9,L,CC,1,{split}"]).encode())
    run = config(splits=SplitConfig(protocol="given"))
    out = Lake(str(tmp_path / "lake")).artefact("images", "own")
    if split == "test":
        with pytest.raises(SplitError, match=r"shows the same pixels as .*, a leak"):
            ingest.decode_images(run, str(tmp_path / "own"), out, silent)
        return
    summary = ingest.decode_images(run, str(tmp_path / "own"), out, silent)
    assert (summary.duplicates, summary.quarantined, summary.images["train"]) == (1, 0, 3)
    (row,) = lake.read_table(out.file("quarantine.parquet")).to_pylist()
    assert "shows the same pixels as" in row["reason"]
    assert not row["fatal"]


def test_errors_of_a_task_come_out_as_they_were_raised(images, source, tmp_path):
    decoded, _ = images
    few = config(patches=PatchConfig(side=32, classes=("background", "malignant_mass")))
    with pytest.raises(ConfigError, match="benign_mass, but the classes are background, malignant_mass"):
        ingest.cut_patches(few, decoded, Lake(str(tmp_path)).artefact("patches", "few"), silent)
    blocked = Lake(str(tmp_path)).artefact("images", "blocked")
    lake.write_bytes(blocked.file("ledger"), b"a file where a folder should be")
    with pytest.raises(LakeError, match="can't list"):
        ingest.decode_images(config(), str(source), blocked, silent)


def test_phantoms_go_all_the_way_with_every_outline_found_and_a_rerun_draws_only_what_is_missing(tmp_path):
    run = config(phantoms=PhantomConfig(patients=14, height=256, width=192, compressed=0.6, two_series=0.3))
    root = Lake(str(tmp_path / "lake"))
    drawn, decoded, cut = root.artefact("phantoms", "p"), root.artefact("images", "p"), root.artefact("patches", "p")
    summary = ingest.draw_phantoms(run, drawn, silent)
    before = contents(drawn)
    assert summary.patients == 14
    assert summary.files == sum(name.endswith(".dcm") for name in before)
    next(Path(drawn.file("ledger")).iterdir()).unlink()
    next(Path(drawn.file("release")).glob("*.csv")).unlink()
    lines: list[str] = []
    assert ingest.draw_phantoms(run, drawn, lines.append) == summary
    assert contents(drawn) == before
    assert "13 of 14 patients drawn before" in lines[0]

    images = ingest.decode_images(run, drawn.file("release"), decoded, silent)
    assert lake.read_table(decoded.file("quarantine.parquet")).num_rows == 0, "crops and masks are told apart"
    assert images.outlines_missing == 0
    patches = ingest.cut_patches(run, decoded, cut, silent)
    lesions = sum(len(some) for some in lake.read_table(decoded.file("shards"))["lesions"].to_pylist())
    assert sum(sum(of.values()) for of in patches.patches.values()) == 2 * 4 * lesions
    assert patches.unverified == 0


def test_the_real_films_get_the_csv_s_labels_and_background_on_tissue_only(real_release, tmp_path):
    run = config(
        images=ImageConfig(height=288, width=224),
        patches=PatchConfig(side=56),
        splits=SplitConfig(protocol="official"),
        compute=ComputeConfig(images_per_shard=4),
    )
    root = Lake(str(tmp_path / "lake"))
    decoded, cut = root.artefact("images", "real"), root.artefact("patches", "real")
    summary = ingest.decode_images(run, str(real_release), decoded, silent)
    assert (summary.images["test"], summary.quarantined) == (8, 0)
    assert summary.mean_grey is None
    table = lake.read_table(decoded.file("shards"))
    labels = dict(zip(table["image_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert {i for i, label in labels.items() if label} == {f"Mass-Test_P_00820_LEFT_{view}" for view in ("CC", "MLO")}
    quarantine = lake.read_table(decoded.file("quarantine.parquet")).to_pylist()
    assert {row["image_id"] for row in quarantine} == set(labels)
    assert all("no outline of this lesion" in row["reason"] and not row["fatal"] for row in quarantine)
    ingest.cut_patches(run, decoded, cut, silent)
    rows = lake.read_table(cut.file("shards"))
    assert rows.num_rows == 10 * 10, "ten rows of the CSV, ten patches each"
    assert pc.all(rows["unverified"]).as_py()
    assert pc.min(rows["overlap"]).as_py() >= 0.5
    stack = np.concatenate([chunk.to_numpy_ndarray() for chunk in rows["pixels"].chunks])
    assert stack.mean(axis=(1, 2)).min() > 0.08 * 65535, "no patch of air"
