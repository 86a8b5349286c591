"""Fine-tune whole-image classifiers on other data with image labels only: the paper's transfer to INbreast.

    mammoflow finetune inbreast --only 72 --start models:/mammoflow@champion --source /data/INbreast

With several numbers of patients (`inbreast`, or `--transfer 20 40 72`) it trains and evaluates on each in turn, prints
the paper's Table 4 with intervals, and tests each ensemble on both data sets.

Reads    images/ of the new data, and the classifiers that --start names; builds missing inputs first
Writes   search/ in the lake; MLflow experiment "top-layers": one parent run, one child per classifier; with several
         numbers also evaluation/ of each, and transfer/
Next     mammoflow select
"""

from mammoflow import cli, console
from mammoflow.errors import ConfigError
from mammoflow.facts.published import Transfer
from mammoflow.pipeline import build, outcome, transfer


def main() -> None:
    """Print the plan, train, print the ranking and the next command."""
    config = cli.parse(__doc__, hidden=("trunks", "two_step"))
    if config.start is None:
        raise ConfigError(
            "start is None, but fine-tuning needs whole-image classifiers; name whole-image classifiers with --start, "
            "such as models:/mammoflow@champion, or use the recipe inbreast"
        )
    if config.compute.dry_run:
        build.preview(config)
        return
    if config.transfer:
        console.show_transfer(outcome.read_figures(transfer.run(config), Transfer))
        return
    artefacts = build.ensure("search", config)
    console.show_ranking(artefacts.search)
    console.show_next("select", config)
