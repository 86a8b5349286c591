import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config, PatchConfig
from mammoflow.errors import LakeError
from mammoflow.facts.stages import EnsembleFacts, ImagesFacts
from mammoflow.lake import schema


def test_fingerprint_covers_science_and_nothing_else() -> None:
    base = Config(name="a")
    same = Config(name="a", lake="/elsewhere", source="/data", compute=ComputeConfig(workers=7, gpu=True))
    other = Config(name="a", patches=PatchConfig(per_lesion=3))
    assert lake.fingerprint(base) == lake.fingerprint(same)
    assert lake.fingerprint(base) != lake.fingerprint(other)


@given(st.integers(0, 5), st.integers(0, 5))
def test_an_artefact_changes_with_any_of_its_inputs(a: int, b: int) -> None:
    root = lake.Lake("/lake")
    first, second = root.artefact("images", "x", {"seed": a}), root.artefact("images", "x", {"seed": b})
    assert (first.url == second.url) == (a == b)
    assert (root.artefact("patches", "x", first) == root.artefact("patches", "x", second)) == (a == b)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "file"
    lake.write_bytes(str(target), b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LakeError, match="No space left"):
        lake.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_tables_come_back_in_the_order_of_their_files(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1)):
        lake.write_table(str(tmp_path / f"{name}.parquet"), pa.table({"x": [value]}))
    assert lake.read_table(str(tmp_path))["x"].to_pylist() == [1, 2]
    with pytest.raises(LakeError, match="no Parquet"):
        lake.read_table(str(tmp_path / "absent"))


def test_an_artefact_is_done_only_when_finished(tmp_path: Path) -> None:
    item = lake.Lake(str(tmp_path)).artefact("images", "x", 1)
    lake.write_bytes(item.file("shards", "a"), b"")
    assert not item.done
    item.finish(EnsembleFacts(rule="greedy", members=("a", "b"), val_auc=0.75))
    assert item.done
    assert item.facts(EnsembleFacts).members == ("a", "b")


def test_done_json_records_version_inputs_settings_and_times_beside_the_facts(tmp_path: Path) -> None:
    root = lake.Lake(str(tmp_path))
    images = root.artefact("images", "x", 1)
    patches = root.artefact("patches", "x", images, patches=PatchConfig(per_lesion=3), seed=7)
    patches.finish({"patches": {}, "share": float("nan")}, [images], seconds=1.5)
    written = json.loads(lake.read_bytes(patches.file(lake.DONE)))
    assert sorted(written) == ["facts", "finished", "inputs", "schema", "seconds", "settings"]
    assert (written["schema"], written["inputs"], written["seconds"]) == (schema.VERSION, [images.key], 1.5)
    assert written["facts"] == {"patches": {}, "share": None}
    assert written["finished"].endswith("+00:00")
    assert written["settings"]["seed"] == 7
    assert written["settings"]["patches"]["per_lesion"] == 3
    assert root.at(patches.key).record().settings == written["settings"]


def test_done_json_of_version_2_is_read_as_it_was_meant(tmp_path: Path) -> None:
    item = lake.Lake(str(tmp_path)).artefact("ensemble", "x", 1)
    flat = {"members": ["a"], "val_auc": 0.7, "seconds": 3.5}
    flat |= {"schema": 2, "inputs": ["search/x-0123456789ab"], "finished": "2026-01-01T00:00:00+00:00"}
    lake.write_json(item.file(lake.DONE), flat)
    assert item.facts(EnsembleFacts) == EnsembleFacts(rule="", members=("a",), val_auc=0.7)
    record = item.record()
    assert (record.schema, record.seconds, record.settings) == (2, 3.5, {})
    assert record.inputs == ("search/x-0123456789ab",)
    assert record.facts == {"members": ["a"], "val_auc": 0.7}
    with pytest.raises(LakeError, match=r"no ImagesFacts that this version .*remove its artefact"):
        item.facts(ImagesFacts)


@pytest.mark.parametrize("text", ["{", "[1]", "7", '{"schema": "new", "facts": {}}'])
def test_a_damaged_done_json_is_an_error_with_a_remedy(tmp_path: Path, text: str) -> None:
    item = lake.Lake(str(tmp_path)).artefact("images", "x", 1)
    lake.write_bytes(item.file(lake.DONE), text.encode())
    with pytest.raises(LakeError, match=r"done\.json .*remove .* with jobs/lake\.py and run its job again"):
        item.record()


def test_a_url_of_another_filesystem_works(tmp_path: Path) -> None:
    url = (tmp_path / "x" / "file.json").as_uri()
    lake.write_json(url, [1])
    assert lake.read_json(url) == [1]
    assert lake.exists(url)


def test_the_lake_is_never_in_rays_disposable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LakeError, match="runtime directory"):
        lake.resolve_root("/tmp/ray/session_1/runtime_resources/working_dir_files/x/lake")
    monkeypatch.setenv("MAMMOFLOW_LAKE", "s3://bucket/lake/")
    assert lake.resolve_root(None) == "s3://bucket/lake"
    assert lake.resolve_root("/data/lake") == "/data/lake"


def test_no_permission_is_an_error_that_names_the_folder() -> None:
    with pytest.raises(LakeError, match="/proc/mammoflow"):
        lake.Lake("/proc/mammoflow").check_writable()


def test_every_recipe_has_a_stable_fingerprint() -> None:
    for make in recipes.ALL.values():
        assert lake.fingerprint(make()) == lake.fingerprint(make())
