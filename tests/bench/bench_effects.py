"""The method's own effects, on phantoms: what a trained trunk and an ensemble are worth.

    python tests/bench/bench_effects.py                    # the recipe `demo`, seeds 0 1 2; half an hour on 2 cores
    python tests/bench/bench_effects.py --lake /tmp/effects    # goes on where an earlier call stopped

Each seed draws its own women, with more of them in the test split than the demo has, and trains everything anew. The
random trunk is an untrained one that carries the very top layers chosen on the trained trunk, trained by the same
two stages on the same images.

Prints one JSON line a figure. `seeds` holds each seed's value, `value` their mean. `ci95` of an AUC, or of a difference
of two, resamples the test women of every seed (2,000 times, both sides of a difference alike); of a patch accuracy
it is Student's over the seeds, for the patches of one woman are alike. Phantom figures say nothing of patients.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow import lake, pipeline, recipes
from mammoflow.config import Config
from mammoflow.graph import Artefacts
from mammoflow.results import ensemble, metrics
from mammoflow.results.ensemble import ENSEMBLE

TRAINING_WOMEN, TEST_WOMEN = 240, 165  # of the latter at least 300 films are asked for
LEAST_TEST_FILMS = 300
RESAMPLES = 2000
STUDENT_2 = 4.302652729911275
"""97.5% point of Student's distribution of 2 degrees of freedom: three seeds."""

Rows = dict[str, tuple[np.ndarray, np.ndarray]]
"""Model -> labels and flip-averaged scores of one seed's test films, all in the same order."""


def of_seed(seed: int, folder: str) -> Config:
    """Return the demo with its training women and more test women."""
    demo = recipes.demo()
    women = TRAINING_WOMEN + TEST_WOMEN
    return replace(
        demo,
        lake=folder,
        seed=seed,
        phantoms=replace(demo.phantoms, patients=women),
        splits=replace(demo.splits, test=TEST_WOMEN / women),
    )


def untrained(config: Config, done: Artefacts) -> Config:
    """Return the same run on trunks as initialised, with the top layers of the ensemble's members alone."""
    members = pipeline.load_ensemble(done).members
    trunks = tuple(
        replace(
            trunk,
            training=replace(trunk.training, stages=(replace(trunk.training.stages[0], epochs=0),)),
            top_layers=tuple(m.top_layers for m in members if m.backbone == trunk.backbone),
        )
        for trunk in config.trunks
    )
    return replace(config, name="demo-random-trunk", trunks=trunks, search=replace(config.search, survivors="all"))


def members_and_ensemble(done: Artefacts) -> pa.Table:
    """Return the members' rows and the ensemble's."""
    chosen = pipeline.load_ensemble(done)
    scores = lake.read_table(done.evaluation.file("test.parquet"))
    members = scores.filter(pc.is_in(scores["model"], pa.array(chosen.names)))
    return pa.concat_tables([members, ensemble.average(scores, chosen)])


def as_rows(table: pa.Table, prefix: str = "") -> tuple[Rows, np.ndarray]:
    """Return each model's labels and scores, and whose film each row is."""
    rows: Rows = {}
    women = np.array([])
    for name in pc.unique(table["model"]).to_pylist():
        own = table.filter(pc.equal(table["model"], name)).sort_by("image_id")
        rows[prefix + name] = own["label"].to_numpy(), own["score_tta"].to_numpy()
        women = own["patient_id"].to_numpy(zero_copy_only=False)
    return rows, women


def resampled(women: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of as many women, drawn with replacement."""
    names, of = np.unique(women, return_inverse=True)
    films = [np.flatnonzero(of == woman) for woman in range(len(names))]
    return np.concatenate([films[woman] for woman in rng.integers(0, len(names), len(names))])


Statistic = Callable[[dict[str, float]], float]


def with_interval(seeds: list[tuple[Rows, np.ndarray]], statistics: dict[str, Statistic]) -> dict[str, dict]:
    """Return value, values by seed and interval of each statistic of the models' AUCs."""
    rng = np.random.default_rng(0)
    here = [{name: metrics.auc(*row) for name, row in rows.items()} for rows, _ in seeds]
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(RESAMPLES):
        aucs = []
        for rows, women in seeds:
            pick = resampled(women, rng)
            aucs.append({name: metrics.auc(labels[pick], scores[pick]) for name, (labels, scores) in rows.items()})
        for name, statistic in statistics.items():
            drawn[name].append(float(np.mean([statistic(auc) for auc in aucs])))
    found = {}
    for name, statistic in statistics.items():
        values = [statistic(auc) for auc in here]
        found[name] = figures(values, np.percentile(drawn[name], [2.5, 97.5]))
    return found


def figures(values: list[float], interval: np.ndarray) -> dict:
    """Return the mean of the seeds, each of them, and the interval, rounded for people."""
    rounded = [round(float(value), 3) for value in values]
    return {"value": round(float(np.mean(values)), 3), "ci95": interval.round(3).tolist(), "seeds": rounded}


def students(values: list[float]) -> dict:
    """Return the figures of one value a seed, with Student's interval."""
    margin = STUDENT_2 * np.std(values, ddof=1) / len(values) ** 0.5
    return figures(values, np.clip(np.mean(values) + np.array([-margin, margin]), 0, 1))


def mean_of(aucs: dict[str, float], prefix: str) -> float:
    """Return the mean AUC of the members on one kind of trunk."""
    members = [auc for name, auc in aucs.items() if name.startswith(prefix) and not name.endswith(ENSEMBLE)]
    return float(np.mean(members))


STATISTICS: dict[str, Statistic] = {
    "members' mean AUC, trained trunk": lambda aucs: mean_of(aucs, "trained/"),
    "members' mean AUC, random trunk": lambda aucs: mean_of(aucs, "random/"),
    "trained trunk minus random trunk, members' mean AUC": lambda a: mean_of(a, "trained/") - mean_of(a, "random/"),
    "ensemble AUC": lambda aucs: aucs[f"trained/{ENSEMBLE}"],
    "ensemble minus members' mean AUC": lambda aucs: aucs[f"trained/{ENSEMBLE}"] - mean_of(aucs, "trained/"),
}
GOALS = {
    "trained trunk minus random trunk, members' mean AUC": ("above 0", "the same top layers on a random trunk"),
    "ensemble minus members' mean AUC": ("at least 0", "the mean of its members"),
}


def show(figure: str, values: dict, unit: str, goal: str, against: str) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values, "unit": unit, "goal": goal, "against": against}), flush=True)


def measure(folder: str) -> None:
    """Train three seeds, trained and random trunks, and print the figures."""
    seeds, accuracies = [], {}
    for seed in range(3):
        config = of_seed(seed, folder)
        with contextlib.redirect_stdout(sys.stderr):
            trained = pipeline.ensure("evaluation", config)
            random = pipeline.ensure("evaluation", untrained(config, trained))
        rows, women = as_rows(members_and_ensemble(trained), "trained/")
        assert len(women) >= LEAST_TEST_FILMS, f"{len(women)} test films, {LEAST_TEST_FILMS} are wanted: draw more"
        others, same_women = as_rows(members_and_ensemble(random), "random/")
        assert (women == same_women).all()
        seeds.append((rows | others, women))
        for name, found in trained.evaluation.summary()["patch_accuracy"].items():
            accuracies.setdefault(name, []).append(found["balanced_accuracy"])
    for name, values in accuracies.items():
        show(f"S10 patches, balanced accuracy, {name}", students(values), "share", "far above .2", "chance, 5 classes")
    for figure, values in with_interval(seeds, STATISTICS).items():
        goal, against = GOALS.get(figure, ("none; for reading the differences", "chance, .5"))
        show(figure, values, "AUC", goal, against)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", help="where to work and what to go on from; a temporary folder by default")
    given = parser.parse_args().lake
    with contextlib.nullcontext(given) if given else tempfile.TemporaryDirectory(prefix="mammoflow-") as kept:
        measure(kept)
