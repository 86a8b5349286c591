"""Search the top layers that turn a patch classifier into whole-image classifiers.

The command `mammoflow tune` as a script: `ray job submit --working-dir . -- python jobs/tune_top_layers.py`.
Its manual is shown by `mammoflow tune --help`.
"""

from mammoflow import cli
from mammoflow.commands import tune

if __name__ == "__main__":
    cli.run(tune.main)
