r"""Search the top layers that turn one patch classifier into whole-image classifiers.

    ray job submit --working-dir . -- python jobs/tune_top_layers.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

With --dry-run it only says what it would train, and about how much memory and time that takes; --max-hours and
--max-trials bound it; `--search.drawn 32` draws candidates of its own beside those of `trunks.N.top_layers`.

Reads    images/ and the patch classifiers of the recipe; builds what is missing
Writes   search/ in the lake; MLflow experiment "top-layers": one parent run, one child per candidate
Next     jobs/select_ensemble.py
"""

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build


def main() -> None:
    """Print the plan, run the search, print the ranking and the next command; or the plan with its cost alone."""
    config = cli.parse(__doc__, recipes.ALL)
    if config.compute.dry_run:
        build.preview(config)
        return
    artefacts = build.ensure("search", config)
    summary = artefacts.search.summary()
    console.show_ranking(artefacts.search)
    print(f"MLflow parent run: {summary['run_id']}")
    console.show_next("select_ensemble", config)


if __name__ == "__main__":
    cli.run(main)
