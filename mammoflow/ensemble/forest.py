"""A random forest as data: fitted by scikit-learn, kept as arrays, never a pickle. No torch, no Ray, no files.

Shape letters: N images, F figures, T trees, Q nodes of all trees together.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from sklearn.ensemble import RandomForestClassifier

from mammoflow.config import TwoStepConfig
from mammoflow.errors import ConfigError, LakeError, SplitError
from mammoflow.lake.schema import BENIGN, MALIGNANT

FloatArray = npt.NDArray[np.float64]
PAPER_IMAGES = 1903
"""Training images of the paper's split, of which `min_split` is a share."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forest:
    """Decision trees whose mean is the probability of malignant; a node goes left where its figure <= its threshold."""

    roots: npt.NDArray[np.int64]
    """(T,), first node of each tree."""
    left: npt.NDArray[np.int64]
    """(Q,), node that follows on the left; itself at a leaf."""
    right: npt.NDArray[np.int64]
    """(Q,), on the right; itself at a leaf."""
    figure: npt.NDArray[np.int64]
    """(Q,), which figure is asked; 0 at a leaf."""
    threshold: FloatArray
    """(Q,)."""
    malignant: FloatArray
    """(Q,), share of malignant training images at the node, weighted as they were [0-1]."""
    depth: npt.NDArray[np.int64]
    """(1,), of the deepest tree."""

    def predict(self, features_NF: FloatArray) -> FloatArray:
        """Return the probability of malignant of each image (N,) [0-1]; figures are rounded to float32, as to fit."""
        values_NF = features_NF.astype(np.float32)
        every_N1 = np.arange(len(values_NF))[:, None]
        node_NT = np.broadcast_to(self.roots, (len(values_NF), len(self.roots)))
        for _ in range(int(self.depth[0])):
            goes_left_NT = values_NF[every_N1, self.figure[node_NT]] <= self.threshold[node_NT]
            node_NT = np.where(goes_left_NT, self.left[node_NT], self.right[node_NT])
        return np.asarray(self.malignant[node_NT].mean(axis=1), np.float64)


def fit(features_NF: FloatArray, labels_N: npt.NDArray[np.int64], config: TwoStepConfig, seed: int) -> Forest:
    """Fit a forest to training images.

    Both classes weigh alike, as in all training here; the paper says nothing of it.

    Args:
        features_NF: of each image, (N, F).
        labels_N: 0 or 1, (N,).
        config: trees, depth, least images to split a node.
        seed: of what each tree sees.

    Raises:
        SplitError: one class only.
        ConfigError: fewer images than a node must have to be split: every tree would be a single leaf.

    Source: paper, methods (two-step approach): 500 trees, depth 9, at least 300 images to split.
    """
    if len(np.unique(labels_N)) < 2:
        raise SplitError(f"all {len(labels_N)} training images are of one class; use more images or another seed")
    if len(labels_N) < config.min_split:
        share = max(2, round(config.min_split * len(labels_N) / PAPER_IMAGES))
        raise ConfigError(
            f"two_step.min_split is {config.min_split}, but there are {len(labels_N)} training images, so that no tree "
            f"could split; give --two-step.min-split {share}, the paper's share of its {PAPER_IMAGES}"
        )
    forest = RandomForestClassifier(
        config.trees,
        max_depth=config.depth,
        min_samples_split=config.min_split,
        class_weight="balanced",
        random_state=seed,
    ).fit(features_NF, labels_N)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    benign, malignant = (list(forest.classes_).index(label) for label in (BENIGN, MALIGNANT))
    shares_Q2 = np.concatenate([tree.value[:, 0, :] for tree in trees])
    return Forest(
        roots=roots,
        left=np.concatenate([_next(tree.children_left, root) for tree, root in zip(trees, roots, strict=True)]),
        right=np.concatenate([_next(tree.children_right, root) for tree, root in zip(trees, roots, strict=True)]),
        figure=np.concatenate([np.maximum(tree.feature, 0) for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        malignant=shares_Q2[:, malignant] / (shares_Q2[:, benign] + shares_Q2[:, malignant]),
        depth=np.array([max(tree.max_depth for tree in trees)], np.int64),
    )


def to_bytes(forest: Forest) -> bytes:
    """Return the forest as a safetensors file."""
    arrays = {field.name: np.ascontiguousarray(getattr(forest, field.name)) for field in fields(forest)}
    return bytes(safetensors.numpy.save(arrays))


def from_bytes(data: bytes) -> Forest:
    """Return the forest that `to_bytes` wrote.

    Raises:
        LakeError: damaged, or of another version of mammoflow.
    """
    try:
        return Forest(**safetensors.numpy.load(data))
    except (safetensors.SafetensorError, TypeError) as error:
        raise LakeError(f"this is no forest of this version of mammoflow: {error}; fit it anew") from error


def _next(children: npt.NDArray[np.int64], root: int) -> npt.NDArray[np.int64]:
    """Return the nodes that follow, counted over all trees; a leaf (-1) is followed by itself."""
    own = np.arange(len(children))
    return np.asarray(np.where(children < 0, own, children) + root, np.int64)
