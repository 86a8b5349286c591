"""Choose the ensemble and its operating point on validation, and register it as a candidate.

The command `mammoflow select` as a script: `ray job submit --working-dir . -- python jobs/select_ensemble.py`.
Its manual is shown by `mammoflow select --help`.
"""

from mammoflow import cli
from mammoflow.commands import select

if __name__ == "__main__":
    cli.run(select.main)
