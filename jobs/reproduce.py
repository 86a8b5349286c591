"""Reproduce the whole paper: everything behind tables 1-4 and figures 2-4. A second run continues the first.

The command `mammoflow reproduce` as a script: `ray job submit --working-dir . -- python jobs/reproduce.py`.
Its manual is shown by `mammoflow reproduce --help`.
"""

from mammoflow import cli
from mammoflow.commands import reproduce

if __name__ == "__main__":
    cli.run(reproduce.main)
