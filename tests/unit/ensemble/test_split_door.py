"""The one door to the test split: what it asks for, and that nobody goes round it."""

import ast
from pathlib import Path

import pytest
from made_lake import make
from made_report import inputs_of

import mammoflow
from mammoflow.ensemble import split_door
from mammoflow.errors import LakeError, SplitError

PACKAGE = Path(mammoflow.__file__).parent

READERS = {
    "api.py": "gives a lake's tables to a person, all splits together",
    "data/batches.py": "trains and validates: a split that it is given",
    "data/ingest/patches.py": "cuts patches of each split, before any model",
    "ensemble/split_door.py": "the door",
    "reports/contact_sheet.py": "looks at what ingest made, before any model",
    "reports/qc.py": "looks at what ingest made, before any model",
}
"""Modules that list shards themselves, and why they may."""


def called(path: Path, name: str) -> list[ast.Call]:
    """Return the calls of a function in a module."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if name in (getattr(call.func, "attr", ""), getattr(call.func, "id", ""))]


def test_no_other_module_lists_the_shards_of_a_split() -> None:
    calls = {str(path.relative_to(PACKAGE)): called(path, "iter_shards") for path in PACKAGE.rglob("*.py")}
    assert {name for name, found in calls.items() if found} == {*READERS}
    named = {
        name: [node.value for call in found for node in ast.walk(call) if isinstance(node, ast.Constant)]
        for name, found in calls.items()
    }
    assert not [name for name, words in named.items() if "test" in words]


def test_no_other_module_reads_test_scores() -> None:
    readers = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for call in called(path, "read_table")
        if "test.parquet" in ast.unparse(call) or (".parquet'" in ast.unparse(call) and "split" in ast.unparse(call))
    ]
    assert readers == ["ensemble/split_door.py"]


@pytest.mark.parametrize("locked", [None, {"cutoff": 0.5}])
def test_the_test_split_opens_to_a_frozen_ensemble_alone(tmp_path: Path, locked: object) -> None:
    made = make(tmp_path)
    for opens in (split_door.open_split, split_door.open_scores):
        with pytest.raises(SplitError, match="stays closed until members and cut-off are frozen"):
            opens(made.images, "test", locked)
        with pytest.raises(SplitError, match="split 'tset' is unknown"):
            opens(made.images, "tset", None)
    frozen = inputs_of(made).ensemble
    shards = split_door.open_split(made.images, "test", frozen)
    assert shards
    assert all(url.rpartition("/")[2].startswith("test-") for url in shards)
    assert split_door.open_split(made.images, "val", None)
    with pytest.raises(LakeError, match="no shard of split 'test'"):
        split_door.open_split(made.search, "test", frozen)
