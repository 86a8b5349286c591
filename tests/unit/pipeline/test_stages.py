"""Every stage is one record, from which the graph, the plan and the jobs follow."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mammoflow import lake, recipes
from mammoflow.config import Config
from mammoflow.facts.stages import PhantomsFacts
from mammoflow.lake import Lake
from mammoflow.pipeline import build, care, graph, plan, stages
from mammoflow.pipeline.stages import STAGES, dependent_on, needed_for
from mammoflow.pipeline.stages.stage import Stage

ROOT = Path(__file__).parents[3]


def test_each_stage_comes_after_what_it_needs_and_has_its_job() -> None:
    before: set[str] = set()
    for name, stage in STAGES.items():
        assert before.issuperset(stage.needs), name
        assert (ROOT / "jobs" / f"{stage.job}.py").is_file()
        before.add(name)


def test_what_a_stage_needs_and_what_depends_on_it() -> None:
    assert needed_for("patches") == ["phantoms", "images", "patches"]
    assert needed_for("recalibrated") == ["phantoms", "images", "external", "recalibrated"]
    assert dependent_on({"ensemble"}) == {"registered", "evaluation", "report"}
    assert dependent_on({"report"}) == set()


def test_the_records_load_without_what_trains_or_distributes() -> None:
    code = "import json, sys; from mammoflow.pipeline import care, stages; print(json.dumps([*sys.modules]))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert {"torch", "ray", "mlflow", "cv2", "pandas"}.isdisjoint(json.loads(loaded.stdout))


def test_a_new_stage_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def count(a: graph.Artefacts):
        lake.write_json(a.one("counted").file("counted.json"), {"films": 3})
        yield a.one("counted"), PhantomsFacts(patients=1, files=2, bytes=3)

    counted = Stage(
        name="counted",
        needs=("images",),
        job="ingest",
        facts=PhantomsFacts,
        locate=lambda a: a.lake.artefact("counted", a.config.name, a.images, seed=a.config.seed),
        build=count,
    )
    monkeypatch.setitem(STAGES, "counted", counted)
    artefacts = graph.locate(recipes.smoke(), Lake(str(tmp_path)))
    assert needed_for("counted") == ["phantoms", "images", "counted"]
    plan.show(artefacts, ["counted"], ["counted"])
    build._build(counted, artefacts)
    assert artefacts.one("counted").facts(counted.facts).bytes == 3
    assert artefacts.one("counted").record().inputs == (artefacts.images.key,)
    assert [entry.key for entry in care.survey(artefacts.lake)] == [artefacts.one("counted").key]
    assert "build  counted" in capsys.readouterr().out


def test_the_artefacts_of_a_config_are_those_that_it_has(tmp_path: Path) -> None:
    plain = graph.locate(recipes.smoke(), Lake(str(tmp_path)))
    assert [stage for stage in STAGES if not plain.of(stage)] == ["mined", "retrained", "external", "recalibrated"]
    (trunk,) = recipes.smoke().trunks
    mined = graph.locate(replace(recipes.smoke(), trunks=(replace(trunk, hard_examples=0.5),)), Lake(str(tmp_path)))
    assert mined.classifiers[trunk.backbone] == mined.retrained[trunk.backbone]
    assert mined.trunks == plain.trunks
    assert mined.search != plain.search
    assert stages.OF_SEVERAL == ("transfer", "reproduction")


def finished(config: Config, root: Lake, *names: str) -> graph.Artefacts:
    """Mark stages of a config as complete, without their files."""
    artefacts = graph.locate(config, root)
    for name in names:
        inputs = [item for need in STAGES[name].needs for item in artefacts.of(need)]
        for item in artefacts.of(name):
            item.finish({"images": {}, "malignant": {}, "patients": {}} if name == "images" else {}, inputs)
    return artefacts


def explained(config: Config, root: Lake, stage: str) -> str:
    artefacts = graph.locate(config, root)
    inputs = [item for need in STAGES[stage].needs for item in artefacts.of(need)]
    return plan.explain(artefacts.of(stage)[0], inputs)


def test_the_plan_says_what_differs_from_the_nearest_artefact(tmp_path: Path) -> None:
    root, smoke = Lake(str(tmp_path)), recipes.smoke()
    assert explained(smoke, root, "patches") == ""
    there = finished(smoke, root, "phantoms", "patches", "trunks")
    finished(replace(smoke, seed=9, phantoms=replace(smoke.phantoms, patients=5)), root, "patches")
    more = replace(smoke, patches=replace(smoke.patches, per_lesion=smoke.patches.per_lesion + 1))
    own = smoke.patches.per_lesion
    assert explained(more, root, "patches") == f"patches.per_lesion {own + 1} here, {own} in {there.patches.key}"
    (trunk,) = smoke.trunks
    first, *others = trunk.training.stages
    training = replace(trunk.training, batch=7, stages=(replace(first, epochs=9), *others), balanced=False)
    other = replace(smoke, trunks=(replace(trunk, training=replace(training, precision="bf16")),), seed=3)
    said = explained(other, root, "trunks")
    assert said.startswith("patches phantoms-")
    assert "seed 3 here, 0; training.balanced False here, True, " in said
    assert said.endswith(f"more in {there.of('trunks')[0].key}")


def test_the_plan_compares_with_nothing_that_records_no_settings(tmp_path: Path) -> None:
    root, smoke = Lake(str(tmp_path)), recipes.smoke()
    patches = finished(smoke, root, "patches").patches
    for content in ({"patches": {}, "schema": 2}, [1]):
        lake.write_json(patches.file(lake.DONE), content)
        assert explained(replace(smoke, seed=1), root, "patches") == ""


def test_the_printed_plan_has_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, smoke = Lake(str(tmp_path)), recipes.smoke()
    finished(smoke, root, "phantoms")
    other = graph.locate(replace(smoke, phantoms=replace(smoke.phantoms, contrast=2.0)), root)
    plan.show(other, needed_for("images"), ["phantoms", "images"])
    said = capsys.readouterr().out.splitlines()
    assert "(phantoms.contrast 2.0 here, 1.0 in phantoms/" in said[0]
    assert said[1].endswith("(needs phantoms)")
