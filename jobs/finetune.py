r"""Train whole-image classifiers on for other data, by image labels alone: the paper's transfer to INbreast.

    ray job submit --working-dir . -- python jobs/finetune.py inbreast-72 \
        --source /data/INbreast --start models:/mammoflow@champion --lake s3://bucket/lake

With numbers of patients (`inbreast`, or `--transfer 20 40 72`) it trains on each of them in turn, evaluates, and prints
the paper's Table 4 with intervals, and each ensemble on the other's test images.

Reads    images/ of the new data, and the classifiers that --start names; builds what is missing
Writes   search/ in the lake; MLflow experiment "top-layers": one parent run, one child per classifier; with several
         numbers evaluation/ of each, and transfer/
Next     jobs/select_ensemble.py
"""

from mammoflow import cli, console, recipes
from mammoflow.errors import ConfigError
from mammoflow.facts.results import Transfer
from mammoflow.pipeline import build, outcome, transfer


def main() -> None:
    """Print the plan, train, print the ranking and the next command."""
    config = cli.parse(__doc__, recipes.ALL)
    if config.start is None:
        raise ConfigError(
            f"recipe {config.name!r} begins from nothing; name whole-image classifiers with --start "
            "(models:/mammoflow@champion), or take a recipe such as inbreast-72"
        )
    if config.compute.dry_run:
        build.preview(config)
        return
    if config.transfer:
        console.show_transfer(outcome.read_figures(transfer.run(config), Transfer))
        return
    artefacts = build.ensure("search", config)
    console.show_ranking(artefacts.search)
    console.show_next("select_ensemble", config)


if __name__ == "__main__":
    cli.run(main)
