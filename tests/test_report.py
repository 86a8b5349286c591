"""The report of a made run: whole, offline, marked, and true to the figures."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_lake import BACKBONE, make

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.results import ensemble, page, paper_tables, report, report_tables, selection
from mammoflow.results.report_inputs import PHANTOM_MARK
from mammoflow.schema import SCORES


class Page(HTMLParser):
    """Collects what a browser would fetch or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.captions = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        assert tag not in {"script", "link", "iframe"}
        self.captions += tag == "figcaption"

    def handle_data(self, data):
        self.text += data


def scores(made, split, seed):
    """Scores of the finished candidates on a split, at random around the label."""
    rng = np.random.default_rng(seed)
    films = lake.read_table(made.images.file("shards")).drop_columns("pixels").to_pylist()
    rows = []
    for name in made.folders:
        for film in (film for film in films if film["split"] == split):
            score = float(np.clip(0.4 + 0.2 * film["label"] + rng.normal(0, 0.15), 0, 1))
            row = {key: film[key] for key in SCORES.names if key in film}
            rows.append(row | {"model": name, "score": score, "score_tta": score})
    return pa.Table.from_pylist(rows, schema=SCORES)


def inputs_of(made):
    val = scores(made, "val", 1)
    accuracy = {"accuracy": 0.5, "balanced_accuracy": 0.4, "confusion": np.eye(5, dtype=int).tolist(), "patches": 5}
    return report.ReportInputs(
        config=made.config,
        images=made.images,
        patches=made.patches,
        trunks={BACKBONE: made.trunk},
        search=made.search,
        val_scores=val,
        test_scores=scores(made, "test", 2),
        ensemble=selection.choose(val, made.ranking, EnsembleConfig()),
        registered={"name": "mammoflow", "version": "3"},
        patch_accuracy={BACKBONE: accuracy},
        seconds={"images": 12.0, "search": 100.5},
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return inputs_of(make(tmp_path_factory.mktemp("report")))


def test_one_file_with_everything_in_it(inputs, tmp_path):
    url = report.write(inputs, str(tmp_path / "report.html"))
    text = Path(url).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) >= 4 + 3 + 2 + 2 + 1 + 4  # films, sheets, trunk and candidate curves, ROC, heatmaps
    for image in page.images:
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 15
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert page.text.lower().count(PHANTOM_MARK) >= page.captions + 1  # every figure, and the banner
    test = ensemble.summarise(inputs.test_ensemble)["ensemble"]
    assert f"{test['auc_tta']:.3f}" in page.text
    assert "models:/mammoflow/3" in page.text
    assert "<cut off>" in page.text  # the reason in quarantine, escaped in the file
    assert "<cut off>" not in text


def test_a_trunk_as_initialised_and_classes_without_patches_are_shown_too(tmp_path):
    made = make(tmp_path)
    lake.write_json(made.trunk.file("history.json"), [])
    made.trunk.finish({"val_accuracy": None, "best_epoch": None, "run_id": "none"})
    (shard,) = lake.iter_shards(made.patches, "train")
    rows = lake.read_table(shard)
    for number in range(4):  # more shards, of a class that the first one has filled already
        lake.write_table(shard.replace("train-0", f"train-{number + 1}"), pa.concat_tables([rows] * 3))
    background = rows.filter(pc.equal(rows["label"], 0))
    lake.write_table(shard.replace("train-0", "train-9"), background)
    page = Page(Path(report.write(inputs_of(made), str(tmp_path / "report.html"))).read_text(encoding="utf-8"))
    assert "loss of the patch classifier" not in page.text
    assert sum("training patches of class" in image["alt"] for image in page.images) == 3


def test_real_data_carries_no_phantom_mark(inputs, tmp_path):
    real = replace(inputs, config=replace(inputs.config, source="/data/CBIS-DDSM"))
    text = Path(report.write(real, str(tmp_path / "report.html"))).read_text(encoding="utf-8")
    assert "phantom" not in text.split("Every setting of this run")[0].lower()


def test_every_candidate_has_a_row_and_only_the_papers_own_rows_have_its_figures(inputs):
    rows = report_tables.tables(inputs)["models"]["rows"]
    assert [row["cells"][2].replace(",\n", ",") for row in rows[:-1]] == [row["top_layers"] for row in inputs.ranking]
    assert [row["tag"] for row in rows[:-1]] == ["member", "member", ""]
    assert rows[2]["cells"][-3] == page.NONE  # never reached test
    assert {row["cells"][-1] for row in rows[:-1]} == {page.NONE}
    assert paper_tables.find("resnet50", "S10", "256x1,128x1").auc_tta == 0.88
    assert paper_tables.find("resnet50", "S1", "256x1,128x1") is None
    assert paper_tables.find(BACKBONE, "S10", "256x1,128x1") is None


def test_a_classifier_of_a_second_round_is_said_to_be_one(inputs):
    again = replace(inputs, trunks={name: replace(trunk, stage="retrained") for name, trunk in inputs.trunks.items()})
    first, second = (str(report_tables.tables(one)["patch_accuracy"]) for one in (inputs, again))
    assert f"{BACKBONE}, on mined patches" in second
    assert "on mined patches" not in first
