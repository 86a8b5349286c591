"""What jobs print at their end: tables of results, and the next command. Rich only."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mammoflow.config import Config
from mammoflow.facts.published import LeaderboardRow, SiteRow, Summary, Transfer
from mammoflow.facts.results import Performance
from mammoflow.facts.stages import ImagesFacts, PatchesFacts, SearchFacts, TrunkFacts
from mammoflow.lake import Artefact
from mammoflow.rendering import formats
from mammoflow.rendering.tables import Table, numbers, table, texts
from mammoflow.reports import quarantine, result_tables, run_tables
from mammoflow.search import PICTURE

if TYPE_CHECKING:  # what they import takes seconds to load
    from mammoflow.registry.promotion import Move
    from mammoflow.scoring.score import Scored

_WIDTH = 130
_FIRST = 20
_FIRST_COLUMN = 36  # characters of what a row is about that stay on one line


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; columns with numbers stand right, others left."""
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    made = [
        column for name, right in zip(columns, numeric, strict=True) for column in (numbers if right else texts)(name)
    ]
    show_table(table(title, made, rows))


def show_table(shown: Table) -> None:
    """Print a table."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    printed = RichTable(title=escape(shown.title), title_justify="left", title_style="bold")
    cells = [[formats.text(cell) for cell in row.cells] for row in shown.rows]
    for index, column in enumerate(shown.columns):
        longest = max((len(line) for row in cells for line in row[index].splitlines()), default=0)
        least = min(longest, _FIRST_COLUMN) if index == 0 and console.width >= _WIDTH else None
        printed.add_column(column.name, justify="right" if column.right else "left", overflow="fold", min_width=least)
    for row in cells:
        printed.add_row(*map(escape, row))  # a path may look like Rich's markup
    console.print(printed)


def show_data(images: Artefact, patches: Artefact) -> None:
    """Print films, malignant films, patients and patches of each split, and how much could not be used.

    Raises:
        LakeError: an artefact is not complete.
    """
    films, cut = images.facts(ImagesFacts), patches.facts(PatchesFacts)
    show_table(run_tables.data(films, cut))
    print(
        f"quarantined: {films.quarantined} image(s) left out, {cut.quarantined} without patches; "
        f"{films.outlines_missing} lesion(s) without an outline"
    )
    if films.outlines_missing:
        print(f"  {cut.unverified} background patches may show one and are not trained on")
    if films.duplicates:
        print(f"  {films.duplicates} image(s) show the pixels of another; both are used")


def show_quarantine(artefacts: Sequence[Artefact], source: str | None) -> None:
    """Print the first files that could not be used and why, how many more there are, and where all of them are listed.

    Args:
        artefacts: of the stages images and patches.
        source: folder or URL of the release, left out of paths; None for phantoms.

    Raises:
        LakeError: an artefact has no table of quarantine.
    """
    refused = quarantine.read(artefacts, source)
    if (shown := quarantine.shown(refused, _FIRST)) is None:
        return
    show_table(shown)
    if len(refused) > _FIRST:
        print(f"  and {len(refused) - _FIRST:,} more")
    for url in quarantine.files(artefacts):
        print(f"  reasons: {url}")


def show_trunks(trunks: Mapping[str, TrunkFacts]) -> None:
    """Print each patch classifier's validation accuracy."""
    show_table(run_tables.trunks(trunks))


def show_ranking(artefact: Artefact) -> None:
    """Print the candidates of a finished search, best first, those that could not go on, and where their picture is.

    Raises:
        LakeError: the search is not complete.
    """
    search = artefact.facts(SearchFacts)
    show_table(result_tables.ranking(search.ranking))
    for name, reason in search.failed.items():
        print(f"set aside: {name}: {reason}")
    if search.out_of_time:
        print(
            f"time is up: {len(search.out_of_time)} candidate(s) were not trained to their end; "
            "give --max-hours more for a search of its own"
        )
    print(f"picture: {artefact.file(PICTURE)}")


def show_scores(summary: Summary) -> None:
    """Print per-image AUCs of every model and of the ensemble."""
    show_table(result_tables.summary(summary))
    point, patch = summary.ensemble.at_cutoff, summary.patch
    print(
        f"ensemble at cut-off {point.cutoff:.3f} (chosen on validation): "
        f"sensitivity {point.sensitivity.value:.3f}, specificity {point.specificity.value:.3f}"
    )
    if patch:
        best = patch.trunks[patch.best]
        print(f"patch classifier, test: accuracy {best.accuracy:.3f}, balanced {best.balanced_accuracy:.3f}")


def show_site(model: str, rows: Sequence[SiteRow]) -> None:
    """Print what a registered ensemble reaches on other data, as registered and recalibrated."""
    show_table(result_tables.site(model, rows))


def show_baseline(backbone: str, reached: Performance) -> None:
    """Print what the two-step baseline reaches on heatmaps of a backbone's patch classifier."""
    show_table(result_tables.baseline(backbone, reached))


def show_transfer(found: Transfer) -> None:
    """Print a transfer: Table 4, each ensemble on both data sets, and calibration."""
    show_table(result_tables.transfer(found))
    show_table(result_tables.matrix(found.matrix))
    show_site(found.model, found.site)


_SCRIPTS = {"tune": "tune_top_layers", "select": "select_ensemble", "external": "external_validation"}
"""Commands whose script in jobs/ has another name."""


def show_next(command: str, config: Config, *flags: str) -> None:
    """Print the command to run next, with the flags of this one. The last of repeated flags counts."""
    words = [word for word in sys.argv[1:] if word != "--retry-quarantined"]  # done by now
    show_command(command, *(words or [config.name]), *flags)


def show_command(command: str, *words: str) -> None:
    """Print a command to run next: a script where this job is one, else a subcommand of `mammoflow`."""
    if Path(sys.argv[0]).parent.name == "jobs":
        script = _SCRIPTS.get(command, command.replace("-", "_"))
        first = ["python", f"jobs/{script}.py"]
    else:
        first = ["mammoflow", command]
    print(f"next: {shlex.join([*first, *words])}", flush=True)


def show_promotion(config: Config) -> None:
    """Print the command that makes the registered candidate the champion."""
    named = ["--lake", config.lake] if config.lake else []
    show_command("promote", "--name", config.ensemble.model_name, *named)


def show_scoring(model: str, lake: str | None) -> None:
    """Print the command that scores images with a model's champion; the user fills in what is in capitals."""
    named = ["--lake", lake] if lake else []
    show_command("score", "--model", f"models:/{model}@champion", "--images", "FOLDER", "--out", "SCORES", *named)


def show_moves(name: str, moves: "Sequence[Move]") -> None:
    """Print moves of a registered model's champion, and what was compared."""
    rows = []
    for move in moves:
        kind = "forced promotion" if move.forced else move.kind
        rows.append([move.at, kind, move.replaced or "none", move.version, move.difference, move.by])
    columns = ["when", "what", "from version", "to", "val AUC, new - old (95%)", "by"]
    show(f"Champion of {name}", columns, rows)


def show_scored(scored: "Scored", folder: str) -> None:
    """Print the most suspicious images and those that could not be scored, below their folder, and counts of all."""
    rows = scored.images.to_pylist()
    failed = [row for row in rows if row["error"]]
    good = sorted((row for row in rows if not row["error"]), key=lambda row: -row["score"])
    root = f"{folder.rstrip('/')}/"
    cells = [
        [row["path"].removeprefix(root), f"{row['probability']:.3f}", "malignant" if row["malignant"] else "benign",
         "; ".join(row["warnings"])]
        for row in good[:_FIRST]
    ]  # fmt: skip
    cells += [[row["path"].removeprefix(root), "-", "-", row["error"]] for row in failed[:_FIRST]]
    title = f"{len(cells)} of {len(rows)} images in {folder}, the most suspicious first"
    show(title, ["image", "probability", "called", "unlike the training images; or error"], cells)
    strange, called = (sum(bool(row[name]) for row in good) for name in ("warnings", "malignant"))
    print(f"called malignant: {called} of {len(good)} images, {_called(scored.breasts)} breasts, ", end="")
    print(f"{_called(scored.patients)} patients; unlike the training images: {strange}")


def _called(table: pa.Table) -> str:
    return f"{sum(table['malignant'].to_pylist())} of {table.num_rows}"


def show_leaderboard(rows: Sequence[LeaderboardRow]) -> None:
    """Print the best models by validation AUC, and how many more there are."""
    columns = [*texts("model", "run"), *numbers("validation", "test"), *texts("version")]
    shown = [(row.model, row.run, row.val, row.test, row.version) for row in rows[:_FIRST]]
    show_table(table("Leaderboard (A-AUC, 95% by patient)", columns, shown))
    if len(rows) > len(shown):
        print(f"  and {len(rows) - len(shown):,} more")
