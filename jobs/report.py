"""Write the report of a finished run: one HTML file that opens offline. Never trains.

The command `mammoflow report` as a script: `ray job submit --working-dir . -- python jobs/report.py`.
Its manual is shown by `mammoflow report --help`.
"""

from mammoflow import cli
from mammoflow.commands import report

if __name__ == "__main__":
    cli.run(report.main)
