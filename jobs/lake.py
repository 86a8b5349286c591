"""List a lake's artefacts and their users, and remove artefacts. Never builds.

The command `mammoflow lake` as a script: `ray job submit --working-dir . -- python jobs/lake.py`.
Its manual is shown by `mammoflow lake --help`.
"""

from mammoflow import cli
from mammoflow.commands import lake

if __name__ == "__main__":
    cli.run(lake.main)
