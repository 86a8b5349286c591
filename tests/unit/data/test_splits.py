import random
import re
from collections import defaultdict
from dataclasses import replace
from itertools import product
from math import ceil
from typing import get_args, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoflow.config import SplitConfig
from mammoflow.data import releases, splits
from mammoflow.errors import ConfigError, SplitError
from mammoflow.lake import schema


def exams(patients: dict[str, list[int]], parts: dict[str, str | None] | None = None) -> pa.Table:
    """Patients with the labels of their films."""
    rows = []
    for patient, labels in patients.items():
        for n, label in enumerate(labels):
            row = {"image_id": f"{patient}-{n}", "film_id": f"{patient}-{n}", "patient_id": patient, "label": label}
            rows.append({**dict.fromkeys(schema.EXAMS.names), **row, "part": (parts or {}).get(patient)})
    return pa.Table.from_pylist(rows, schema=schema.EXAMS)


def of_patient(table: pa.Table) -> dict[str, set[str]]:
    found = defaultdict(set)
    for patient, split in zip(table["patient_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        found[patient].add(split)
    return found


labels = st.lists(st.integers(0, 1), min_size=1, max_size=4)
shares = st.floats(0.1, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    with_cancer=st.lists(labels.map(lambda some: [*some, 1]), min_size=16, max_size=40),  # fewer may leave a split
    without=st.lists(labels.map(lambda some: [0] * len(some)), min_size=16, max_size=40),  # without a class
    test=shares,
    val=shares,
    seed=st.integers(0, 2**31),
    shuffle=st.integers(0, 2**31),
)
def test_no_patient_is_in_two_splits_and_order_has_no_say(with_cancer, without, test, val, seed, shuffle):
    films = with_cancer + without
    table = exams({f"P{n:03}": some for n, some in enumerate(films)})
    config = SplitConfig(test=test, val=val)
    result = splits.assign(table, config, seed)
    assert result.num_rows == table.num_rows
    assert all(len(found) == 1 for found in of_patient(result).values())
    counts = {split: sum(found == {split} for found in of_patient(result).values()) for split in schema.SPLITS}
    assert abs(counts["test"] - test * len(films)) <= 1
    assert abs(counts["val"] - val * (len(films) - counts["test"])) <= 1
    order = list(range(table.num_rows))
    random.Random(shuffle).shuffle(order)
    assert of_patient(splits.assign(table.take(order), config, seed)) == of_patient(result)


@st.composite
def releases_of_patients(draw) -> pa.Table:
    """Patients with and without cancer in each official part, some in both parts, with 1 to 4 films each."""
    rows = []
    for part, cancer in product(("train", "test"), (True, False)):
        for some in draw(st.lists(labels, min_size=8, max_size=16)):
            patient = f"P{len(rows):04}"
            other = "test" if part == "train" and draw(st.integers(0, 9)) == 0 else part
            for n, label in enumerate([int(cancer), *(label * cancer for label in some)]):
                film = dict.fromkeys(("image_id", "film_id"), f"{patient}-{n}")
                about = {"patient_id": patient, "label": label, "part": other if n else part}
                rows.append({**dict.fromkeys(schema.EXAMS.names), **film, **about})
    return pa.Table.from_pylist(rows, schema=schema.EXAMS)


@pytest.mark.parametrize("protocol", get_args(get_type_hints(SplitConfig)["protocol"]))
@settings(max_examples=25, deadline=None)
@given(table=releases_of_patients(), seed=st.integers(0, 2**31))
def test_no_patient_is_in_two_splits_under_any_protocol(protocol, table, seed):
    in_train = {*table.filter(pc.equal(table["part"], "train"))["patient_id"].to_pylist()}
    if protocol == "given":
        table = splits.with_manifest(table, splits.manifest(splits.assign(table, SplitConfig(), seed)))
    found = splits.assign(table, SplitConfig(protocol=protocol), seed)
    patients = of_patient(found)
    assert all(len(some) == 1 for some in patients.values())
    assert set().union(*patients.values()) == set(schema.SPLITS)
    everyone = {*table["patient_id"].to_pylist()}
    assert patients.keys() == {"paper": in_train, "given": in_train}.get(protocol, everyone)
    test = {patient for patient, some in patients.items() if some == {"test"}}
    if protocol == "official":
        assert test == everyone - in_train
    elif protocol == "70-30":
        assert len(test) == ceil(0.3 * len(everyone))


def test_70_30_is_of_the_whole_release_whatever_the_share_of_another_protocol():
    table = exams({f"P{n:03}": [int(n < 40)] for n in range(100)}, parts={f"P{n:03}": "test" for n in range(0, 100, 2)})
    result = splits.assign(table, SplitConfig(protocol="70-30", test=0.15, val=0.2), 0)
    counts = defaultdict(lambda: [0, 0])
    for row in result.to_pylist():
        counts[row["split"]][row["label"]] += 1
    assert counts == {"train": [34, 22], "val": [8, 6], "test": [18, 12]}


def test_cancer_is_as_frequent_in_every_split():
    table = exams({f"P{n:03}": [int(n < 120)] for n in range(400)})
    result = splits.assign(table, SplitConfig(), 0).to_pylist()
    for split in schema.SPLITS:
        labels = [row["label"] for row in result if row["split"] == split]
        assert sum(labels) / len(labels) == pytest.approx(0.3, abs=0.02)


def test_another_seed_gives_other_splits():
    table = exams({f"P{n:03}": [n % 2] for n in range(60)})
    assert of_patient(splits.assign(table, SplitConfig(), 0)) != of_patient(splits.assign(table, SplitConfig(), 1))


def test_a_published_manifest_gives_the_same_splits_again(tmp_path):
    table = exams({f"p{n}": [n % 2] for n in range(40)})
    first = splits.assign(table, SplitConfig(), seed=1)
    loaded = splits.with_manifest(table, splits.manifest(first))
    again = splits.assign(loaded, SplitConfig(protocol="given"), seed=2)
    assert again["split"].to_pylist() == first["split"].to_pylist()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("patient,split\np1,train\n", "the manifest has no column patient_id; write it as patient_id,split"),
        ("patient_id,split\np1,training\n", "manifest, line 2: split is 'training', but must be one of"),
        ("patient_id,split\np1,train\np1,test\n", "manifest, line 3: p1 is in train and test; keep one"),
        ("patient_id,split\nq1,train\n", "none of the manifest's 1 patients is in the source"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(text, reason):
    with pytest.raises(SplitError, match=re.escape(reason)):
        splits.with_manifest(exams({"p1": [1]}), text)


@pytest.fixture(scope="module")
def real(cbis_csvs):
    return releases.read("cbis_ddsm", str(cbis_csvs)).exams


def test_paper_protocol_on_the_real_csvs_re_splits_the_training_release(real):
    result = splits.assign(real, SplitConfig(protocol="paper"), 0)
    assert result.num_rows == 2458
    assert len(of_patient(result)) == 1248
    assert set(result["part"].to_pylist()) == {"train"}
    assert sizes(result) == {"train": (954, 1903, 867), "val": (106, 195, 89), "test": (188, 360, 164)}
    for split, papers in (("train", 1903), ("val", 199), ("test", 376)):
        images = images_in(result, split)
        assert images == pytest.approx(papers, rel=0.08), "the paper's sizes, up to which patients were drawn"


def test_official_protocol_on_the_real_csvs_leaves_out_the_31_patients_in_both_parts(real):
    result = splits.assign(real, SplitConfig(protocol="official"), 0)
    found = of_patient(result)
    assert all(len(some) == 1 for some in found.values())
    assert len(found) == 1566
    assert sum(some == {"test"} for some in found.values()) == 349 - 31
    assert sizes(result) == {"train": (1123, 2211, 1002), "val": (125, 247, 118), "test": (318, 595, 248)}
    train_release = pc.equal(real["part"], "train")
    assert result.num_rows - images_in(result, "test") == real.filter(train_release).num_rows


def sizes(table: pa.Table) -> dict[str, tuple[int, int, int]]:
    """Patients, images and malignant images by split."""
    some = {split: table.filter(pc.equal(table["split"], split)) for split in schema.SPLITS}
    return {
        split: (len({*part["patient_id"].to_pylist()}), part.num_rows, pc.sum(part["label"]).as_py())
        for split, part in some.items()
    }


def images_in(table: pa.Table, split: str) -> int:
    return table.filter(pc.equal(table["split"], split)).num_rows


def test_a_leak_is_refused():
    table = exams({"P1": [0, 1], "P2": [0, 1]})
    index = table.schema.get_field_index("split")
    for column, split in (("patient_id", ["train", "val", "test", "test"]),):
        leaky = table.set_column(index, table.schema.field(index), pa.array(split))
        with pytest.raises(SplitError, match=f"{column} P1 is in train and in val, a leak"):
            splits.check(leaky)
    film = table.set_column(1, table.schema.field(1), pa.array(["A", "B", "A", "C"]))
    film = film.set_column(index, table.schema.field(index), pa.array(["train", "train", "test", "test"]))
    with pytest.raises(SplitError, match="film_id A is in train and in test, a leak"):
        splits.check(film)


def test_a_split_without_a_class_is_refused_with_its_counts():
    table = exams({"P1": [0, 1], "P2": [0, 0], "P3": [0, 1]})
    index = table.schema.get_field_index("split")
    bad = table.set_column(index, table.schema.field(index), pa.array(["train"] * 2 + ["val"] * 2 + ["test"] * 2))
    with pytest.raises(SplitError, match="val has 2 benign and 0 malignant"):
        splits.check(bad)
    with pytest.raises(SplitError, match=r"1 with cancer.*--limit"):
        splits.assign(exams({"P1": [0], "P2": [0], "P3": [1]}), SplitConfig(), 0)


def test_a_source_of_the_test_part_alone_is_all_test_under_official_and_refused_under_paper():
    table = exams({"P1": [0, 0], "P2": [1, 0]}, parts={"P1": "test", "P2": "test"})
    assert of_patient(splits.assign(table, SplitConfig(protocol="official"), 0)) == {"P1": {"test"}, "P2": {"test"}}
    with pytest.raises(SplitError, match=r"use --splits\.protocol official"):
        splits.assign(table, SplitConfig(protocol="paper"), 0)


@settings(max_examples=40, deadline=None)
@given(
    films=st.lists(st.tuples(labels, st.sampled_from(["train", "test"])), min_size=2, max_size=30),
    limit=st.integers(1, 60),
)
def test_a_limit_keeps_whole_patients_and_both_classes(films, limit):
    patients = {f"P{n:03}": some for n, (some, _) in enumerate(films)}
    table = exams(patients, parts={f"P{n:03}": part for n, (_, part) in enumerate(films)})
    kept = splits.limit_films(table, limit)
    ids = set(kept["patient_id"].to_pylist())
    assert kept.num_rows == sum(len(patients[patient]) for patient in ids), "whole patients"
    assert min(limit, table.num_rows) <= kept.num_rows < limit + 4
    cancer = {patient: any(some) for patient, some in patients.items()}
    groups = {(cancer[p], part) for p, (_, part) in zip(patients, films, strict=True)}
    if len(ids) >= len(groups):
        assert {cancer[p] for p in ids} == set(cancer.values())


@settings(max_examples=60, deadline=None)
@given(cancer=st.integers(15, 30), without=st.integers(15, 45), seed=st.integers(0, 99), data=st.data())
def test_fewer_patients_are_a_subset_of_more_and_test_stays(cancer: int, without: int, seed: int, data) -> None:
    table = exams({f"P{n}": [int(n < cancer)] for n in range(cancer + without)})
    config = SplitConfig(protocol="70-30", val=0.4)
    whole = splits.assign(table, config, seed)
    test = {patient for patient, found in of_patient(whole).items() if found == {"test"}}
    most = len(of_patient(whole)) - len(test)
    before: set[str] = set()
    for wanted in sorted(data.draw(st.lists(st.integers(min(8, most), most), min_size=1, max_size=4))):
        used = splits.assign(table, replace(config, patients=wanted), seed)
        found = of_patient(used)
        assert {patient for patient, split in found.items() if split == {"test"}} == test
        own = found.keys() - test
        assert len(own) == wanted
        assert before <= own
        before = own
        sick = sum(int(patient[1:]) < cancer for patient in own)
        rest = sum(int(patient[1:]) < cancer for patient in of_patient(whole).keys() - test)
        assert abs(sick - wanted * rest / most) <= 1, "as many with cancer as among all"


def test_more_patients_than_there_are_and_given_splits_are_refused() -> None:
    table = exams({f"P{n}": [n % 2] for n in range(40)})
    with pytest.raises(SplitError, match=r"splits.patients is 29, but only 28 patients are not in test"):
        splits.assign(table, SplitConfig(protocol="70-30", patients=29), 0)
    with pytest.raises(ConfigError, match="left out where splits are given"):
        SplitConfig(protocol="given", patients=20)
