"""Decode a release, split it by patient and cut labelled patches; without --source, draw phantoms first.

The command `mammoflow ingest` as a script: `ray job submit --working-dir . -- python jobs/ingest.py`.
Its manual is shown by `mammoflow ingest --help`.
"""

from mammoflow import cli
from mammoflow.commands import ingest

if __name__ == "__main__":
    cli.run(ingest.main)
