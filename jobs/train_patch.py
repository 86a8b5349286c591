"""Train the patch classifier of each trunk; its convolutional part becomes the trunk.

The command `mammoflow train-patch` as a script: `ray job submit --working-dir . -- python jobs/train_patch.py`.
Its manual is shown by `mammoflow train-patch --help`.
"""

from mammoflow import cli
from mammoflow.commands import train_patch

if __name__ == "__main__":
    cli.run(train_patch.main)
