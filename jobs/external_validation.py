"""Validate a registered ensemble on another data set, without training.

The command `mammoflow external` as a script: `ray job submit --working-dir . -- python jobs/external_validation.py`.
Its manual is shown by `mammoflow external --help`.
"""

from mammoflow import cli
from mammoflow.commands import external

if __name__ == "__main__":
    cli.run(external.main)
