"""Write the results page: a site of every finished run of a lake and every registered model. Never trains.

The command `mammoflow site` as a script: `ray job submit --working-dir . -- python jobs/site.py`.
Its manual is shown by `mammoflow site --help`.
"""

from mammoflow import cli
from mammoflow.commands import site

if __name__ == "__main__":
    cli.run(site.main)
