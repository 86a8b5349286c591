"""The results page: every model with its figures, pages made once, nothing that names a patient."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_site import MadeSite, build

from mammoflow import lake
from mammoflow.ensemble import ensemble
from mammoflow.facts.stages import ImagesFacts, TwoStepFacts
from mammoflow.rendering.marks import PHANTOM_MARK, UNKNOWN
from mammoflow.site import run_page, runs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSite:
    return build(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
def test_the_leaderboard_holds_every_model_best_validation_first(made: MadeSite) -> None:
    rows = made.site.rows
    aucs = [row.val.value for row in rows if row.val]
    assert aucs == sorted(aucs, reverse=True)
    per_run = 2 + 2  # ensembles of both rules, candidates that finished
    assert len(rows) == 2 * per_run + 1 + 1, "two runs, the baseline, a version from elsewhere"
    assert sorted(row.version for row in rows if row.version) == ["mammoflow/1", "mammoflow/2"]
    (elsewhere,) = (row for row in rows if row.version == "mammoflow/2")
    assert (elsewhere.run, elsewhere.aliases, elsewhere.test.by_patient.low) == ("", ("candidate",), 0.5)
    assert {row.kind for row in rows} >= {"ensemble", "two-step", "Resnet-VGG", "Resnet-Resnet"}


def test_figures_are_those_of_the_scores(made: MadeSite) -> None:
    (run,) = (each for each in made.runs() if each.version)
    flips = ensemble.summarise_ensemble(run.test_scores(), run.frozen).flips
    (row,) = (row for row in made.site.rows if row.version == "mammoflow/1")
    assert (row.test.value, row.test.by_patient) == (flips.value, flips.by_patient)
    assert row.patients == 12


def test_a_run_whose_images_are_gone_is_named_and_left_out(made: MadeSite, tmp_path: Path) -> None:
    done = Path(made.made.images.file(lake.DONE))
    held = done.read_bytes()
    done.unlink()
    said: list[str] = []
    try:
        assert made.runs(said.append) == []
    finally:
        done.write_bytes(held)
    assert len(said) == 2
    assert made.made.images.key in said[0]


def test_phantoms_beside_films_are_marked_in_their_own_rows(made: MadeSite, tmp_path: Path) -> None:
    images = made.made.images
    with_phantoms = images.record()
    try:
        images.finish(images.facts(ImagesFacts))  # as if from a release
        out = str(tmp_path / "films")
        site = made.write(Path(out), 0)
        assert "Phantom data" not in Path(site.url).read_text()
        other = made.root.artefact("images", "phantoms-drawn")
        other.finish(images.facts(ImagesFacts), [made.root.artefact("phantoms", "made")])
        baseline = lake.list_complete(made.root, "two_step")[0]
        inputs = baseline.record().inputs
        baseline.finish(baseline.facts(TwoStepFacts), [other])
        page = Path(made.write(Path(out), 0).url).read_text()
        assert page.count("Phantom data, no clinical meaning") == 1
        baseline.finish(baseline.facts(TwoStepFacts), [made.root.at(key) for key in inputs])
    finally:
        images.finish(images.facts(ImagesFacts), [made.root.at(key) for key in with_phantoms.inputs])


def test_what_another_server_registered_or_this_one_deleted_counts_as_not_registered(made: MadeSite) -> None:
    assert {run.version for run in runs.find(made.root, "https://elsewhere", {"mammoflow/1"}, print)} == {""}
    assert {run.version for run in runs.find(made.root, made.tracking_uri, {"mammoflow/2"}, print)} == {""}, "deleted"


def test_pages_are_made_once_and_anew_where_more_films_are_asked_for(made: MadeSite, tmp_path: Path) -> None:
    assert (made.site.made, made.site.kept) == (2, 0)
    out = str(tmp_path / "again")
    first = made.write(Path(out), 2)
    second = made.write(Path(out), 2)
    third = made.write(Path(out), 4)
    assert [(each.made, each.kept) for each in (first, second, third)] == [(2, 0), (0, 2), (2, 0)]
    assert len(list(Path(out).glob("*/cases/*.jpg"))) == 4


def test_a_killed_page_is_made_again(made: MadeSite, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    made.write(out, 2)
    next(out.glob("made-*/made.json")).unlink()
    assert made.write(out, 2).made == 1


def test_pages_of_runs_that_are_gone_go_with_their_films(made: MadeSite, tmp_path: Path) -> None:
    other = tmp_path / "of others"
    other.mkdir()
    made.write(tmp_path, 2)
    gone = tmp_path / "demo-0123456789ab"
    next(tmp_path.glob("made-*")).rename(gone)
    made.write(tmp_path, 2)
    assert not gone.exists()
    assert other.exists()
    assert len([*tmp_path.glob("made-*/cases/*.jpg")]) == 2


def test_the_frozen_rule_is_the_one_that_was_written_down(made: MadeSite) -> None:
    rules = {run.evaluation.name: run.frozen.rule for run in made.runs()}
    assert rules == {"made": "greedy", "later <i>": "best_of_kinds"}
    (registered,) = (row for row in made.site.rows if row.version == "mammoflow/1")
    assert registered.model == "ensemble, greedy"


def test_a_banner_for_all_stands_only_where_all_is_of_phantoms(made: MadeSite) -> None:
    marks = {row.version: row.mark for row in made.site.rows}
    assert (marks["mammoflow/1"], marks["mammoflow/2"]) == (PHANTOM_MARK, UNKNOWN)
    page = Path(made.site.url).read_text()
    assert "Every figure on these pages" not in page
    assert page.count("Phantom data, no clinical meaning") == len(made.site.rows) - 1


def test_nothing_names_a_film_or_a_patient(made: MadeSite) -> None:
    pages = [path.read_text() for path in Path(made.out).rglob("*.html")]
    assert len(pages) == 3
    for page in pages:
        assert not re.search(r"film-\d|\bP\d+\b", page)
        assert "<i>" not in page, "names are escaped"
        assert "Phantom data, no clinical meaning" in page


def test_data_of_a_page_hold_every_test_film(made: MadeSite) -> None:
    (page,) = Path(made.out).glob("made-*/index.html")
    said = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    assert (len(said["scores"]), sum(said["labels"]), len(said["cases"])) == (11, 6, 6)
    for case in said["cases"]:
        assert case["score"] == said["scores"][case["at"]]
        assert case["malignant"] == (said["labels"][case["at"]] == 1)
        assert (page.parent / case["src"]).is_file()


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.integers(0, 70))
def test_films_are_picked_from_both_classes_with_their_extremes(films: list[tuple[int, float]], most: int) -> None:
    labels, scores = (np.array(values) for values in zip(*films, strict=True))
    picked = run_page.pick(labels, scores, most)
    assert len(picked) == len(set(picked)) == min(most, len(films))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mine = [at for at in picked if labels[at] == label]
        assert len(mine) >= min(len(members), most // 2)
        if len(mine) >= 2:
            assert {scores[mine].min(), scores[mine].max()} == {scores[members].min(), scores[members].max()}
