"""Write the report of a finished run: one HTML file that opens offline. Never trains.

    mammoflow report demo

Reads    the run's artefacts in the lake; a missing stage is an error
Writes   report/ in the lake
Next     open the file
"""

from mammoflow import cli
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Write the report, also over an existing one, and print its path."""
    config = cli.parse(__doc__, hidden=("transfer", "compute"))
    artefacts = build.find(("registered", "evaluation"), config)
    print(f"report: {outcome.write_report(artefacts)}")
