"""How a model does on parts of a split: by view, density, kind of lesion, vendor. No torch, no Ray, no files."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.errors import LakeError
from mammoflow.facts.results import Auc, Interval, Subgroup
from mammoflow.lake.schema import MALIGNANT
from mammoflow.metrics import operating_points, resampling, roc
from mammoflow.metrics.resampling import Resampling
from mammoflow.metrics.roc import FloatArray

UNKNOWN = "unknown"


def table(rows: pa.Table, facts: pa.Table, cutoff: float) -> list[Subgroup]:
    """Return every subgroup of a model's scores, in the order view, density, lesion, vendor, then by name.

    An image with a mass and a calcification stands in both groups; one without a lesion in the group `none`.

    Args:
        rows: schema.SCORES of one model on one split.
        facts: of the same images, as `evaluation.image_facts` gives them.
        cutoff: of the model, chosen on validation.

    Raises:
        LakeError: `facts` lacks an image of `rows`.
    """
    rows = rows.sort_by("image_id")
    known = facts.filter(pc.is_in(facts["image_id"], rows["image_id"])).sort_by("image_id")
    if not known["image_id"].equals(rows["image_id"]):
        missing = rows.num_rows - known.num_rows
        raise LakeError(f"{missing} of {rows.num_rows} scored images are not among the split's; score that split anew")
    return [_subgroup(by, name, rows.filter(pa.array(inside_N)), cutoff) for by, name, inside_N in _groups(rows, known)]


def _groups(rows: pa.Table, facts: pa.Table) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Yield what images are grouped by, a group's name, and which images are in it."""
    single = {"view": rows["view"], "density": facts["density"], "vendor": facts["vendor"]}
    named: dict[str, list[set[str]]] = {
        by: [{UNKNOWN if value is None or value == "" else str(value)} for value in column.to_pylist()]
        for by, column in single.items()
    }
    named["lesion"] = [set(kinds) or {"none"} for kinds in facts["kinds"].to_pylist()]
    for by in ("view", "density", "lesion", "vendor"):
        for name in sorted(set().union(*named[by]), key=lambda name: (name == UNKNOWN, name)):
            yield by, name, np.array([name in names for names in named[by]])


def _subgroup(by: str, name: str, rows: pa.Table, cutoff: float) -> Subgroup:
    labels_N, scores_N = ensembles.columns(rows)
    called_N, malignant_N = scores_N >= cutoff, labels_N == MALIGNANT
    malignant, benign = int(malignant_N.sum()), int((~malignant_N).sum())
    sides = [(int(called_N[malignant_N].sum()), malignant), (int((~called_N[~malignant_N]).sum()), benign)]
    sensitivity, specificity = (operating_points.proportion(hits, of) if of else None for hits, of in sides)
    return Subgroup(
        by=by,
        name=name,
        images=len(labels_N),
        malignant=malignant,
        auc=_auc(rows, labels_N, scores_N) if malignant and benign else None,
        sensitivity=sensitivity,
        specificity=specificity,
    )


def _auc(rows: pa.Table, labels_N: npt.NDArray[np.int64], scores_N: FloatArray) -> Auc:
    """Return the AUC; without an interval by patient where a class has one patient: every draw would repeat them."""
    patients_N = np.array(rows["patient_id"].to_pylist())
    by_patient: Interval | None = None
    if min(len(np.unique(patients_N[labels_N == label])) for label in (0, 1)) > 1:
        by_patient = resampling.interval(Resampling(labels_N, patients_N.tolist()).aucs(scores_N))
    return Auc(value=roc.auc(labels_N, scores_N), by_patient=by_patient, delong=roc.auc_interval(labels_N, scores_N))
