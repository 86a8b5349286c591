"""Score the test split with the frozen ensemble: AUCs per image with 95% intervals.

The command `mammoflow evaluate` as a script: `ray job submit --working-dir . -- python jobs/evaluate.py`.
Its manual is shown by `mammoflow evaluate --help`.
"""

from mammoflow import cli
from mammoflow.commands import evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)
