"""Make a registered version the champion that `mammoflow score` uses, or go back. Never trains.

The command `mammoflow promote` as a script: `ray job submit --working-dir . -- python jobs/promote.py`.
Its manual is shown by `mammoflow promote --help`.
"""

from mammoflow import cli
from mammoflow.commands import promote

if __name__ == "__main__":
    cli.run(promote.main)
