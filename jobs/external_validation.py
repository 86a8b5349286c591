r"""Score another data set with a registered ensemble as it is: external validation, before any training there.

    ray job submit --working-dir . -- python jobs/external_validation.py inbreast-72 \
        --source /data/INbreast --start models:/mammoflow@champion --lake s3://bucket/lake

Reads    images/ of the new data, and the registered ensemble that --start names; builds what is missing
Writes   external/ in the lake: its members' scores on validation and test; prints them at its own cut-off and
         calibration, and at those that this site's validation images give
Next     jobs/recalibrate.py, jobs/finetune.py
"""

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, score, print what it reaches."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = build.ensure("external", config)
    console.show_site(str(artefacts.config.start), outcome.transferred(artefacts))
    console.show_next("recalibrate", config)


if __name__ == "__main__":
    cli.run(main)
