"""Train whole-image classifiers through both stages, every candidate of the recipe, without dropping any.

    python jobs/train_image.py cbis-s10-resnet50 --source /data/CBIS-DDSM --trunks.0.top-layers 256x1,128x1

Reads    images/ and the patch classifiers of the recipe; builds what is missing
Writes   search/ in the lake; MLflow experiment "top-layers"
Next     jobs/select_ensemble.py with the same flags, and those that make it drop and draw nothing
"""

from dataclasses import replace

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build


def main() -> None:
    """Print the plan, train, print the ranking."""
    config = cli.parse(__doc__, recipes.ALL)
    config = replace(config, search=replace(config.search, survivors="all", rungs=(), drawn=0))
    if config.compute.dry_run:
        build.preview(config)
        return
    artefacts = build.ensure("search", config)
    console.show_ranking(artefacts.search)
    console.show_next("select_ensemble", config, "--search.survivors", "all", "--search.rungs", "--search.drawn", "0")


if __name__ == "__main__":
    cli.run(main)
