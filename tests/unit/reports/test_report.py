"""The report of a made run: whole, offline, marked, and true to the figures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_lake import BACKBONE, make
from made_report import TRANSFER, Page, inputs_of

from mammoflow import lake
from mammoflow.ensemble import ensemble
from mammoflow.facts import codec
from mammoflow.facts.published import Report
from mammoflow.facts.stages import ImagesFacts, TrunkFacts
from mammoflow.metrics import roc
from mammoflow.metrics.resampling import Resampling
from mammoflow.rendering import formats
from mammoflow.rendering.marks import PHANTOM_MARK
from mammoflow.reports import cases, numbers, paper_tables, report, run_tables


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
    auc = ensemble.summarise_ensemble(inputs.test_scores, inputs.ensemble).flips
    assert f"Ensemble AUC, test{auc.value:.3f}95% interval by patient {formats.text(auc.by_patient)}" in page.text
    assert "models:/mammoflow/3" in page.text
    assert "<cut off>" in page.text  # the reason in quarantine, escaped in the file
    assert "<cut off>" not in text


def test_every_number_is_beside_the_page_as_json(inputs, tmp_path):
    url = report.write(inputs, str(tmp_path / "report.html"))
    data, text = (tmp_path / "report.json").read_bytes(), Page(Path(url).read_text(encoding="utf-8")).text
    assert json.loads(data)["version"] == 1
    found = codec.from_json(data, Report, "report.json")
    assert found == numbers.numbers(inputs), "the file holds every digit"
    names = [way.name for way in found.compared]
    assert names == ["two-step baseline", "all-convolutional", "mean of the best of each kind", "greedy ensemble"]
    for way in found.compared:
        auc = way.reached.score.flips
        assert f"{auc.value:.3f} ({auc.by_patient.low:.3f}–{auc.by_patient.high:.3f})" in text
        assert f"{auc.delong.low:.3f}–{auc.delong.high:.3f}" in text
        for measure in way.reached.measures:
            assert measure.name in text
            assert f"{measure.value:.3f}" in text
    best = found.compared[2]
    labels, own = ensemble.columns(inputs.test_ensemble)
    assert best.reached.score.flips.value == pytest.approx(roc.auc(labels, own))
    assert best.reached == found.ensemble
    _, theirs = ensemble.columns(ensemble.average(inputs.baseline.test, inputs.baseline.choice))
    apart = roc.auc_difference(labels, own, theirs)
    assert best.over_baseline.p == pytest.approx(apart.p)
    assert f"{apart.value:+.3f} ({apart.interval.low:+.3f} to {apart.interval.high:+.3f})" in text
    by_level = {(row.level, row.rule): row for row in found.levels}
    assert by_level["image", "mean"].auc == best.reached.score.flips
    assert by_level["patient", "max"].cases == len({*inputs.test_ensemble["patient_id"].to_pylist()})
    assert sum(point.images for point in found.calibration.after.points) == len(labels)
    assert sum(group.images for group in found.subgroups if group.by == "vendor") == len(labels)
    assert found.transfer == TRANSFER
    assert found.references.cad_auc == 0.72
    assert "0.812 (0.700–0.900)" in text


def test_cases_are_sorted_by_what_the_ensemble_makes_of_them(inputs):
    found = {outcome.name: outcome for outcome in cases.cases(inputs)}
    labels, own = ensemble.columns(inputs.test_ensemble)
    called = own >= inputs.ensemble.cutoff
    counts = {"True positives": (labels == 1) & called, "False positives": (labels == 0) & called}
    counts |= {"False negatives": (labels == 1) & ~called, "True negatives": (labels == 0) & ~called}
    for name, inside in counts.items():
        assert found[name].count == inside.sum()
        said = [float(re.search(r"score ([0-9.]+),", film["caption"])[1]) for film in found[name].films]
        assert said == sorted(said, reverse=name.endswith("positives"))
        if len(said):
            extreme = max if name.endswith("positives") else min
            assert said[0] == pytest.approx(extreme(own[inside]), abs=6e-4)


def test_a_figure_is_computed_once(inputs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(ensemble, "Resampling", lambda *words: drawn.append(words) or Resampling(*words))
    report.write(inputs, str(tmp_path / "report.html"))
    ways = len(inputs.singles) + len(inputs.ensembles) - 1 + 1  # the frozen choice is one of them; and the baseline
    assert len(drawn) == 1 + 1 + ways, "the candidates share their draws; the ensemble, and each way beside it"


@pytest.mark.slow
def test_a_report_without_baseline_and_transfer_is_whole(inputs, tmp_path):
    bare = replace(inputs, baseline=None, transfer=None)
    text = Page(Path(report.write(bare, str(tmp_path / "report.html"))).read_text(encoding="utf-8")).text
    assert "Other data" not in text
    assert numbers.numbers(bare).compared[0].over_baseline is None


@pytest.mark.slow
def test_a_run_that_went_on_from_others_says_so_and_shows_no_patch_classifiers(inputs, tmp_path):
    config = replace(inputs.config, start="models:/elsewhere/2")
    begun = replace(inputs, config=config, trunks={}, patch_accuracy={}, baseline=None)
    text = Page(Path(report.write(begun, str(tmp_path / "report.html"))).read_text(encoding="utf-8")).text
    assert "begun from models:/elsewhere/2" in text
    assert "Where the patch classifiers look" not in text


@pytest.mark.slow
def test_a_trunk_as_initialised_and_classes_without_patches_are_shown_too(tmp_path):
    made = make(tmp_path)
    lake.write_json(made.trunk.file("history.json"), [])
    made.trunk.finish(TrunkFacts(val_accuracy=None, best_epoch=None, epochs=0, run_id="none"))
    (shard,) = lake.iter_shards(made.patches, "train")
    rows = lake.read_table(shard)
    for number in range(4):  # more shards, of a class that the first one has filled already
        lake.write_table(shard.replace("train-0", f"train-{number + 1}"), pa.concat_tables([rows] * 3))
    background = rows.filter(pc.equal(rows["label"], 0))
    lake.write_table(shard.replace("train-0", "train-9"), background)
    page = Page(Path(report.write(inputs_of(made), str(tmp_path / "report.html"))).read_text(encoding="utf-8"))
    assert "loss of the patch classifier" not in page.text
    assert sum("training patches of class" in image["alt"] for image in page.images) == 3


@pytest.mark.slow
def test_real_data_carries_no_phantom_mark(tmp_path):
    made = make(tmp_path)
    made.images.finish(made.images.facts(ImagesFacts))  # made from no phantoms
    inputs = inputs_of(made)
    real = replace(inputs, config=replace(inputs.config, source="/data/CBIS-DDSM"))
    text = Path(report.write(real, str(tmp_path / "report.html"))).read_text(encoding="utf-8")
    assert "phantom" not in text.split("Every setting of this run")[0].lower()


def test_every_candidate_has_a_row_and_only_the_papers_own_rows_have_its_figures(inputs):
    rows = report.tables(inputs, numbers.numbers(inputs))["models"].rows
    assert [row.cells[2].replace(",\n", ",") for row in rows[:-1]] == [row.top_layers for row in inputs.ranking]
    assert [row.tag for row in rows[:-1]] == ["member", "member", ""]
    assert rows[2].cells[-3] is None  # never reached test
    assert {row.cells[-1] for row in rows[:-1]} == {None}
    assert paper_tables.find("resnet50", "S10", "256x1,128x1").auc == 0.88
    assert paper_tables.find("resnet50", "S1", "256x1,128x1") is None
    assert paper_tables.find(BACKBONE, "S10", "256x1,128x1") is None


def test_a_classifier_of_a_second_round_is_said_to_be_one(inputs):
    again = replace(inputs, trunks={name: replace(trunk, stage="retrained") for name, trunk in inputs.trunks.items()})
    first, second = (str(run_tables.patch_accuracy(one.patch_accuracy, one.trunks)) for one in (inputs, again))
    assert f"{BACKBONE}, on mined patches" in second
    assert "on mined patches" not in first
