"""Hard-example mining: a whole second round of training."""

from dataclasses import replace

import pyarrow as pa
from made_lake import make

from mammoflow import lake, recipes
from mammoflow.lake import Lake
from mammoflow.training import mining, trunks


def test_a_second_round_trains_on_as_many_patches_and_is_not_mined_twice(tmp_path, ray_cluster) -> None:
    made = make(tmp_path)
    store = Lake(str(tmp_path / "lake"))
    trunk = replace(made.config.trunks[0], hard_examples=0.5, training=recipes.smoke().trunks[0].training)
    config = replace(made.config, patches=replace(made.config.patches, per_lesion=4), trunks=(trunk,))
    out = store.artefact("mined", "made", 0.5)
    figures = mining.mine(config, trunk, made.images, made.trunk, out)
    assert figures.patches == 12 * 8, "12 training films, one lesion of 4 patches each, and background"
    assert 0 < figures.mined <= 48
    tables = [lake.read_table(url) for url in lake.iter_shards(out)]
    rows = pa.concat_tables(tables).drop_columns(["pixels"]).to_pylist()
    assert {row["split"] for row in rows} == {"train"}
    assert len({row["patch_id"] for row in rows}) == len(rows) == 96
    before = {url: lake.read_bytes(url) for url in lake.iter_shards(out)}
    assert mining.mine(config, trunk, made.images, made.trunk, out) == figures
    assert {url: lake.read_bytes(url) for url in lake.iter_shards(out)} == before
    again = store.artefact("retrained", "made", 0.5)
    (trained,) = trunks.train(
        config, store, made.images, made.patches, {trunk.backbone: again}, mined={trunk.backbone: out}
    ).values()
    assert trained.epochs == 1
