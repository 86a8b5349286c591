"""Quarantined images tried again: what was mended is taken in, what was good is left as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_dicom import release

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config
from mammoflow.errors import QuarantineError
from mammoflow.facts.stages import PatchesFacts
from mammoflow.pipeline import build
from mammoflow.pipeline.graph import Artefacts

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A film of a release of 24 films below tmp_path/source."""
    release(tmp_path / "source", patients=12)
    return next((tmp_path / "source" / "Mass-Training_P_00003_LEFT_CC").rglob("*.dcm"))


def config(folder: Path, *, max_bad: float = 0.1, again: bool = False) -> Config:
    return replace(
        recipes.smoke(),
        source=str(folder / "source"),
        lake=str(folder / "lake"),
        compute=ComputeConfig(images_per_shard=4, max_bad=max_bad, retry_quarantined=again),
    )


def written(artefacts: Artefacts) -> dict[str, int]:
    """When each shard of the images was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(artefacts.images.file("shards")).iterdir()}


def used(artefacts: Artefacts) -> set[str]:
    return set(lake.read_table(artefacts.images.file("shards"), ["image_id"])["image_id"].to_pylist())


def test_what_became_readable_is_decoded_again_and_other_patches_follow(film, tmp_path, capsys):
    good = film.read_bytes()
    film.write_bytes(bytes(132) + good[132:])  # no DICM mark, yet of the same size
    with pytest.raises(QuarantineError, match=r"1 of 24 images .* jobs/ingest.py with the same flags and --retry-qu"):
        build.ensure("patches", config(tmp_path, max_bad=0))
    first = build.ensure("patches", config(tmp_path))
    assert len(used(first)) == 23
    before, summary = written(first), first.patches.facts(PatchesFacts)

    unchanged = build.ensure("patches", config(tmp_path, again=True))
    assert (unchanged.images.url, unchanged.patches.url) == (first.images.url, first.patches.url)
    assert "1 shard(s)" in capsys.readouterr().out
    assert first.patches.facts(PatchesFacts) == summary, "nothing else was found, so nothing else follows"

    film.write_bytes(good)
    mended = build.ensure("patches", config(tmp_path, max_bad=0, again=True))
    assert len(used(mended)) == 24
    assert mended.images.url == first.images.url
    assert mended.patches.url != first.patches.url
    assert first.patches.facts(PatchesFacts) == summary, "what was made of 23 images stays what it was"
    after = written(mended)
    assert sum(before[name] != after[name] for name in before) == 1
    assert lake.read_table(mended.images.file("quarantine.parquet")).num_rows == 0
    assert build.find(["patches"], config(tmp_path)).patches.url == mended.patches.url


def test_a_file_fetched_again_costs_its_own_shard_only(film, tmp_path, capsys):
    good = film.read_bytes()
    film.write_bytes(good[:3000])
    first = build.ensure("images", config(tmp_path))
    film.write_bytes(good)
    second = build.ensure("images", config(tmp_path))
    assert second.images.url != first.images.url
    assert len(used(second)) == 24
    shards = len(written(second))
    assert f"{shards - 1} of {shards} shards are those of an earlier run" in capsys.readouterr().out
    whole = build.ensure("images", replace(config(tmp_path), lake=str(tmp_path / "other")))
    for path in Path(whole.images.url).rglob("*.*"):
        if path.name != lake.DONE:
            assert (Path(second.images.url) / path.relative_to(whole.images.url)).read_bytes() == path.read_bytes()


def test_a_kill_after_a_retry_began_leaves_an_artefact_to_be_completed(film, tmp_path):
    film.write_bytes(film.read_bytes()[:3000])
    first = build.ensure("images", config(tmp_path))
    whole = {path: path.read_bytes() for path in Path(first.images.url).rglob("*.*") if path.name != lake.DONE}
    assert build.shards.reopen(first.images) == 1
    assert not first.images.done
    again = build.ensure("images", config(tmp_path))
    assert again.images.done
    assert {path: path.read_bytes() for path in whole} == whole
