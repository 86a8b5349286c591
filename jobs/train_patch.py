r"""Train the patch classifier of each trunk of the recipe; its convolutional part becomes the trunk.

    ray job submit --working-dir . -- python jobs/train_patch.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    patches/; builds what is missing
Writes   trunks/ in the lake (safetensors, kept by validation accuracy), and where hard patches are mined, mined/ and
         retrained/; MLflow experiment "patch-classifiers"
Next     jobs/tune_top_layers.py
"""

from mammoflow import cli, console, recipes
from mammoflow.errors import ConfigError
from mammoflow.pipeline import build


def main() -> None:
    """Print the plan, train, print each trunk's validation accuracy."""
    config = cli.parse(__doc__, recipes.ALL)
    if config.start:
        raise ConfigError(
            f"start is {config.start!r}: training goes on from whole-image classifiers, there is no patch "
            "classifier to train; run jobs/finetune.py"
        )
    artefacts = build.ensure("retrained", config)
    console.show_trunks({name: item.facts(TrunkFacts) for name, item in artefacts.classifiers.items()})
    console.show_next("tune_top_layers", config)


if __name__ == "__main__":
    cli.run(main)
