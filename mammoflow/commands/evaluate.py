"""Score the test split with the frozen ensemble: AUCs per image with 95% intervals.

    mammoflow evaluate cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    ensemble/ and the test images; builds missing inputs first
Writes   evaluation/ in the lake: a row per image and model, and the test accuracy of the patch classifiers
Next     mammoflow promote, mammoflow report
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, score the test split, print the tables; without a registered ensemble that comes next."""
    config = cli.parse(__doc__, hidden=("transfer", "two_step", *settings.PLAN))
    artefacts = build.ensure("evaluation", config)
    console.show_scores(outcome.summarise(artefacts))
    if artefacts.registered.done:
        outcome.tag_test_figures(artefacts)
        console.show_promotion(config)
        console.show_next("report", config)
    else:
        console.show_next("select", config)
