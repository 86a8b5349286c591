"""Fine-tune whole-image classifiers on other data with image labels only: the paper's transfer to INbreast.

The command `mammoflow finetune` as a script: `ray job submit --working-dir . -- python jobs/finetune.py`.
Its manual is shown by `mammoflow finetune --help`.
"""

from mammoflow import cli
from mammoflow.commands import finetune

if __name__ == "__main__":
    cli.run(finetune.main)
