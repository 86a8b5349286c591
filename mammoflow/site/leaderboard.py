"""The leaderboard's rows: every finished model of every run of a lake, and every registered version. No Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from mammoflow import lake
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble
from mammoflow.lake import Artefact, Lake
from mammoflow.registry.registry import Version
from mammoflow.site.runs import UNKNOWN, Run, input_of, mark_of

TWO_STEP = "two-step"
"""Kind of the paper's baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """A flip-averaged AUC per image and its 95% interval by patient."""

    value: float
    """[0-1]."""
    low: float | None = None
    """Lower end; None where it is not known."""
    high: float | None = None
    """Upper end."""
    images: int | None = None
    """Images that it is of; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model."""

    model: str
    """Name of a candidate, of an ensemble's rule, or of the baseline."""
    kind: str
    """ensemble | two-step | a family of top layers, e.g. Resnet-VGG."""
    run: str = ""
    """Recipe of its run; empty for a version that no evaluated run of the lake made."""
    data: str = ""
    """Release and size of the images that it was trained and judged on."""
    mark: str = ""
    """What must be said of these images: of phantoms, that they are; or that it is not known."""
    patients: int | None = None
    """Patients that it was trained on; None where that is not known."""
    val: Auc | None = None
    """On validation, where it was chosen."""
    test: Auc | None = None
    """On test, by which nothing was chosen."""
    version: str = ""
    """`<name>/<version>` in the registry; empty where it is not registered."""
    aliases: tuple[str, ...] = ()
    """Of that version, e.g. champion."""
    page: str = ""
    """Relative URL of its run's page; empty where there is none."""


def rows(root: Lake, runs: Sequence[Run], versions: Sequence[Version]) -> list[Row]:
    """Return every model, best validation AUC first.

    Args:
        root: the lake, for the baselines.
        runs: its evaluated runs.
        versions: what the registry holds.
    """
    by_name = {each.key: each for each in versions}
    found = [row for run in runs for row in _of_run(run, by_name)]
    found += [_baseline(root, item) for item in lake.list_complete(root, "two_step") if input_of(item, "images")]
    here = {row.version for row in found}
    found += [_elsewhere(name, each) for name, each in by_name.items() if name not in here]
    return sorted(found, key=lambda row: (-row.val.value if row.val else 0.0, row.model))


def _of_run(run: Run, versions: Mapping[str, Version]) -> list[Row]:
    """Return a run's ensembles, the frozen one with its version, and its candidates."""
    val, test, chosen = run.scores("val"), run.scores("test"), run.ensembles()
    kinds = {row["name"]: str(row["kind"]) for row in run.ranking}
    kinds |= {member.name: member.kind for each in chosen.values() for member in each.members}
    about = replace(_data(run.images), run=run.evaluation.name, page=f"{quote(run.key)}/index.html")
    found = []
    for index, (rule, each) in enumerate(chosen.items()):
        version = run.version if index == 0 else ""
        aliases = versions[version].aliases if version in versions else ()
        row = replace(
            about, model=f"ensemble, {rule.replace('_', ' ')}", kind=ENSEMBLE, version=version, aliases=aliases
        )
        found.append(replace(row, val=_of_ensemble(val, each), test=_of_ensemble(test, each)))
    vals, tests = ensembles.summarise(val), ensembles.summarise(test)
    for name, figures in tests.items():
        found.append(replace(about, model=name, kind=kinds.get(name, ""), val=_auc(vals[name]), test=_auc(figures)))
    return found


def _data(images: Artefact) -> Row:
    """Return a row that says of its data alone."""
    patients = images.summary()["patients"].get("train", 0) if images.done else None
    return Row(model="", kind="", data=images.name, mark=mark_of(images), patients=patients)


def _baseline(root: Lake, made: Artefact) -> Row:
    """Return the paper's two-step baseline."""
    val, test = (
        _auc(*ensembles.summarise(lake.read_table(made.file(f"{split}.parquet"))).values()) for split in ("val", "test")
    )
    name = f"{TWO_STEP}, {made.summary()['backbone']}"
    return replace(
        _data(root.at(input_of(made, "images"))), model=name, kind=TWO_STEP, run=made.name, val=val, test=test
    )


def _elsewhere(name: str, version: Version) -> Row:
    """Return a registered version that no evaluated run of this lake made, by its tags."""
    tags, test = version.tags, None
    if {"test_auc", "test_ci95"} <= tags.keys():
        low, high = (float(end) for end in tags["test_ci95"].split(" to "))
        test = Auc(value=float(tags["test_auc"]), low=low, high=high)
    val = Auc(value=float(tags["val_auc"]))
    return Row(model=ENSEMBLE, kind=ENSEMBLE, mark=UNKNOWN, val=val, test=test, version=name, aliases=version.aliases)


def _of_ensemble(scores: pa.Table, chosen: Ensemble) -> Auc:
    return _auc(ensembles.summarise(ensembles.average(scores, chosen))[ENSEMBLE])


def _auc(figures: Mapping[str, Any]) -> Auc:
    low, high = figures["ci95_patients"]
    return Auc(value=figures["auc_tta"], low=low, high=high, images=figures["images"])
