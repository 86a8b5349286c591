"""The one door to a split's pixels and scores: the test split opens to a frozen ensemble alone. No Ray, no torch."""

import pyarrow as pa

from mammoflow import lake
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.errors import LakeError, SplitError
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS


def open_split(artefact: Artefact, split: str, frozen: Ensemble | None) -> list[str]:
    """Return the URLs of a split's shards.

    Args:
        artefact: of images or patches.
        split: train | val | test.
        frozen: the choice; without it the test split stays closed.

    Raises:
        SplitError: the test split without a frozen ensemble, or an unknown split.
        LakeError: the split has no shards.
    """
    _check(split, frozen)
    shards = list(lake.iter_shards(artefact, split))
    if not shards:
        raise LakeError(f"{artefact.url} holds no shard of split {split!r}; was its stage run to the end?")
    return shards


def open_scores(artefact: Artefact, split: str, frozen: Ensemble | None) -> pa.Table:
    """Return schema.SCORES that a stage wrote of a split; see `open_split`."""
    _check(split, frozen)
    return lake.read_table(artefact.file(f"{split}.parquet"))


def _check(split: str, frozen: Ensemble | None) -> None:
    if split not in SPLITS:
        raise SplitError(f"split {split!r} is unknown; the known ones are {SPLITS}")
    if split == "test" and not isinstance(frozen, Ensemble):
        raise SplitError(
            "the test split stays closed until members and cut-off are frozen; choose the ensemble on validation "
            "(ensemble.selection.choose) and pass it"
        )
