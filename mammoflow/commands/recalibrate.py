"""Register an ensemble with a cut-off and calibration fitted on another site's validation images. Never trains.

    mammoflow recalibrate inbreast --start models:/mammoflow@champion --source /data/INbreast --lake s3://bucket/lake

Reads    external/ of the new data; builds missing inputs first
Writes   registered model --ensemble.model-name, alias `candidate`, with the same members
Next     mammoflow promote
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.facts.stages import RegisteredFacts
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, register, print what changes."""
    config = cli.parse(__doc__, hidden=settings.NOT_SCORED)
    artefacts = build.ensure("recalibrated", config)
    console.show_site(str(artefacts.config.start), outcome.transferred(artefacts))
    (made,) = artefacts.of("recalibrated")
    model = made.facts(RegisteredFacts)
    print(f"registered models:/{model.name}/{model.version} (alias candidate) at {model.tracking_uri}")
    console.show_promotion(config)
