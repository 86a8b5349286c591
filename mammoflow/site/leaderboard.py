"""The leaderboard's rows: every finished model of every run of a lake, and every registered version. No Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from mammoflow import lake
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE
from mammoflow.ensemble.split_door import open_scores
from mammoflow.facts.published import LeaderboardRow
from mammoflow.facts.results import Interval, ListedAuc, Score
from mammoflow.facts.stages import ImagesFacts, TwoStepFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.registry.registry import Version
from mammoflow.rendering import marks
from mammoflow.site.runs import Run

TWO_STEP = "two-step"
"""Kind of the paper's baseline."""


def rows(root: Lake, runs: Sequence[Run], versions: Sequence[Version]) -> list[LeaderboardRow]:
    """Return every model, best validation AUC first.

    Args:
        root: the lake, for the baselines.
        runs: its evaluated runs.
        versions: what the registry holds.
    """
    by_name = {version.key: version for version in versions}
    listed = [row for run in runs for row in _of_run(run, by_name)]
    listed += [_baseline(root, item) for item in lake.list_complete(root, "two_step") if item.input_of("images")]
    here = {row.version for row in listed}
    listed += [_elsewhere(name, version) for name, version in by_name.items() if name not in here]
    return sorted(listed, key=lambda row: (-row.val.value if row.val else 0.0, row.model))


def _of_run(run: Run, versions: Mapping[str, Version]) -> list[LeaderboardRow]:
    """Return a run's ensembles, the frozen one with its version, and its candidates."""
    val, test = run.val_scores, run.test_scores()
    kinds = {row.name: row.kind for row in run.ranking}
    kinds |= {member.name: member.kind for chosen in run.ensembles.values() for member in chosen.members}
    shared = replace(_data(run.images), run=run.evaluation.name, page=f"{quote(run.key)}/index.html")
    listed = []
    for rule, chosen in run.ensembles.items():
        version = run.version if chosen is run.frozen else ""
        aliases = versions[version].aliases if version in versions else ()
        name = f"ensemble, {rule.replace('_', ' ')}"
        row = replace(shared, model=name, kind=ENSEMBLE, version=version, aliases=aliases)
        on_val, on_test = (_auc(ensembles.summarise_ensemble(scores, chosen)) for scores in (val, test))
        listed.append(replace(row, val=on_val, test=on_test))
    vals = ensembles.summarise(val)
    for name, score in ensembles.summarise(test).items():
        listed.append(replace(shared, model=name, kind=kinds.get(name, ""), val=_auc(vals[name]), test=_auc(score)))
    return listed


def _data(images: Artefact) -> LeaderboardRow:
    """Return a row that describes its data alone."""
    patients = images.facts(ImagesFacts).patients.get("train", 0) if images.done else None
    return LeaderboardRow(model="", kind="", data=images.name, mark=marks.mark_of(images), patients=patients)


def _baseline(root: Lake, made: Artefact) -> LeaderboardRow:
    """Return the paper's two-step baseline."""
    (choice,) = ensembles.read_choices(made.file("choice.json")).values()
    (val,), (test,) = (ensembles.summarise(open_scores(made, split, choice)).values() for split in ("val", "test"))
    return replace(
        _data(root.at(made.input_of("images"))),
        model=f"{TWO_STEP}, {made.facts(TwoStepFacts).backbone}",
        kind=TWO_STEP,
        run=made.name,
        val=_auc(val),
        test=_auc(test),
    )


def _elsewhere(name: str, version: Version) -> LeaderboardRow:
    """Return a registered version that no evaluated run of this lake made, by its tags."""
    tags, test = version.tags, None
    if {"test_auc", "test_auc_by_patient"} <= tags.keys():
        low, high = (float(end) for end in tags["test_auc_by_patient"].split(" to "))
        test = ListedAuc(value=float(tags["test_auc"]), by_patient=Interval(low=low, high=high))
    return LeaderboardRow(
        model=ENSEMBLE,
        kind=ENSEMBLE,
        mark=marks.UNKNOWN,
        val=ListedAuc(value=float(tags["val_auc"])),
        test=test,
        version=name,
        aliases=version.aliases,
    )


def _auc(score: Score) -> ListedAuc:
    return ListedAuc(value=score.flips.value, by_patient=score.flips.by_patient, images=score.images)
