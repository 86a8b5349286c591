"""Train whole-image classifiers through both stages: every candidate of the recipe, without dropping any.

The command `mammoflow train-image` as a script: `ray job submit --working-dir . -- python jobs/train_image.py`.
Its manual is shown by `mammoflow train-image --help`.
"""

from mammoflow import cli
from mammoflow.commands import train_image

if __name__ == "__main__":
    cli.run(train_image.main)
