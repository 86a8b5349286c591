"""Write the results page: a site of every finished run of a lake and every registered model. Never trains.

    python jobs/site.py --out site

Run again it makes pages of new runs, and the leaderboard anew. The site needs no server: open it, or put the folder on
any web server or bucket, behind the hospital's own sign-in; it holds films.

Reads    everything that runs left in the lake; registered versions and their aliases in MLflow
Writes   index.html: the leaderboard; a folder a run: threshold, curves, films with maps of where their scores come from
Next     open index.html
"""

import functools
from dataclasses import dataclass

from mammoflow import cli, console, lake, tracking
from mammoflow.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of what, and where to."""

    out: str | None = None
    """Folder or URL of the site; else `site` in the lake."""
    lake: str | None = None
    """The lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""
    cases: int = 100
    """Most films that a run's page shows [films]."""


def main() -> None:
    """Write the site, print the head of its leaderboard and where it lies."""
    options = cli.options(__doc__, Options)
    if options.cases < 0:
        raise ConfigError(f"--cases is {options.cases}, but must be 0 or more; 0 shows no films")
    root = lake.Lake(lake.resolve_root(options.lake))
    uri = tracking.uri(root)
    tracking.check_registry(uri)
    out = options.out or lake.join(root.root, "site")
    lake.check_writable(lake.join(out, "probe"))
    print(f"mammoflow site: lake {root.root}, models at {tracking.public(uri)}", flush=True)
    from mammoflow.site import writing

    site = writing.write(root, uri, out, options.cases, functools.partial(print, flush=True))
    console.show_leaderboard(site.rows)
    print(f"{site.made} page(s) of runs made, {site.kept} kept as they were")
    print(f"site: {site.url}")


if __name__ == "__main__":
    cli.run(main)
