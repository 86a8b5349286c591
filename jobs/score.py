"""Score new images with a registered model: one row per file, readable or not. Never trains.

The command `mammoflow score` as a script: `ray job submit --working-dir . -- python jobs/score.py`.
Its manual is shown by `mammoflow score --help`.
"""

from mammoflow import cli
from mammoflow.commands import score

if __name__ == "__main__":
    cli.run(score.main)
