"""What a two-stage search costs and finds, against training every row in full: the part `search` of bench_tuning.py.

Twelve top layers on the demo's two small trunks; phantoms, with at least 400 validation films. All twelve are trained
through both stages; a search of the same candidates gives the same numbers bit for bit, only to fewer of them, so its
outcome is read from these: the best of each kind after stage 1 go on. Compute is seconds of training: packs as they
ran, and for the full grid each candidate by itself, whose stage 1 is timed here.
"""

import contextlib
import statistics
import sys
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
from bench_classifiers import show
from scipy.stats import spearmanr

from mammoflow import lake, recipes
from mammoflow.config import ComputeConfig, Config
from mammoflow.facts.stages import ImagesFacts
from mammoflow.metrics import roc
from mammoflow.pipeline import build
from mammoflow.pipeline.graph import Artefacts
from mammoflow.search import rungs, tuning
from mammoflow.training import distributed

WOMEN, VAL_WOMEN, LEAST_FILMS = 460, 200, 400
FIRST, SECOND = 9, 6
"""Epochs of the stages; the paper's are 30 and 20."""
TOPS = ("64x1,32x1", "128x1,64x1", "64x2,32x2", "[64-64-128]x1,[64-64-128]x1", "[32-32-64]x2,[32-32-64]x2",
        "[32-32-128]x1,[32-32-128]x1")  # fmt: skip
TIMED_EPOCHS, DRAWS = 2, 2000


def config(folder: str) -> Config:
    """Return the demo with twelve candidates, all of whom go through both stages."""
    demo = recipes.demo()
    first, second = demo.image_training.stages
    return replace(
        demo,
        name="share",
        lake=folder,
        phantoms=replace(demo.phantoms, patients=WOMEN),
        splits=replace(demo.splits, test=0.1, val=VAL_WOMEN / WOMEN / 0.9),
        trunks=tuple(replace(trunk, top_layers=TOPS) for trunk in demo.trunks),
        image_training=replace(
            demo.image_training, stages=(replace(first, epochs=FIRST), replace(second, epochs=SECOND))
        ),
        search=replace(demo.search, survivors="all"),
        compute=replace(demo.compute, pack=len(TOPS), concurrent_trials=1),  # as each is timed alone
    )


def measure(folder: str | None) -> None:
    """Train what is not there yet, and print the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = config(folder or temporary)
        with contextlib.redirect_stdout(sys.stderr):
            done = build.ensure("ensemble", whole)
            alone = alone_seconds(whole, done)
        report(whole, done, alone)


def alone_seconds(whole: Config, done: Artefacts) -> dict[str, float]:
    """Return how long an epoch of stage 1 takes each candidate that trains alone [s]."""
    with tempfile.TemporaryDirectory() as temporary:
        out = replace(done.search, url=temporary)
        jobs = tuning.trunk_jobs(whole, done.images, done.classifiers, out)
        found = {}
        for job in jobs:
            for candidate in job.candidates:
                seen: list[float] = []
                one = replace(job, name=candidate.name, candidates=(candidate,), until=TIMED_EPOCHS)
                distributed.train(one, ComputeConfig(), lambda figures, seen=seen: seen.append(figures["seconds"]))
                found[candidate.name] = min(seen)
    return found


def report(whole: Config, done: Artefacts, alone: dict[str, float]) -> None:
    """Print what the search costs and finds."""
    candidates = tuning.plan(whole)
    histories = {c.name: lake.read_json(c.folder(done.search, "history.json")) for c in candidates}
    first, best = ({name: top(rows, stage) for name, rows in histories.items()} for stage in (1, 2))
    kept = [c.name for c in rungs.survivors(candidates, done.search, replace(whole, search=recipes.demo().search))]
    packs = {c.backbone: seconds(histories[c.name], 1) for c in candidates}
    second = {name: seconds(rows, 2) for name, rows in histories.items()}
    search = sum(packs.values()) + sum(second[name] for name in kept)
    full = sum(FIRST * value for value in alone.values()) + sum(second.values())
    about = {"search_s": round(search), "full_s": round(full), "packs_s": [round(value) for value in packs.values()]}
    show("search_compute_share", search / full, "share", "<= 0.333", "both stages of all 12, one by one", **about)
    films = done.images.facts(ImagesFacts).images["val"]
    if films < LEAST_FILMS:
        raise SystemExit(f"{films} validation films, at least {LEAST_FILMS} are wanted; raise VAL_WOMEN")
    chosen, overall = max(kept, key=lambda name: best[name]), max(best, key=lambda name: best[name])
    difference, low, high = paired(done, chosen, overall)
    against = f"{overall}, the full grid's best, on {films} validation films"
    about = {"found": chosen, "ci95": [round(low, 4), round(high, 4)], "search_auc": round(best[chosen], 4)}
    show("auc_difference", difference, "AUC", "-", against, **about)
    names = list(histories)
    rank = spearmanr([first[name] for name in names], [best[name] for name in names]).statistic
    spread = [round(value, 3) for value in (min(best.values()), max(best.values()))]
    show("stage1_rank_correlation", rank, "Spearman's rho", "-", "final AUC of all 12", auc_spread=spread)


def top(rows: list[dict[str, Any]], stage: int) -> float:
    """Return the best AUC up to the end of a stage."""
    return max(float(row["val_auc"]) for row in rows if row["stage"] <= stage)


def seconds(rows: list[dict[str, Any]], stage: int) -> float:
    """Return how long a stage took; a first epoch is often slower, so it is the median's."""
    own = [float(row["seconds"]) for row in rows if row["stage"] == stage]
    return statistics.median(own) * len(own)


def paired(done: Artefacts, one: str, other: str) -> tuple[float, float, float]:
    """Return the difference of two models' AUCs on the same films, with its 95% interval (bootstrap by woman)."""
    table = lake.read_table(done.ensemble.file("val.parquet"))
    rows = [table.filter(np.array(table["model"]) == name).sort_by("image_id") for name in (one, other)]
    labels, women = np.array(rows[0]["label"]), np.array(rows[0]["patient_id"])
    scores = [np.array(row["score"]) for row in rows]
    films = [np.flatnonzero(women == woman) for woman in np.unique(women)]

    def difference(chosen: np.ndarray) -> float:
        return roc.auc(labels[chosen], scores[0][chosen]) - roc.auc(labels[chosen], scores[1][chosen])

    rng = np.random.default_rng(0)
    draws = [np.concatenate([films[n] for n in rng.integers(len(films), size=len(films))]) for _ in range(DRAWS)]
    low, high = np.quantile([difference(chosen) for chosen in draws], (0.025, 0.975))
    return difference(np.arange(len(labels))), float(low), float(high)
