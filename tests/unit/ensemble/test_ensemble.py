"""Choosing and freezing the ensemble: on validation, and on nothing else."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.ensemble import ensemble, performance, selection
from mammoflow.errors import ConfigError, LakeError, SplitError
from mammoflow.lake.schema import SCORES
from mammoflow.metrics import resampling, roc
from mammoflow.metrics.resampling import Resampling


class Known(NamedTuple):
    """A candidate that was scored."""

    name: str
    kind: str
    backbone: str
    top_layers: str


RANKING = [
    Known("resnet18-64x1-32x1", "Resnet-VGG", "resnet18", "64x1,32x1"),
    Known("resnet18-32x1-16x1", "Resnet-VGG", "resnet18", "32x1,16x1"),
    Known("vgg11-64x1-32x1", "VGG-VGG", "vgg11", "64x1,32x1"),
]
NAMES = [row.name for row in RANKING]


def scores_table(model, split, scores_tta, labels, scores=None):
    n = len(labels)
    ids = [f"film-{i}" for i in range(n)]
    values = [[model] * n, [split] * n, ids, ids, ids, ["L"] * n, ["CC"] * n, labels, scores or scores_tta, scores_tta]
    return pa.Table.from_arrays([pa.array(v, f.type) for v, f in zip(values, SCORES, strict=True)], schema=SCORES)


LABELS = [0, 0, 0, 1, 1, 1]


def val_scores(split="val"):
    return pa.concat_tables(
        [
            scores_table(NAMES[0], split, [0.1, 0.2, 0.6, 0.5, 0.7, 0.8], LABELS),  # 8 of 9 pairs right
            scores_table(NAMES[1], split, [0.1, 0.7, 0.6, 0.5, 0.7, 0.8], LABELS),  # worse, same kind
            scores_table(NAMES[2], split, [0.3, 0.2, 0.1, 0.35, 0.1, 0.9], LABELS),
        ]
    )


def test_the_best_of_each_kind_is_averaged_and_cut_by_youden():
    chosen = selection.choose(val_scores(), RANKING, EnsembleConfig())
    assert chosen.names == (NAMES[0], NAMES[2])
    assert [member.kind for member in chosen.members] == ["Resnet-VGG", "VGG-VGG"]
    mean = np.array([0.2, 0.2, 0.35, 0.425, 0.4, 0.85])
    rows = ensemble.average(val_scores(), chosen)
    assert rows.schema == SCORES
    np.testing.assert_allclose(rows["score_tta"].to_numpy(), mean)
    assert set(rows["model"].to_pylist()) == {"ensemble"}
    assert chosen.cutoff == pytest.approx(0.375)
    assert (chosen.val_auc, chosen.val_sensitivity, chosen.val_specificity) == (1.0, 1.0, 1.0)
    reached = performance.measure(val_scores("test"), chosen)
    assert reached.at_cutoff.cutoff == chosen.cutoff
    assert [measure.name for measure in reached.measures] == [metric.name for metric in performance.METRICS]


@pytest.mark.parametrize("other", ["test", "train"])
def test_no_row_of_another_split_takes_part_in_the_choice(other):
    one_row_too_many = pa.concat_tables([val_scores(), val_scores(other).slice(0, 1)])
    for table in (val_scores(other), one_row_too_many, val_scores().slice(0, 0)):
        with pytest.raises(SplitError, match="chosen on 'val' alone"):
            selection.choose(table, RANKING, EnsembleConfig())


def test_the_choice_does_not_depend_on_the_order_of_rows():
    shuffled = val_scores().take(np.random.default_rng(0).permutation(18))
    assert selection.choose(shuffled, RANKING[::-1], EnsembleConfig()) == selection.choose(
        val_scores(), RANKING, EnsembleConfig()
    )


def test_json_keeps_every_digit(tmp_path):
    chosen = selection.choose(val_scores(), RANKING, EnsembleConfig())
    url = str(tmp_path / "ensembles.json")
    ensemble.write_choices(url, {"best_of_kinds": chosen})
    assert ensemble.read_choices(url) == {"best_of_kinds": chosen}
    lake.write_json(url, {"best_of_kinds": {"members": []}})  # as earlier versions wrote it
    with pytest.raises(LakeError, match=r"ensembles\.json holds no Choices that this version"):
        ensemble.read_choices(url)


def test_scores_that_do_not_fit_together_are_refused():
    with pytest.raises(LakeError, match="which the search's ranking lacks"):
        selection.choose(val_scores(), RANKING[:2], EnsembleConfig())
    chosen = selection.choose(val_scores(), RANKING, EnsembleConfig())
    with pytest.raises(LakeError, match="score every member on the same split"):
        ensemble.average(val_scores().slice(0, 17), chosen)


def test_summarise_gives_plain_and_averaged_figures():
    table = scores_table(NAMES[0], "test", [0.1, 0.2, 0.6, 0.5, 0.7, 0.8], LABELS, [0.1, 0.2, 0.3, 0.5, 0.7, 0.8])
    figures = ensemble.summarise(table)[NAMES[0]]
    assert (figures.images, figures.malignant) == (6, 3)
    assert figures.plain.value == 1.0
    assert figures.flips.value == pytest.approx(8 / 9)
    flips = [0.1, 0.2, 0.6, 0.5, 0.7, 0.8]
    assert figures.flips.delong == roc.auc_interval(LABELS, flips)
    patients = table["patient_id"].to_pylist()
    assert figures.flips.by_patient == resampling.interval(Resampling(LABELS, patients).aucs(flips))
    with pytest.raises(SplitError, match="one split at a time"):
        ensemble.summarise(pa.concat_tables([table, val_scores()]))


def test_heatmap_rows_are_averaged_only_where_nothing_else_is_there():
    heatmap = Known("resnet18-max", "Resnet-Instances", "resnet18", "max")
    best = scores_table("resnet18-max", "val", [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], LABELS)
    chosen = selection.choose(pa.concat_tables([val_scores(), best]), [*RANKING, heatmap], EnsembleConfig())
    assert chosen.names == (NAMES[0], NAMES[2])
    assert selection.choose(best, [heatmap], EnsembleConfig()).names == ("resnet18-max",)


def test_another_trunk_joins_the_paper_s_kinds():
    other = Known("efficientnet-64x1-32x1", "Efficientnet-VGG", "timm/efficientnet_b0", "64x1,32x1")
    scores = scores_table(other.name, "val", [0.3, 0.1, 0.2, 0.4, 0.8, 0.9], LABELS)
    chosen = selection.choose(pa.concat_tables([val_scores(), scores]), [*RANKING, other], EnsembleConfig())
    assert [member.kind for member in chosen.members] == ["Efficientnet-VGG", "Resnet-VGG", "VGG-VGG"]


def test_greedy_takes_what_raises_the_mean_again_and_again():
    rng = np.random.default_rng(0)
    labels = [n % 2 for n in range(200)]
    logits = np.array(labels) + rng.normal(0, 1, (3, 200))
    names = ["best", "helper", "useless"]
    # The helper is right where the best is wrong; the useless one says nothing.
    values = [logits[0], 0.7 * logits[1], rng.normal(0, 1, 200)]
    scores = {name: list(1 / (1 + np.exp(-logit))) for name, logit in zip(names, values, strict=True)}
    table = pa.concat_tables([scores_table(name, "val", scores[name], labels) for name in names])
    ranking = [Known(name, "Resnet-VGG", "resnet18", name) for name in names]
    by_rule = selection.choose_each(table, ranking, EnsembleConfig())
    greedy, kinds = by_rule["greedy"], by_rule["best_of_kinds"]
    assert kinds.names == ("best",)
    assert set(greedy.names) >= {"best", "helper"}
    assert greedy.val_auc > kinds.val_auc
    times = {member.name: member.times for member in greedy.members}
    assert min(times["best"], times["helper"]) > times.get("useless", 0)
    weighted = sum(n * np.array(ensemble.columns(ensemble.rows_of(table, name))[1]) for name, n in times.items())
    mean = ensemble.average(table, greedy)["score_tta"].to_numpy()
    np.testing.assert_allclose(mean, weighted / sum(times.values()))
    members = np.stack([ensemble.columns(ensemble.rows_of(table, name))[1] for name in greedy.names], axis=1)
    score, probability, malignant = ensemble.decide(members, greedy)
    np.testing.assert_allclose(score, mean)
    assert (malignant == (mean >= greedy.cutoff)).all()
    np.testing.assert_allclose(probability, greedy.calibration.apply(mean))
    only = selection.choose(table, ranking, EnsembleConfig(rule="greedy", pool_size=1))
    assert (only.names, only.members[0].times) == (("best",), 1)


def test_greedy_by_hand():
    # Pairs ranked right: A 3 of 4, B 3 of 4, their mean all; a third round can't better it.
    labels = [0, 0, 1, 1]
    table = pa.concat_tables(
        [scores_table("A", "val", [0.1, 0.5, 0.4, 0.9], labels), scores_table("B", "val", [0.5, 0.1, 0.9, 0.4], labels)]
    )
    ranking = [Known(name, "max", "resnet18", name) for name in "AB"]
    chosen = selection.choose(table, ranking, EnsembleConfig(rule="greedy"))
    assert [(member.name, member.times) for member in chosen.members] == [("A", 1), ("B", 1)]
    assert chosen.val_auc == 1


def test_candidates_of_other_images_are_refused_by_every_rule():
    fewer = scores_table(NAMES[1], "val", [0.1, 0.9], [0, 1])
    table = pa.concat_tables([val_scores().slice(0, 6), fewer])
    with pytest.raises(LakeError, match="score every member on the same split"):
        selection.choose(table, RANKING, EnsembleConfig(rule="greedy"))


def test_settings_of_the_choice_are_checked():
    for rule in ("youden", "sensitivity=0.9", "specificity=0.8"):
        assert EnsembleConfig(cutoff=rule).cutoff_rule[0] == rule.partition("=")[0]
    for wrong in ("best", "sensitivity", "sensitivity=2", "specificity=", "youden=1"):
        with pytest.raises(ConfigError, match=r"sensitivity=0\.9"):
            EnsembleConfig(cutoff=wrong)
    with pytest.raises(ConfigError, match="rounds"):
        EnsembleConfig(rounds=0)


def test_the_operating_point_follows_its_rule():
    chosen = selection.choose(val_scores(), RANKING, EnsembleConfig(cutoff="specificity=0.6"))
    assert chosen.val_specificity >= 0.6
    assert chosen.val_sensitivity == 1
