"""Writing the site: the leaderboard, a page a run, the scripts. What is there already is reused. No Ray.

The site is static: a served app with films of patients would be one more thing to secure. Each page holds its data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

import mammoflow
from mammoflow import lake
from mammoflow.facts.published import LeaderboardRow
from mammoflow.lake import Lake
from mammoflow.registry.registry import Registry
from mammoflow.rendering import pages
from mammoflow.rendering.marks import PHANTOM_MARK
from mammoflow.site import leaderboard, run_page, runs
from mammoflow.site.runs import Run

_PACKAGE = "mammoflow.site"
_SCRIPTS = ("leaderboard.js", "run.js")
_MADE = "made.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What was written."""

    url: str
    """Of its first page."""
    rows: Sequence[LeaderboardRow]
    """Of the leaderboard, best validation AUC first."""
    made: int
    """Pages of runs that were written."""
    kept: int
    """Pages that were there already."""


def write(root: Lake, tracking_uri: str, out: str, cases: int, say: Callable[[str], None]) -> Site:
    """Write the site of a lake and its registry; its first page last.

    Args:
        root: the lake; nothing in it is changed.
        tracking_uri: of the registry.
        out: folder or URL of the site.
        cases: most films that a run's page shows.
        say: told what is done.

    Raises:
        LakeError: the lake can't be read or `out` can't be written.
        TrackingError: the registry does not answer.
    """
    versions = Registry(tracking_uri).versions()
    found = runs.find(root, tracking_uri, {each.key for each in versions}, say)
    shared = {"version_of_mammoflow": mammoflow.__version__, "date": datetime.now(UTC).strftime("%d %B %Y")}
    lake.write_bytes(lake.join(out, "plotly.min.js"), get_plotlyjs().encode())
    for script in _SCRIPTS:
        lake.write_bytes(lake.join(out, script), files(_PACKAGE).joinpath(script).read_bytes())
    new = [_run(run, lake.join(out, run.key), tracking_uri, cases, shared) for run in found]
    rows = leaderboard.rows(root, found, versions)
    url = lake.join(out, "index.html")
    lake.write_bytes(url, pages.render("index.html", {**shared, **_index(root, found, rows)}, _PACKAGE))
    _remove_others(out, found, say)
    return Site(url=url, rows=rows, made=sum(new), kept=len(new) - sum(new))


def _run(run: Run, folder: str, tracking_uri: str, cases: int, shared: dict[str, Any]) -> bool:
    """Write a run's page where it is not there as it would be made now; tell whether it was written."""
    mark, held = {"of": lake.fingerprint(mammoflow.__version__, run.version, cases)}, lake.join(folder, _MADE)
    if lake.exists(held) and lake.read_json(held) == mark:
        return False
    lake.remove(folder)
    run_page.write(run, folder, tracking_uri, cases, shared)
    lake.write_json(held, mark)
    return True


def _remove_others(out: str, found: Sequence[Run], say: Callable[[str], None]) -> None:
    """Remove the pages of runs that the lake no longer holds, films and all."""
    for folder in lake.list_folders(out):
        if folder.rpartition("/")[2] not in {run.key for run in found} and lake.exists(lake.join(folder, _MADE)):
            lake.remove(folder)
            say(f"  {folder} is removed: its run is not in the lake any more")


def _index(root: Lake, found: Sequence[Run], rows: Sequence[LeaderboardRow]) -> dict[str, Any]:
    return {
        "mark": PHANTOM_MARK if {row.mark for row in rows} == {PHANTOM_MARK} else "",
        "rows": rows,
        "kinds": sorted({row.kind for row in rows}),
        "sets": sorted({row.data for row in rows if row.data}),
        "runs": len(found),
        "lake": root.root,
    }
