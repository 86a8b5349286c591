"""Subgroups of a split: who is in which, and what is said where there is little to say."""

import numpy as np
import pyarrow as pa
import pytest
from registering import rows

from mammoflow.ensemble import subgroups
from mammoflow.errors import LakeError
from mammoflow.metrics import roc


def case():
    """Eight films of eight patients: four malignant, scores .1 to .8."""
    labels, scores = [0, 0, 1, 0, 1, 0, 1, 1], [n / 10 for n in range(1, 9)]
    table = rows("ensemble", labels, scores, [f"P_{n}" for n in range(8)])
    views = pa.array(["CC", "MLO"] * 3 + ["CC", None])
    table = table.set_column(table.schema.get_field_index("view"), "view", views)
    kinds = [["mass"], ["mass", "calcification"], ["mass"], [], ["calcification"], [], ["mass"], ["other"]]
    facts = pa.table(
        {
            "image_id": table["image_id"],
            "density": pa.array([1, 1, 1, 1, 2, 2, 2, None], pa.int8()),
            "vendor": ["Hologic"] * 8,
            "kinds": pa.array(kinds, pa.list_(pa.string())),
        }
    )
    return table, facts, np.array(labels), np.array(scores)


def test_every_image_is_where_it_belongs():
    table, facts, labels, scores = case()
    found = {(group.by, group.name): group for group in subgroups.table(table, facts.take([*range(7, -1, -1)]), 0.35)}
    assert list(found) == [
        *(("view", name) for name in ("CC", "MLO", "unknown")),
        *(("density", name) for name in ("1", "2", "unknown")),
        *(("lesion", name) for name in ("calcification", "mass", "none", "other")),
        ("vendor", "Hologic"),
    ]
    assert [group.images for group in found.values()] == [4, 3, 1, 4, 3, 1, 2, 4, 2, 1, 8]
    cc = found["view", "CC"]
    assert (cc.malignant, cc.auc.value) == (3, roc.auc(labels[[0, 2, 4, 6]], scores[[0, 2, 4, 6]]))
    assert (cc.sensitivity.hits, cc.sensitivity.of) == (2, 3)  # .3 is below the cut-off
    assert (cc.specificity.hits, cc.specificity.of) == (1, 1)
    assert cc.auc.by_patient is None  # one patient without cancer
    whole = found["vendor", "Hologic"]
    assert whole.auc.value == roc.auc(labels, scores)
    assert whole.auc.delong == roc.auc_interval(labels, scores)
    assert whole.auc.by_patient.low < whole.auc.value < whole.auc.by_patient.high
    other, none = found["lesion", "other"], found["lesion", "none"]
    assert (other.auc, other.specificity) == (None, None)
    assert (none.auc, none.sensitivity) == (None, None)
    assert (none.specificity.hits, none.specificity.of) == (0, 2)


def test_images_that_are_unknown_are_named():
    table, facts, _, _ = case()
    with pytest.raises(LakeError, match="2 of 8 scored images"):
        subgroups.table(table, facts.slice(0, 6), 0.5)
