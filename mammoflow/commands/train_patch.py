"""Train the patch classifier of each trunk; its convolutional part becomes the trunk.

    mammoflow train-patch cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    patches/; builds missing inputs first
Writes   trunks/ in the lake: weights of the epoch with the best validation accuracy; with hard-example mining also
         mined/ and retrained/; MLflow experiment "patch-classifiers"
Next     mammoflow tune
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.errors import ConfigError
from mammoflow.facts.stages import TrunkFacts
from mammoflow.pipeline import build


def main() -> None:
    """Print the plan, train, print each trunk's validation accuracy."""
    config = cli.parse(
        __doc__,
        hidden=(
            "start",
            "transfer",
            "image_training",
            "search",
            "ensemble",
            "two_step",
            "compute.pack",
            *settings.PLAN,
        ),
    )
    if config.start:
        raise ConfigError(
            f"start is {config.start!r}, but patch classifiers are trained without it; leave --start out, or run "
            "`mammoflow finetune` to fine-tune its whole-image classifiers"
        )
    artefacts = build.ensure("retrained", config)
    console.show_trunks({name: item.facts(TrunkFacts) for name, item in artefacts.classifiers.items()})
    console.show_next("tune", config)
