"""The Arrow schema of every table in the lake, and the label codes. Imports only pyarrow and NumPy.

Pixels are canonical fixed-shape tensors, which plain pyarrow reads without Ray. Positions are (row, column) [px]
in the reduced image. `label` of an image is 1 for malignant and 0 for benign or negative; `label` of a patch is
its class code, the index into the configured class list.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

VERSION = 3
"""Version of the lake's layout: raised whenever an earlier version would not read, or would misread, what this writes.

1: before versions were recorded. 2: `done.json` records the version, the inputs and the time. 3: its facts stand apart
from these, beside the settings; models record their precision, and ensembles are written with their version.
"""

TABLES = 2
"""Version of the tables, part of the names of shards: raised whenever the same settings make another shard."""

_MODELS = ("trunks", "retrained", "search", "two_step", "ensemble", "registered", "recalibrated")
_FIGURES = ("transfer", "reproduction")


def oldest(stage: str) -> int:
    """Return the oldest version of a stage's artefacts that this mammoflow reads."""
    return 3 if stage in (*_MODELS, *_FIGURES) else 2


BENIGN, MALIGNANT = 0, 1
SPLITS = ("train", "val", "test")

_LESION_SOURCE = pa.struct(
    [
        ("lesion_id", pa.string()),  # unique in the release, e.g. Mass-Training_P_00001_LEFT_CC_1
        ("kind", pa.string()),  # mass | calcification | other: no patch is cut around or on it
        ("pathology", pa.string()),  # malignant | benign
        ("mask_paths", pa.list_(pa.string())),  # files that may be the mask; pixels decide which
        ("outline", pa.list_(pa.list_(pa.float64()))),  # vertices (row, column) in the file [px]; empty: see masks
        ("from_bottom", pa.bool_()),  # rows of the vertices are counted from the lower edge
    ]
)

EXAMS = pa.schema(
    [
        ("image_id", pa.string()),  # one image series of the release, e.g. Mass-Training_P_00001_LEFT_CC
        ("film_id", pa.string()),  # one film: patient, side, view; two series of one film share it
        ("patient_id", pa.string()),
        ("laterality", pa.string()),  # L | R
        ("view", pa.string()),  # CC | MLO
        ("density", pa.int8()),  # BI-RADS density 1-4; null where unknown
        ("label", pa.int8()),  # 1 malignant, 0 benign: of the film, over all its lesions
        ("part", pa.string()),  # the release's own split: train | test; null where it has none
        ("split", pa.string()),  # train | val | test; null before splits.assign
        ("path", pa.string()),  # file of the image, absolute or URL
        ("lesions", pa.list_(_LESION_SOURCE)),  # union over the film's series
    ]
)

_LESION_MASK = pa.struct(
    [
        ("lesion_id", pa.string()),
        ("kind", pa.string()),
        ("pathology", pa.string()),
        ("mask_png", pa.binary()),  # 1-bit PNG of (H, W); null where the mask is missing or was refused
    ]
)

_IMAGE_FIELDS = [
    ("image_id", pa.string()),
    ("film_id", pa.string()),
    ("patient_id", pa.string()),
    ("split", pa.string()),
    ("label", pa.int8()),
    ("laterality", pa.string()),
    ("view", pa.string()),
    ("density", pa.int8()),
    ("vendor", pa.string()),  # of the machine, see data.dicom.vendors; null where the file doesn't say
    ("source_height", pa.int32()),  # rows of the file [px]
    ("source_width", pa.int32()),
    ("lesions", pa.list_(_LESION_MASK)),
]


def images(height: int, width: int) -> pa.Schema:
    """Decoded images: `pixels` uint16 (height, width), 0-65535 over the range of bits stored, air dark."""
    pixels = pa.fixed_shape_tensor(pa.uint16(), (height, width))
    return pa.schema([*_IMAGE_FIELDS, ("pixels", pixels)])


def patches(side: int) -> pa.Schema:
    """Labelled patches: `pixels` uint16 (side, side), cut unchanged from the image."""
    pixels = pa.fixed_shape_tensor(pa.uint16(), (side, side))
    return pa.schema(
        [
            ("patch_id", pa.string()),  # <image_id>/<lesion_id or background>/<n>
            ("image_id", pa.string()),
            ("film_id", pa.string()),
            ("patient_id", pa.string()),
            ("split", pa.string()),
            ("label", pa.int8()),  # class code
            ("lesion_id", pa.string()),  # null for background
            ("row", pa.int32()),  # top-left corner in the reduced image [px]
            ("column", pa.int32()),
            ("overlap", pa.float32()),  # overlap reached with its lesion; tissue share for background [0-1]
            ("below_min", pa.bool_()),  # no position reached the least overlap or tissue; this is the best one
            (
                "unverified",
                pa.bool_(),
            ),  # background of an image with a lesion whose outline is unknown; not used for training
            ("pixels", pixels),
        ]
    )


QUARANTINE = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("stage", pa.string()),  # decode | mask | patches | score
        ("reason", pa.string()),
        ("fatal", pa.bool_()),  # the image is left out; false: used, but an outline is missing or was resized
    ]
)

SCORES = pa.schema(
    [
        ("model", pa.string()),  # candidate name, or "ensemble"
        ("split", pa.string()),
        ("image_id", pa.string()),
        ("film_id", pa.string()),
        ("patient_id", pa.string()),
        ("laterality", pa.string()),
        ("view", pa.string()),
        ("label", pa.int8()),
        ("score", pa.float64()),  # probability of malignant, unflipped image
        ("score_tta", pa.float64()),  # mean over identity, H, V and HV flips (the paper's augmented prediction)
    ]
)


def pixels_of(rows: pa.Table) -> npt.NDArray[np.uint16]:
    """Return the pixels of rows of images or patches, uint16 (N, H, W); a read-only view where Arrow allows."""
    pixels_NHW: npt.NDArray[np.uint16] = rows["pixels"].combine_chunks().to_numpy_ndarray()
    return pixels_NHW
