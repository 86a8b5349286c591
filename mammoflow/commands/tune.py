"""Search the top layers that turn a patch classifier into whole-image classifiers.

    mammoflow tune cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake
    ray job submit --working-dir . -- python jobs/tune_top_layers.py cbis-s10-resnet50 --source s3://bucket/CBIS-DDSM

--dry-run prints the candidates with estimates of memory and time; --max-hours and --max-trials limit the search;
--search.drawn 32 samples candidates in addition to those in `trunks.N.top_layers`.

Reads    images/ and the patch classifiers of the recipe; builds missing inputs first
Writes   search/ in the lake; MLflow experiment "top-layers": one parent run, one child per candidate
Next     mammoflow select
"""

from mammoflow import cli, console
from mammoflow.facts.stages import SearchFacts
from mammoflow.pipeline import build


def main() -> None:
    """Print the plan, run the search, print the ranking and the next command; or the plan with its cost alone."""
    config = cli.parse(__doc__, hidden=("transfer", "ensemble", "two_step"))
    if config.compute.dry_run:
        build.preview(config)
        return
    artefacts = build.ensure("search", config)
    console.show_ranking(artefacts.search)
    print(f"MLflow parent run: {artefacts.search.facts(SearchFacts).run_id}")
    console.show_next("select", config)
