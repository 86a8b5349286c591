"""The plan of the whole paper: every row of its tables, sizes and costs; run at the smallest scale by test_jobs."""

from dataclasses import replace

import pytest

from mammoflow.config import ComputeConfig
from mammoflow.errors import ConfigError
from mammoflow.pipeline import estimates, reproduction
from mammoflow.reports import paper_tables


@pytest.fixture(scope="module")
def plan():
    return reproduction.of_paper("/data/CBIS-DDSM", "/data/INbreast", "/lake", ComputeConfig(gpu=True))


def test_every_row_of_the_papers_tables_is_planned(plan):
    planned = {
        (config.patches.set, trunk.backbone, top.replace(" ", ""))
        for config in (plan.main, plan.other_set)
        for trunk in config.trunks
        for top in trunk.top_layers
    }
    assert {(row.patch_set, row.backbone, row.top_layers) for row in paper_tables.ROWS} == planned
    rows = [(config.trunks[0], config.patches.set) for config in plan.patch_classifiers]
    patches = {(trunk.backbone, trunk.weights, patch_set) for trunk, patch_set in rows}
    assert {(row.backbone, row.weights, row.patch_set) for row in paper_tables.PATCH_ROWS} == patches
    assert plan.transfer.transfer == tuple(patients for patients, *_ in paper_tables.TRANSFER)
    assert plan.transfer.source == "/data/INbreast"
    for config in (plan.main, plan.other_set, *plan.patch_classifiers):
        assert (config.source, config.lake, config.compute.gpu) == ("/data/CBIS-DDSM", "/lake", True)
    assert plan.main.search.survivors == "all"


@pytest.mark.slow
def test_what_is_trained_once_counts_once(plan):
    found = {(each.what, each.recipe): each for each in plan.estimates()}
    assert [what for what, _ in found][:2] == ["tables 2 and 3, figures 2-4, baseline", "S1 row of Table 2"]
    rows = {recipe for what, recipe in found if what == "row of Table 1"}
    assert rows == {"cbis-s1-resnet50-random", "cbis-s10-resnet50-random"}  # the others are behind tables 2 and 3
    main = found["tables 2 and 3, figures 2-4, baseline", "cbis-s10-tables"]
    assert 2400 < main.films < 2500
    assert 35_000 < main.patches < 50_000
    sizes = [each.flops for (what, _), each in found.items() if what.startswith("Table 4")]
    assert len(sizes) == 6
    assert sizes == sorted(sizes)
    # A Resnet50 does 4.1 GMAC, 8.2 GFLOP, on 224x224; S10's 50 epochs on it alone, with their backward passes:
    resnet = 3 * 8.2e9 * main.patches * 50
    random = found["row of Table 1", "cbis-s10-resnet50-random"]
    assert random.flops == pytest.approx(resnet, rel=0.05)
    assert main.flops > 2 * random.flops
    assert main.more_flops > main.flops  # up to 200 epochs more for each


def test_without_inbreast_table_4_is_left_out(plan):
    assert reproduction.of_paper("/data", None, None, ComputeConfig()).transfer is None
    assert len(replace(plan, transfer=None).estimates()) == len(plan.estimates()) - 6


@pytest.mark.parametrize("scale", ["demo", "smoke"])
def test_phantoms_stand_for_all_of_it(scale):
    plan = reproduction.of_phantoms("/lake", scale)
    assert plan.transfer.phantoms.layout == "inbreast"
    assert plan.transfer.transfer
    kinds = {top.partition("-")[0].partition(",")[0] for trunk in plan.main.trunks for top in trunk.top_layers}
    assert scale == "smoke" or {"heatmap", "fc"} <= kinds
    assert plan.other_set.patches.set == "S1"
    assert all(len(config.trunks) == 1 for config in plan.patch_classifiers)
    assert plan.main.lake == plan.transfer.lake == "/lake"


def test_a_release_whose_films_nobody_counted_is_not_costed_as_another(plan):
    for dataset in ("csv_folder", "auto"):
        with pytest.raises(
            ConfigError, match=rf"dataset is '{dataset}', but .*cbis_ddsm, inbreast, vindr, cmmd, rsna; decode"
        ):
            estimates.of_config("a row", replace(plan.main, dataset=dataset))
