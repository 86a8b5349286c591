"""Write the results page: a site of every finished run of a lake and every registered model. Never trains.

    mammoflow site --out site

A second run adds pages of new runs and updates the leaderboard. The site needs no server: open it, or copy the folder
to a web server or bucket behind your sign-in, since it shows films.

Reads    the artefacts of finished runs; registered versions and their aliases in MLflow
Writes   index.html: the leaderboard; a folder per run: threshold, curves, films with heatmaps
Next     open index.html
"""

import functools
from dataclasses import dataclass

from mammoflow import cli, console, lake, tracking
from mammoflow.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Lake and output."""

    out: str | None = None
    """Folder or URL of the site. Default: `site` in the lake."""
    lake: str | None = None
    """The lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""
    cases: int = 100
    """Most films on the page of a run."""


def main() -> None:
    """Write the site, print the top of its leaderboard and the path."""
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
    print(f"{site.made} page(s) of runs written, {site.kept} unchanged")
    print(f"site: {site.url}")
