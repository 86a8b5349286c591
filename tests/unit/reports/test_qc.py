"""The page of what ingest made: true counts, the patches that are worst, everything escaped, one file, any source."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from made_lake import FILMS, SIDE, make
from made_report import Page

from mammoflow import console, lake
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact, schema
from mammoflow.rendering.marks import PHANTOM_MARK
from mammoflow.reports import contact_sheet, data_sets, qc, quarantine


@pytest.fixture
def made(tmp_path):
    made = make(tmp_path)
    contact_sheet.write(made.images, made.patches, SIDE, PHANTOM_MARK)
    return made


def written(made, config=None) -> str:
    url = qc.write(config or made.config, made.images, made.patches)
    assert url == made.patches.file("qc.html")
    return Path(url).read_text(encoding="utf-8")


def context(made) -> dict:
    films, cut = qc._films(made.images), qc._cut(made.patches)
    return qc.context(qc.QcInputs(config=made.config, images=made.images, patches=made.patches, films=films, cut=cut))


def rewrite(artefact: Artefact, column: str, values) -> None:
    """Replace a column in every shard; `values` makes them of a shard's rows."""
    for url in lake.iter_shards(artefact):
        table = lake.read_table(url)
        at = table.schema.get_field_index(column)
        field = table.schema.field(at)
        lake.write_table(url, table.set_column(at, field, pa.array(values(table), field.type)))


def test_one_file_that_opens_offline_and_says_what_its_data_are(made):
    text = written(made)
    page = Page(text)
    assert len(page.images) >= 2 + 1 + 1 + 12  # histograms, examples, contact sheet, close-ups
    assert all(image["src"].startswith("data:image/") and len(image["alt"]) > 15 for image in page.images)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert PHANTOM_MARK in page.text.lower()
    made.images.finish(made.images.facts(ImagesFacts))  # made from no phantoms
    real = written(made, replace(made.config, source="/data/CBIS-DDSM"))
    assert "phantom" not in Page(real).text.lower()


def test_counts_are_those_of_the_films(made):
    films = lake.read_table(made.images.file("shards")).drop_columns("pixels").to_pylist()
    counts = dict(zip(("label", "view", "density", "vendor"), context(made)["counts"], strict=True))
    words = {"label": {0: "benign or negative", 1: "malignant"}, "density": {2: "B, scattered"}}
    for name, table in counts.items():
        found = Counter((row[name], row["split"]) for row in films)
        expected = {}
        for value, _ in found:
            word = "unknown" if value is None else words.get(name, {}).get(value, value)
            expected[word] = [found[value, split] for split in schema.SPLITS]
        assert {row.cells[0]: [*row.cells[1:4]] for row in table.rows[:-1]} == expected
        assert [*table.rows[-1].cells[1:4]] == [FILMS[split] for split in schema.SPLITS]
    assert [row.cells[0] for row in counts["vendor"].rows] == ["Hologic", "unknown", "all"]
    cards = {card.what: card.value for card in context(made)["cards"]}
    assert (cards["Films"], cards["Patches"], cards["Left out"]) == ("33", "66", "1")


def test_the_patches_shown_are_those_of_least_overlap_one_a_lesion(made):
    rng = np.random.default_rng(3)
    rewrite(made.patches, "overlap", lambda table: rng.permutation(table.num_rows) / table.num_rows)
    rewrite(made.patches, "below_min", lambda table: [share < 0.1 for share in table["overlap"].to_pylist()])
    rows = [row for row in qc._cut(made.patches).to_pylist() if row["label"]]
    least = sorted(row["overlap"] for row in rows)[:12]
    shown = context(made)["worst"]
    assert [picture["caption"].split(".")[0] for picture in shown] == [
        f"Overlap {share:.0%}" + (", below 90%" if share < 0.1 else "") for share in least
    ]
    below = sum(row["below_min"] for row in rows)
    assert f"{below} lie below the least asked for, 90%" in context(made)["patch_text"]
    rewrite(made.patches, "image_id", lambda table: ["film-0"] * table.num_rows)
    (only,) = context(made)["worst"]
    assert only["caption"].startswith(f"Overlap {least[0]:.0%}"), "many patches of one lesion are one picture"


def test_a_close_up_shows_frame_and_outline(made):
    rewrite(made.patches, "row", lambda table: [60] * table.num_rows)
    rewrite(made.patches, "column", lambda table: [20] * table.num_rows)
    inputs = qc.QcInputs(
        config=made.config,
        images=made.images,
        patches=made.patches,
        films=qc._films(made.images),
        cut=qc._cut(made.patches),
    )
    drawn = []
    monkey = pytest.MonkeyPatch()
    monkey.setattr(qc.pages, "picture", lambda data, *words: drawn.append(data))
    qc._worst(inputs)
    monkey.undo()
    sheet = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in drawn]
    yellow = [np.abs(picture.astype(int) - qc.pictures.LESION_BGR).sum(axis=2) < 60 for picture in sheet]
    assert len(yellow) == 12
    for found in yellow:
        rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
        np.testing.assert_allclose([rows[0], rows[-1], columns[0], columns[-1]], [75, 225, 75, 225], atol=6)


def test_what_was_refused_is_escaped_counted_and_cut_short(made):
    bad = [
        {
            "image_id": f"f{n}",
            "path": f"/src/<i>{n}.dcm",
            "stage": "mask",
            "reason": f"/src/<i>{n}.dcm: <b>no",
            "fatal": n == 59,
        }
        for n in range(60)
    ]
    table = pa.Table.from_pylist(bad, schema=schema.QUARANTINE)
    lake.write_table(made.patches.file(quarantine.FILE), table)
    text = written(made, replace(made.config, source="/src"))
    page = Page(text)
    assert "<i>" not in text
    assert "<b>no" not in text
    assert "<cut off>" in page.text  # of images, on the same page
    assert page.text.index("<i>59.dcm") < page.text.index("<i>0.dcm"), "those left out come first"
    assert "2 left out; 59 used all the same" in page.text
    assert "The first 50 are shown, 11 more are not." in page.text
    assert "<i>48.dcm" not in page.text


def test_the_jobs_table_names_path_stage_and_reason_and_what_it_leaves_out(made, capsys):
    one = {"image_id": "f", "stage": "mask", "reason": "no [b]mask", "fatal": False}
    bad = [one | {"path": f"/src/[/x]{n}.dcm"} for n in range(30)]
    lake.write_table(made.patches.file(quarantine.FILE), pa.Table.from_pylist(bad, schema=schema.QUARANTINE))
    console.show_quarantine([made.images, made.patches], "/src")
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert "film-99.dcm" in lines[4]
    assert "<cut off>" in lines[4]
    assert "[/x]18.dcm" in said
    assert "[/x]19.dcm" not in said
    assert "no [b]mask" in said
    assert said.count("left out") == 1
    assert said.count(" used ") == 19
    assert "and 11 more" in said
    for artefact in (made.images, made.patches):
        assert artefact.file(quarantine.FILE) in said


def test_nothing_refused_no_density_and_a_test_part_alone(made, capsys):
    empty = pa.Table.from_pylist([], schema=schema.QUARANTINE)
    lake.write_table(made.images.file(quarantine.FILE), empty)
    rewrite(made.images, "density", lambda table: [None] * table.num_rows)
    for artefact in (made.images, made.patches):
        for split in ("train", "val"):
            for url in lake.iter_shards(artefact, split):
                lake.remove(url)
    page = Page(written(made))
    assert "No file was refused." in page.text
    (density,) = [table for table in context(made)["counts"] if "density" in table.title]
    assert density.rows[0].cells == ("unknown", 0, 0, 11, "100%")
    console.show_quarantine([made.images, made.patches], None)
    assert capsys.readouterr().out == ""


def test_data_sets_of_one_lake_stand_side_by_side(made):
    made.images.finish(made.images.facts(ImagesFacts))  # made from no phantoms
    copy = Artefact(
        "images", "phantoms-other", "abcdefabcdef", f"{made.images.url.rpartition('/')[0]}/phantoms-other-abcdefabcdef"
    )
    shutil.copytree(made.images.url, copy.url)
    copy.finish(copy.facts(ImagesFacts), [copy.lake.artefact("phantoms", "made")])
    unfinished = f"{made.images.url.rpartition('/')[0]}/half-000000000000"
    shutil.copytree(made.images.url, unfinished)
    Path(unfinished, lake.DONE).unlink()
    shown = context(made)
    assert [row.cells[0] for row in shown["data_sets"].rows] == [
        data_sets.title(made.images),
        "phantoms-other-abcd",
    ]
    assert [row.tag for row in shown["data_sets"].rows] == ["this page", ""]
    assert [item["mark"] for item in shown["examples"]] == ["", PHANTOM_MARK]
    assert "phantoms-other-abcd" in shown["intensity"]["alt"]
    assert shown["intensity"]["mark"] == "", "not all of what it shows was drawn"
