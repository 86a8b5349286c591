r"""Register an ensemble anew with a cut-off and a calibration of another site's validation images. Never trains.

    ray job submit --working-dir . -- python jobs/recalibrate.py inbreast-72 \
        --source /data/INbreast --start models:/mammoflow@champion --lake s3://bucket/lake

Reads    external/ of the new data; builds what is missing
Writes   registered model --ensemble.model-name, alias `candidate`: the same members
Next     jobs/promote.py
"""

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, register, print what changes."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = build.ensure("recalibrated", config)
    console.show_site(str(artefacts.config.start), outcome.transferred(artefacts))
    made = artefacts.one("recalibrated")
    model = made.summary()
    print(f"registered models:/{model['name']}/{model['version']} (alias candidate) at {model['tracking_uri']}")
    console.show_promotion(config)


if __name__ == "__main__":
    cli.run(main)
