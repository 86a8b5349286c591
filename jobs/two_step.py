"""Fit and test the two-step baseline: a random forest on features of the patch classifier's heatmaps.

The command `mammoflow two-step` as a script: `ray job submit --working-dir . -- python jobs/two_step.py`.
Its manual is shown by `mammoflow two-step --help`.
"""

from mammoflow import cli
from mammoflow.commands import two_step

if __name__ == "__main__":
    cli.run(two_step.main)
