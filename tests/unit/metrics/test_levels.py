"""From images to breasts and patients, views missing here and there."""

import pyarrow as pa
import pytest

from mammoflow.metrics import levels

ROWS = pa.table(
    {
        "image_id": ["1", "2", "3", "4", "5", "6"],
        "patient_id": ["b", "a", "a", "a", "b", "b"],
        "laterality": ["L", "L", "L", "R", None, "L"],
        "label": pa.array([0, 1, 0, 0, 1, 0], pa.int8()),
        "score_tta": [0.5, 0.75, 0.25, 0.125, 1.0, 0.25],
    }
)


@pytest.mark.parametrize(
    ("level", "rule", "expected"),
    [
        (
            "breast",
            "mean",
            [("a", "L", 1, 0.5, 2), ("a", "R", 0, 0.125, 1), ("b", "L", 0, 0.375, 2), ("b", None, 1, 1, 1)],
        ),
        (
            "breast",
            "max",
            [("a", "L", 1, 0.75, 2), ("a", "R", 0, 0.125, 1), ("b", "L", 0, 0.5, 2), ("b", None, 1, 1, 1)],
        ),
        ("patient", "mean", [("a", 1, 0.375, 3), ("b", 1, 1.75 / 3, 3)]),
        ("patient", "max", [("a", 1, 0.75, 3), ("b", 1, 1, 3)]),
    ],
)
def test_views_are_joined(level, rule, expected):
    found = levels.group(ROWS, level, rule)
    names = ["patient_id", *(["laterality"] if level == "breast" else []), "label", "score_tta", "images"]
    assert [tuple(row[name] for name in names) for row in found.to_pylist()] == [
        pytest.approx(row) if None not in row else row for row in expected
    ]


def test_images_stay_as_they_are():
    found = levels.group(ROWS, "image")
    assert found["score_tta"].equals(ROWS["score_tta"])
    assert levels.patients(found) == ["b", "a", "a", "a", "b", "b"]
