"""Every row once, whatever the split's size, the batch, the workers and the cache."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.data.batches import Batch, ShardBatches, cut, plan_epoch, slice_order
from mammoflow.errors import ConfigError, LakeError, TrainingError
from mammoflow.lake import schema

SIDE = 16


def write_patches(folder: Path, labels: list[int], unverified: set[int], rows_per_shard: int = 10) -> list[str]:
    """Write patches whose pixels all hold their own number, 4 rows a row group."""
    shards = []
    for first in range(0, len(labels), rows_per_shard):
        numbers = range(first, min(first + rows_per_shard, len(labels)))
        rows = [
            {"patch_id": f"p{n}", "split": "train", "label": labels[n], "unverified": n in unverified} for n in numbers
        ]
        form = schema.patches(SIDE)
        flat = pa.array(np.repeat(np.array(numbers, dtype=np.uint16), SIDE * SIDE))
        pixels = pa.ExtensionArray.from_storage(
            form.field("pixels").type, pa.FixedSizeListArray.from_arrays(flat, SIDE * SIDE)
        )
        plain = pa.Table.from_pylist(rows, schema=form.remove(form.get_field_index("pixels")))
        url = folder / f"train-{first:012x}.parquet"
        pq.write_table(plain.append_column("pixels", pixels), url, row_group_size=4)
        shards.append(str(url))
    return shards


def real_ids(batches: list[Batch]) -> list[str]:
    return [name for b in batches for name, weight in zip(b.ids, b.weights, strict=True) if weight]


@given(rows=st.integers(1, 200), batch=st.integers(1, 40), world=st.integers(1, 7), windows=st.booleans())
def test_a_plan_reads_every_row_once_in_equal_steps(rows: int, batch: int, world: int, windows: bool) -> None:
    order = np.random.default_rng(rows).permutation(rows)
    share = -(-batch // world)
    slices = [cut(order[r::world], share) for r in range(world)] if windows else slice_order(order, batch, world)
    plans = [plan_epoch(slices, share, rank) for rank in range(world)]

    read = np.concatenate([plan.rows[plan.real] for plan in plans])
    assert sorted(read) == list(range(rows))
    assert {plan.rows.shape for plan in plans} == {(len(plans[0].step_rows), share)}
    assert sorted(np.concatenate(plans[0].step_rows)) == list(range(rows))
    for step, together in enumerate(plans[0].step_rows):
        parts = np.concatenate([plan.rows[step][plan.real[step]] for plan in plans])
        assert parts.tolist() == together.tolist()
        assert len(together) <= share * world


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("cache_bytes", [2**30, 5000])  # all kept; about two row groups
def test_every_row_once_with_its_own_pixels(tmp_path: Path, world: int, cache_bytes: int) -> None:
    labels = [n % 3 for n in range(47)]
    shards = write_patches(tmp_path, labels, unverified={3, 20, 21, 22, 23})
    ids: list[str] = []
    for rank in range(world):
        batches = ShardBatches(
            shards, "patch_id", 6, 1, shuffle=True, rank=rank, world_size=world, cache_bytes=cache_bytes
        )
        assert batches.rows == 42
        got = list(batches.epoch(0))
        assert len(got) == batches.steps
        assert {len(b.ids) for b in got} == {6 // world}
        for b in got:
            assert b.pixels[:, 0, 0].tolist() == [int(name[1:]) for name in b.ids]
            assert b.labels.tolist() == [labels[int(name[1:])] for name in b.ids]
        ids += real_ids(got)
        if cache_bytes == 5000:
            assert not batches._pixels, "a streamed split is not kept"
    assert sorted(ids) == sorted(f"p{n}" for n in range(47) if n not in {3, 20, 21, 22, 23})


def test_two_workers_take_halves_of_the_batch_that_one_would_see(tmp_path: Path) -> None:
    shards = write_patches(tmp_path, [0, 1] * 11, unverified=set())
    one = list(ShardBatches(shards, "patch_id", 8, 5, shuffle=True).epoch(3))
    halves = [list(ShardBatches(shards, "patch_id", 8, 5, shuffle=True, rank=r, world_size=2).epoch(3)) for r in (0, 1)]
    for step, whole in enumerate(one):
        assert real_ids([halves[0][step], halves[1][step]]) == real_ids([whole])
        assert halves[1][step].step_labels.tolist() == whole.step_labels.tolist()


def test_order_follows_seed_and_epoch(tmp_path: Path) -> None:
    shards = write_patches(tmp_path, [0] * 30, unverified=set())

    def ids(seed: int, epoch: int, shuffle: bool = True) -> list[str]:
        return real_ids(list(ShardBatches(shards, "patch_id", 8, seed, shuffle=shuffle).epoch(epoch)))

    assert ids(1, 0) == ids(1, 0)
    assert len({tuple(ids(1, 0)), tuple(ids(1, 1)), tuple(ids(2, 0))}) == 3
    assert ids(1, 0, shuffle=False) == ids(2, 1, shuffle=False) == [f"p{n}" for n in range(30)]


def test_counts_and_an_epoch_left_early(tmp_path: Path) -> None:
    batches = ShardBatches(write_patches(tmp_path, [0, 0, 2, 1, 2] * 6, set()), "patch_id", 4, 0, shuffle=True)
    assert batches.class_counts(4).tolist() == [12, 6, 12, 0]
    for _ in batches.epoch(0):
        break
    assert len(real_ids(list(batches.epoch(0)))) == 30
    with pytest.raises(TrainingError, match="labels reach from 0 to 2, but there are 2 classes"):
        batches.class_counts(2)


def test_bad_input_is_named(tmp_path: Path) -> None:
    shards = write_patches(tmp_path, [0] * 5, unverified=set(range(5)))
    with pytest.raises(TrainingError, match="hold no row"):
        ShardBatches(shards, "patch_id", 4, 0, shuffle=True)
    with pytest.raises(TrainingError, match="0 shards"):
        ShardBatches([], "patch_id", 4, 0, shuffle=True)
    with pytest.raises(ConfigError, match="batch is 2, but must be at least 3"):
        ShardBatches(shards, "patch_id", 2, 0, shuffle=True, world_size=3)
    Path(shards[0]).write_bytes(b"PAR1 cut off")
    with pytest.raises(LakeError, match=r"can't read .*train-"):
        ShardBatches(shards, "patch_id", 2, 0, shuffle=True)
