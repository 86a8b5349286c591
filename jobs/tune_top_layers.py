r"""Search the top layers that turn one patch classifier into whole-image classifiers.

    ray job submit --working-dir . -- python jobs/tune_top_layers.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    images/ and the patch classifiers of the recipe; builds what is missing
Writes   search/ in the lake; MLflow experiment "top-layers": one parent run, one child per candidate
Next     jobs/select_ensemble.py
"""

from mammoflow import cli, pipeline, recipes, tables


def main() -> None:
    """Print the plan, run the search, print the ranking and the next command."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = pipeline.ensure("search", config)
    summary = artefacts.search.summary()
    tables.show_ranking(summary)
    print(f"MLflow parent run: {summary['run_id']}")
    tables.show_next("select_ensemble", config)


if __name__ == "__main__":
    cli.run(main)
