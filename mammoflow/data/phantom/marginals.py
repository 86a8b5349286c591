"""Frequencies of findings in CBIS-DDSM, counted in its training CSVs, and in INbreast. Constants; imports NumPy.

Tables of descriptors run from harmless to suspicious, so that one number per lesion, its place within its pathology,
decides both its descriptors and its drawn look (cases.py). Rare compound descriptors are left out.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

MASS, CALCIFICATION = "mass", "calcification"
MALIGNANT, BENIGN, NO_CALLBACK = "MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"

Table = Mapping[str, float]
Key = TypeVar("Key")

VIEWS: Mapping[tuple[tuple[str, str], ...], float] = {
    (("LEFT", "CC"), ("LEFT", "MLO")): 452,
    (("RIGHT", "CC"), ("RIGHT", "MLO")): 419,
    (("RIGHT", "MLO"),): 107,
    (("LEFT", "MLO"),): 83,
    (("LEFT", "CC"),): 46,
    (("RIGHT", "CC"),): 31,
    (("LEFT", "CC"), ("LEFT", "MLO"), ("RIGHT", "MLO")): 8,
    (("LEFT", "MLO"), ("RIGHT", "CC"), ("RIGHT", "MLO")): 8,
    (("LEFT", "CC"), ("LEFT", "MLO"), ("RIGHT", "CC")): 5,
    (("LEFT", "MLO"), ("RIGHT", "MLO")): 3,
    (("LEFT", "CC"), ("RIGHT", "CC"), ("RIGHT", "MLO")): 2,
    (("LEFT", "CC"), ("LEFT", "MLO"), ("RIGHT", "CC"), ("RIGHT", "MLO")): 84,
}
"""Patients by the films that the release holds."""

KINDS: Table = {MASS: 668.5, CALCIFICATION: 579.5}
"""Patients by kind of lesion; the 45 with both count half for each."""

BOTH_BREASTS = 90 / 115
"""Share of INbreast's patients with films of both breasts [0-1]. Source: Moreira et al. 2012."""

NORMAL = 0.37
"""Share of added breasts (screening.py) without any lesion [0-1]; it leaves about 67 of 410 films without lesions, as
in INbreast."""

BIRADS: Mapping[str, Table] = {
    BENIGN: {"2": 220, "3": 23},
    MALIGNANT: {"4a": 13, "4b": 8, "4c": 22, "5": 49, "6": 8},
}
"""INbreast's films with lesions, by BI-RADS; the other 67 have 1."""

PATHOLOGIES: Mapping[str, Table] = {
    MASS: {BENIGN: 315, NO_CALLBACK: 57, MALIGNANT: 350},
    CALCIFICATION: {BENIGN: 265, NO_CALLBACK: 120, MALIGNANT: 277},
}
"""Breasts by pathology."""

OTHER_PATHOLOGY = {MASS: 0.10, CALCIFICATION: 0.05}
"""Share of second and later lesions whose pathology differs from their breast's [0-1]."""

LESIONS: Mapping[tuple[str, str], Mapping[int, float]] = {
    (MASS, BENIGN): {1: 304, 2: 10, 3: 1, 4: 1, 6: 1},
    (MASS, NO_CALLBACK): {1: 51, 2: 1, 3: 2, 4: 2, 5: 1},
    (MASS, MALIGNANT): {1: 328, 2: 15, 3: 5},
    (CALCIFICATION, BENIGN): {1: 243, 2: 17, 3: 5},
    (CALCIFICATION, NO_CALLBACK): {1: 55, 2: 31, 3: 18, 4: 7, 5: 3, 6: 5, 7: 2},
    (CALCIFICATION, MALIGNANT): {1: 253, 2: 16, 3: 7},
}
"""Breasts by number of lesions of one kind; calcifications without callback often come in groups."""

BOTH_VIEWS = 0.70
"""Share of second and later lesions visible in both views of a breast [0-1]; the first always is."""

DIFFERENT_SERIES = 7 / 38
"""Share of the films with two series whose series have different labels [0-1]."""

BOTH_PARTS = 31 / 349
"""Share of the official test part's patients who are also in the training part [0-1]."""

DENSITIES: Mapping[str, Mapping[int, float]] = {
    MASS: {1: 0.218, 2: 0.444, 3: 0.256, 4: 0.082},
    CALCIFICATION: {1: 0.113, 2: 0.324, 3: 0.349, 4: 0.214},
}
"""BI-RADS density 1-4 by kind of lesion."""

SHAPES: Mapping[tuple[str, str], Table] = {
    (MASS, BENIGN): {
        "ROUND": 0.13,
        "OVAL": 0.38,
        "LOBULATED": 0.33,
        "FOCAL_ASYMMETRIC_DENSITY": 0.01,
        "ARCHITECTURAL_DISTORTION": 0.03,
        "IRREGULAR": 0.10,
    },
    (MASS, NO_CALLBACK): {
        "LYMPH_NODE": 0.25,
        "ROUND": 0.09,
        "OVAL": 0.10,
        "LOBULATED": 0.11,
        "FOCAL_ASYMMETRIC_DENSITY": 0.07,
        "ASYMMETRIC_BREAST_TISSUE": 0.12,
        "ARCHITECTURAL_DISTORTION": 0.11,
        "IRREGULAR": 0.09,
    },
    (MASS, MALIGNANT): {
        "ROUND": 0.06,
        "OVAL": 0.14,
        "LOBULATED": 0.16,
        "FOCAL_ASYMMETRIC_DENSITY": 0.01,
        "ASYMMETRIC_BREAST_TISSUE": 0.01,
        "ARCHITECTURAL_DISTORTION": 0.08,
        "IRREGULAR": 0.45,
        "IRREGULAR-ARCHITECTURAL_DISTORTION": 0.07,
    },
    (CALCIFICATION, BENIGN): {
        "ROUND_AND_REGULAR": 0.02,
        "DYSTROPHIC": 0.02,
        "PUNCTATE": 0.13,
        "PUNCTATE-AMORPHOUS": 0.02,
        "AMORPHOUS": 0.16,
        "PUNCTATE-PLEOMORPHIC": 0.02,
        "PLEOMORPHIC": 0.57,
        "FINE_LINEAR_BRANCHING": 0.03,
    },
    (CALCIFICATION, NO_CALLBACK): {
        "LUCENT_CENTER": 0.20,
        "ROUND_AND_REGULAR-LUCENT_CENTER": 0.08,
        "ROUND_AND_REGULAR-EGGSHELL": 0.06,
        "ROUND_AND_REGULAR-LUCENT_CENTER-PUNCTATE": 0.06,
        "VASCULAR": 0.17,
        "COARSE": 0.08,
        "PUNCTATE": 0.06,
        "": 0.04,
    },
    (CALCIFICATION, MALIGNANT): {
        "PUNCTATE": 0.04,
        "AMORPHOUS": 0.10,
        "AMORPHOUS-PLEOMORPHIC": 0.02,
        "PUNCTATE-PLEOMORPHIC": 0.02,
        "PLEOMORPHIC": 0.66,
        "PLEOMORPHIC-FINE_LINEAR_BRANCHING": 0.05,
        "FINE_LINEAR_BRANCHING": 0.11,
    },
}
"""`mass shape` or `calc type`."""

EDGES: Mapping[tuple[str, str], Table] = {
    (MASS, BENIGN): {
        "CIRCUMSCRIBED": 0.43,
        "OBSCURED": 0.30,
        "MICROLOBULATED": 0.06,
        "ILL_DEFINED": 0.18,
        "SPICULATED": 0.03,
    },
    (MASS, NO_CALLBACK): {
        "CIRCUMSCRIBED": 0.45,
        "": 0.26,
        "OBSCURED": 0.04,
        "MICROLOBULATED": 0.06,
        "ILL_DEFINED": 0.10,
        "SPICULATED": 0.09,
    },
    (MASS, MALIGNANT): {
        "CIRCUMSCRIBED": 0.06,
        "OBSCURED": 0.05,
        "MICROLOBULATED": 0.12,
        "ILL_DEFINED": 0.31,
        "ILL_DEFINED-SPICULATED": 0.04,
        "SPICULATED": 0.42,
    },
    (CALCIFICATION, BENIGN): {
        "DIFFUSELY_SCATTERED": 0.02,
        "REGIONAL": 0.03,
        "CLUSTERED": 0.77,
        "CLUSTERED-LINEAR": 0.01,
        "LINEAR": 0.04,
        "SEGMENTAL": 0.13,
    },
    (CALCIFICATION, NO_CALLBACK): {
        "": 0.78,
        "DIFFUSELY_SCATTERED": 0.06,
        "REGIONAL": 0.10,
        "CLUSTERED": 0.04,
        "LINEAR": 0.01,
        "SEGMENTAL": 0.01,
    },
    (CALCIFICATION, MALIGNANT): {
        "DIFFUSELY_SCATTERED": 0.01,
        "REGIONAL": 0.08,
        "CLUSTERED": 0.59,
        "CLUSTERED-LINEAR": 0.03,
        "LINEAR": 0.11,
        "SEGMENTAL": 0.18,
    },
}
"""`mass margins` or `calc distribution`."""

ASSESSMENTS: Mapping[tuple[str, str], Mapping[int, float]] = {
    (MASS, BENIGN): {0: 0.19, 2: 0.05, 3: 0.33, 4: 0.42, 5: 0.01},
    (MASS, NO_CALLBACK): {2: 0.47, 3: 0.43, 4: 0.08, 5: 0.02},
    (MASS, MALIGNANT): {0: 0.03, 3: 0.07, 4: 0.44, 5: 0.46},
    (CALCIFICATION, BENIGN): {0: 0.06, 2: 0.03, 3: 0.09, 4: 0.82},
    (CALCIFICATION, NO_CALLBACK): {2: 0.98, 3: 0.01, 4: 0.01},
    (CALCIFICATION, MALIGNANT): {0: 0.06, 3: 0.07, 4: 0.59, 5: 0.28},
}
"""BI-RADS assessment 0-5."""

SUBTLETIES: Mapping[str, Mapping[int, float]] = {
    MASS: {1: 0.03, 2: 0.08, 3: 0.20, 4: 0.28, 5: 0.41},
    CALCIFICATION: {1: 0.06, 2: 0.16, 3: 0.32, 4: 0.23, 5: 0.23},
}
"""Subtlety 1 (hard to see) to 5 (obvious)."""

SEPARATE_FOLDERS = {MASS: 92 / 1318, CALCIFICATION: 1 / 1546}
"""Share of rows whose crop and mask lie in series of their own, both named 000000.dcm [0-1]."""

SWAPPED_CONTENTS = 0.10
"""Share of rows whose crop and mask files have swapped names [0-1]; a guess, since copies of the release differ."""


def pick(table: Mapping[Key, float], place: float) -> Key:
    """Return the key at `place` [0-1) on a line on which the table's weights lie end to end."""
    keys = list(table)
    ends = np.cumsum(list(table.values()))
    return keys[min(int(np.searchsorted(ends, place * ends[-1], side="right")), len(keys) - 1)]
