"""Choose the members of the ensemble, its cut-off and its calibration, on validation alone. No Ray, MLflow.

Nothing here can choose on test: a table that holds a row of any other split than validation is refused, and no file is
read.

Shape letters: N images, K candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.config import EnsembleConfig
from mammoflow.ensemble import ensemble
from mammoflow.ensemble.ensemble import ENSEMBLE, Ensemble, Member
from mammoflow.errors import LakeError, SplitError
from mammoflow.metrics import calibration, operating_points, roc
from mammoflow.metrics.calibration import Calibration
from mammoflow.metrics.roc import FloatArray
from mammoflow.models import top_kinds

CHOSEN_ON = "val"

FAMILIES = top_kinds.routes()
"""The paper's ways from a patch classifier to a whole-image one, by the families of top layers."""


class Candidate(Protocol):
    """What the choice needs to know of a scored model."""

    @property
    def name(self) -> str:
        """Of its rows in the scores table."""

    @property
    def kind(self) -> str:
        """Trunk family - top family, e.g. Resnet-VGG."""

    @property
    def backbone(self) -> str:
        """Of its trunk."""

    @property
    def top_layers(self) -> str:
        """Its spec."""


def top_family(kind: str) -> str:
    """Return the family of top layers of a kind, e.g. VGG of Resnet-VGG."""
    return kind.rpartition("-")[2]


def choose(val_scores: pa.Table, ranking: Sequence[Candidate], config: EnsembleConfig) -> Ensemble:
    """Choose members by the config's rule from their flip-averaged scores, then the cut-off and the calibration.

    Args:
        val_scores: schema.SCORES, rows of the validation split only, one for each candidate and image.
        ranking: every scored candidate.
        config: the rules.

    Raises:
        SplitError: a row of another split, no rows, or one class only.
        LakeError: a scored candidate that the ranking does not know, or candidates scored on different images.

    Source: paper, results (mean of one model of each kind); chosen on validation, where the paper chose on test.
    """
    _refuse_other_splits(val_scores)
    ranked = {row.name: row for row in ranking}
    scored = pc.unique(val_scores["model"]).to_pylist()
    if unknown := sorted(set(scored) - set(ranked)):
        raise LakeError(
            f"scores of {unknown}, which the search's ranking lacks; it has {sorted(ranked)}: score that search again"
        )
    candidates = [_member(ranked[name], ensemble.rows_of(val_scores, name)) for name in scored]
    candidates = sorted(candidates, key=lambda member: (-member.val_auc, member.name))
    members = _RULES[config.rule](val_scores, candidates, config)
    return _freeze(val_scores, members, config)


def choose_each(val_scores: pa.Table, ranking: Sequence[Candidate], config: EnsembleConfig) -> dict[str, Ensemble]:
    """Choose an ensemble by each rule, to compare them; see `choose`."""
    return {str(rule): choose(val_scores, ranking, replace(config, rule=rule)) for rule in _RULES}


def choose_singles(val_scores: pa.Table, ranking: Sequence[Candidate], config: EnsembleConfig) -> dict[str, Ensemble]:
    """Choose the best single model of each family of top layers, each as an ensemble of one; see `choose`.

    Returns:
        Family -> its best model, in the order of `FAMILIES`; families without a scored model are left out.
    """
    _refuse_other_splits(val_scores)
    best = {}
    for family, tops in FAMILIES.items():
        names = [row.name for row in ranking if top_family(row.kind) in tops]
        rows = val_scores.filter(pc.is_in(val_scores["model"], pa.array(names, pa.string())))
        if rows.num_rows:  # greedily, one round takes the best
            best[family] = choose(rows, ranking, replace(config, rule="greedy", rounds=1))
    return best


def recalibrate(val_scores: pa.Table, chosen: Ensemble, config: EnsembleConfig) -> Ensemble:
    """Return an ensemble with a cut-off and a calibration of other validation images, as of a new site.

    Members and weights stay; its validation figures are those of the new images.

    Args:
        val_scores: schema.SCORES of every member on the new validation images alone.
        chosen: the ensemble.
        config: the rules for cut-off and calibration.

    Raises:
        SplitError: a row of another split, no rows, or one class only.
        LakeError: a member without scores.
    """
    _refuse_other_splits(val_scores)
    fresh = [replace(each, val_auc=_auc(ensemble.rows_of(val_scores, each.name))) for each in chosen.members]
    return replace(_freeze(val_scores, fresh, config), rule=chosen.rule)


def _freeze(val_scores: pa.Table, members: Sequence[Member], config: EnsembleConfig) -> Ensemble:
    """Return the ensemble of these members, its cut-off and calibration fitted on the same images."""
    means = ensemble.mean_scores(val_scores, members)
    labels_N, scores_N = ensemble.columns(means)
    val = ensemble.summarise(means)[ENSEMBLE].flips
    cutoff = operating_points.choose_cutoff(labels_N, scores_N, *config.cutoff_rule)
    point = operating_points.at_cutoff(labels_N, scores_N, cutoff)
    return Ensemble(
        members=tuple(members),
        cutoff=cutoff,
        val_images=means.num_rows,
        val_auc=val.value,
        val_by_patient=val.by_patient,
        val_sensitivity=point.sensitivity.value,
        val_specificity=point.specificity.value,
        rule=config.rule,
        calibration=_calibration(means, config),
    )


def _calibration(means: pa.Table, config: EnsembleConfig) -> Calibration:
    labels_N, scores_N = ensemble.columns(means)
    if config.calibration == "best":
        return calibration.fit(labels_N, scores_N, means["patient_id"].to_pylist())
    return calibration.fit_kind(config.calibration, labels_N, scores_N)


def _refuse_other_splits(scores: pa.Table) -> None:
    splits = pc.unique(scores["split"]).to_pylist()
    if splits != [CHOSEN_ON]:
        raise SplitError(
            f"scores of the splits {splits}; members and cut-off are chosen on {CHOSEN_ON!r} alone, so that test stays "
            "untouched: pass the validation scores only"
        )


def _member(row: Candidate, scores: pa.Table) -> Member:
    return Member(name=row.name, kind=row.kind, backbone=row.backbone, top_layers=row.top_layers, val_auc=_auc(scores))


def _auc(rows: pa.Table) -> float:
    return roc.auc(*ensemble.columns(rows))


def _best_of_kinds(_: pa.Table, candidates: Sequence[Member], __: EnsembleConfig) -> list[Member]:
    """Return the best of each kind with all-convolutional top layers, kinds in alphabetical order.

    A kind is a trunk family with a family of top layers, such as Resnet-VGG. Kinds with heatmap or fully connected
    layers are averaged only where there is no all-convolutional one. On the paper's two trunks that is its ensemble.
    """
    convolutional = [member for member in candidates if top_family(member.kind) in FAMILIES["all-convolutional"]]
    best: dict[str, Member] = {}
    for member in convolutional or candidates:
        best.setdefault(member.kind, member)
    return [best[kind] for kind in sorted(best)]


def _greedy(val_scores: pa.Table, candidates: Sequence[Member], config: EnsembleConfig) -> list[Member]:
    """Return those that, taken one after the other, each time raise the mean's AUC most; one may be taken again.

    Of all the means on the way the best is kept, the smallest of equal ones.

    Source: Caruana et al. 2004.
    """
    pool = candidates[: config.pool_size]
    labels_N, _ = ensemble.columns(ensemble.mean_scores(val_scores, pool))  # refuses those scored on other images
    scores_KN = np.stack([ensemble.columns(ensemble.rows_of(val_scores, member.name))[1] for member in pool])
    taken: list[int] = []
    best, best_auc = 1, -1.0
    total_N: FloatArray = np.zeros(len(labels_N))
    for size in range(1, config.rounds + 1):
        aucs = [roc.auc(labels_N, (total_N + scores_N) / size) for scores_N in scores_KN]
        taken.append(int(np.argmax(aucs)))
        total_N = total_N + scores_KN[taken[-1]]
        if aucs[taken[-1]] > best_auc + _SAME:
            best, best_auc = size, aucs[taken[-1]]
    chosen = taken[:best]
    return [replace(pool[index], times=chosen.count(index)) for index in sorted({*chosen})]


_SAME = 1e-12

_RULES: dict[
    Literal["best_of_kinds", "greedy"], Callable[[pa.Table, Sequence[Member], EnsembleConfig], list[Member]]
] = {
    "best_of_kinds": _best_of_kinds,
    "greedy": _greedy,
}
