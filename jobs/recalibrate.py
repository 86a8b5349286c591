"""Register an ensemble with a cut-off and calibration fitted on another site's validation images. Never trains.

The command `mammoflow recalibrate` as a script: `ray job submit --working-dir . -- python jobs/recalibrate.py`.
Its manual is shown by `mammoflow recalibrate --help`.
"""

from mammoflow import cli
from mammoflow.commands import recalibrate

if __name__ == "__main__":
    cli.run(recalibrate.main)
