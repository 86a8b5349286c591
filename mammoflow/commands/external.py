"""Validate a registered ensemble on another data set, without training.

    mammoflow external inbreast --start models:/mammoflow@champion --source /data/INbreast --lake s3://bucket/lake

Reads    images/ of the new data, and the registered ensemble that --start names; builds missing inputs first
Writes   external/ in the lake: scores of the members on validation and test. Prints results at the ensemble's own
         cut-off and calibration, and at those fitted on this site's validation images
Next     mammoflow recalibrate, mammoflow finetune
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, score, print what it reaches."""
    config = cli.parse(__doc__, hidden=settings.NOT_SCORED)
    artefacts = build.ensure("external", config)
    console.show_site(str(artefacts.config.start), outcome.transferred(artefacts))
    console.show_next("recalibrate", config)
