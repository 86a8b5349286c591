"""Train whole-image classifiers through both stages: every candidate of the recipe, without dropping any.

    mammoflow train-image cbis-s10-resnet50 --source /data/CBIS-DDSM --trunks.0.top-layers 256x1,128x1

Reads    images/ and the patch classifiers of the recipe; builds missing inputs first
Writes   search/ in the lake; MLflow experiment "top-layers"
Next     mammoflow select, with the flags that the last line prints
"""

from dataclasses import replace

from mammoflow import cli, console
from mammoflow.pipeline import build

_DROPPING = tuple(
    f"search.{name}"
    for name in ("survivors", "rungs", "keep", "halving", "drawn", "sampler", "at_a_time", "space", "max_trials")
)
"""Settings of a search that drops or samples candidates."""


def main() -> None:
    """Print the plan, train, print the ranking."""
    config = cli.parse(__doc__, hidden=("transfer", "ensemble", "two_step", *_DROPPING))
    config = replace(config, search=replace(config.search, survivors="all", rungs=(), drawn=0))
    if config.compute.dry_run:
        build.preview(config)
        return
    artefacts = build.ensure("search", config)
    console.show_ranking(artefacts.search)
    console.show_next("select", config, "--search.survivors", "all", "--search.rungs", "--search.drawn", "0")
