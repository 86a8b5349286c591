"""Run the whole path on phantoms: draw, ingest, train, search, select, register, promote, evaluate, report.

The command `mammoflow demo` as a script: `ray job submit --working-dir . -- python jobs/demo.py`.
Its manual is shown by `mammoflow demo --help`.
"""

from mammoflow import cli
from mammoflow.commands import demo

if __name__ == "__main__":
    cli.run(demo.main)
