"""What jobs print at their end: tables of results for a person, and the next command. Rich only."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mammoflow.config import Config
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS
from mammoflow.reports import quarantine
from mammoflow.search import PICTURE

if TYPE_CHECKING:  # what they import takes seconds to load
    from mammoflow.registry.promotion import Move
    from mammoflow.scoring.score import Scored
    from mammoflow.site.leaderboard import Auc, Row

_WIDTH = 130
_FIRST = 20
_FIRST_COLUMN = 36  # characters of what a row is about that stay on one line


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers stand right, text left."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        longest = max((len(str(row[index])) for row in rows), default=0)
        least = min(longest, _FIRST_COLUMN) if index == 0 and console.width >= _WIDTH else None
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def show_data(images: Artefact, patches: Artefact) -> None:
    """Print films, malignant films, patients and patches of each split, and how much could not be used.

    Raises:
        LakeError: an artefact is not complete.
    """
    films, cut = images.summary(), patches.summary()
    rows = [
        [
            split,
            films["images"].get(split, 0),
            films["malignant"].get(split, 0),
            films["patients"].get(split, 0),
            sum(cut["patches"].get(split, {}).values()),
        ]
        for split in SPLITS
    ]
    show("Data", ["split", "images", "malignant", "patients", "patches"], rows)
    print(
        f"quarantined: {films['quarantined']} image(s) left out, {cut['quarantined']} without patches; "
        f"{films['outlines_missing']} lesion(s) without an outline"
    )
    if films["outlines_missing"]:
        print(f"  {cut['unverified']} background patches may show one and are not trained on")
    if films.get("duplicates"):
        print(f"  {films['duplicates']} image(s) show the pixels of another; both are used")


def show_quarantine(artefacts: Sequence[Artefact], source: str | None) -> None:
    """Print the first files that could not be used and why, how many more there are, and where all of them are listed.

    Args:
        artefacts: of the stages images and patches.
        source: folder or URL of the release, left out of paths; None for phantoms.

    Raises:
        LakeError: an artefact has no table of quarantine.
    """
    refused = quarantine.read(artefacts, source)
    if not refused:
        return
    shown = refused[:_FIRST]
    rows = [[row.path, row.stage, row.reason if row.fatal else f"{row.reason} (the image is used)"] for row in shown]
    show("Quarantine", ["path", "stage", "reason"], rows)
    if len(refused) > len(shown):
        print(f"  and {len(refused) - len(shown):,} more")
    for url in quarantine.files(artefacts):
        print(f"  reasons: {url}")


def show_trunks(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each patch classifier's validation accuracy."""
    rows = [
        [name, "untrained" if s["best_epoch"] is None else f"{s['val_accuracy']:.3f}", s["best_epoch"], s["run_id"]]
        for name, s in summaries.items()
    ]
    show("Patch classifiers (validation)", ["trunk", "accuracy", "best epoch", "MLflow run"], rows)


def show_ranking(artefact: Artefact) -> None:
    """Print the candidates of a finished search, best first, those that could not go on, and where their picture is.

    Raises:
        LakeError: the search is not complete.
    """
    search = artefact.summary()
    rows = [
        [
            r["name"],
            r["kind"],
            f"{r['val_auc']:.3f}",
            r["best_epoch"],
            f"{r['parameters'] / 1e6:.2f} M",
            "-" if r["epoch_seconds"] is None else f"{r['epoch_seconds']:.1f} s",
            "-" if r["memory_gib"] is None else f"{r['memory_gib']:.1f} GiB",
            f"stage {2 if r['survived'] else 1}, epoch {r['epochs']}",
        ]
        for r in search["ranking"]
    ]
    show(
        "Whole-image candidates, by validation AUC",
        ["candidate", "kind", "AUC", "best\nepoch", "weights", "an epoch\nof stage 2", "memory", "trained to"],
        rows,
    )
    for name, reason in search["failed"].items():
        print(f"set aside: {name}: {reason}")
    if search["out_of_time"]:
        print(
            f"time is up: {len(search['out_of_time'])} candidate(s) were not trained to their end; "
            "give --max-hours more for a search of its own"
        )
    print(f"picture: {artefact.file(PICTURE)}")


def show_scores(summary: Mapping[str, Any]) -> None:
    """Print per-image AUCs of every model and of the ensemble, as `results.summary` gathers them."""
    ensemble = {"name": f"ensemble of {len(summary['ensemble']['members'])}", "kind": "mean", **summary["ensemble"]}
    ensemble["test_auc_tta"], ensemble["test_auc"] = ensemble["test_auc"], ensemble["test_auc_plain"]
    cells = [
        [
            r["name"],
            r["kind"],
            *(f"{r[figure]:.3f}" for figure in ("val_auc_tta", "test_auc", "test_auc_tta")),
            "-".join(f"{bound:.3f}" for bound in r["ci95"]),
        ]
        for r in [*summary["models"], ensemble]
    ]
    columns = ["model", "kind", "val A-AUC", "test AUC", "test A-AUC", "95% interval"]
    show(f"Whole-image classifiers, per image, recipe {summary['recipe']}", columns, cells)
    chosen, patch = summary["ensemble"], summary["patch"]
    print(
        f"ensemble at cut-off {chosen['cutoff']:.3f} (chosen on validation): "
        f"sensitivity {chosen['sensitivity']:.3f}, specificity {chosen['specificity']:.3f}"
    )
    if patch:
        print(f"patch classifier, test: accuracy {patch['accuracy']:.3f}, balanced {patch['balanced_accuracy']:.3f}")


def show_site(model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what a registered ensemble reaches on other data, as it is and recalibrated (`findings.transferred`)."""
    cells = [
        [
            row["calibrated"],
            f"{row['auc']:.3f}",
            "-".join(f"{bound:.3f}" for bound in row["ci95"]),
            *(f"{row[name]:.3f}" for name in ("sensitivity", "specificity", "error", "brier")),
            row["kind"],
        ]
        for row in rows
    ]
    columns = ["cut-off and calibration", "test A-AUC", "95% interval", "sensitivity", "specificity"]
    first = rows[0]
    title = f"{model} on {first['images']} test images, {first['malignant']} of them malignant"
    show(title, [*columns, "calibration error", "Brier", "calibration"], cells)


def show_baseline(row: Mapping[str, Any]) -> None:
    """Print what the two-step baseline reaches (`findings.baseline`)."""
    cells = [[row["backbone"], _auc(row), *(f"{row[name]:.3f}" for name in ("sensitivity", "specificity"))]]
    title = f"Two-step baseline on {row['images']} test images, {row['malignant']} of them malignant"
    show(title, ["heatmaps of", "test A-AUC (95% interval)", "sensitivity", "specificity"], cells)


def show_transfer(found: Mapping[str, Any]) -> None:
    """Print a transfer: Table 4, each ensemble on both data sets, and calibration (`transfer.run`)."""
    names = [*found["rows"][0]["members"]]
    cells = [
        [row["patients"], row["images"], *(_auc(row["members"].get(name)) for name in names), _auc(row["ensemble"])]
        for row in found["rows"]
    ]
    columns = ["patients", "images", *names, "ensemble"]
    show(f"{found['model']} trained on: test A-AUC (95% interval)", columns, cells)
    data = list(dict.fromkeys(row["data"] for row in found["matrix"]))
    models = list(dict.fromkeys(row["model"] for row in found["matrix"]))
    by = {(row["model"], row["data"]): row for row in found["matrix"]}
    cells = [[model, *(_auc(by.get((model, each))) for each in data)] for model in models]
    show("Ensembles on the test images of both data sets", ["ensemble", *data], cells)
    show_site(found["model"], found["site"])


def _auc(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "-"
    low, high = figures["ci95"]
    return f"{figures['auc']:.3f} ({low:.3f}-{high:.3f})"


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
        found = move.difference
        compared = f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})" if found else "-"
        kind = "forced promotion" if move.forced else move.kind
        rows.append([move.at, kind, move.replaced or "none", move.version, compared, move.by])
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


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))  # a path may look like Rich's markup


def show_leaderboard(rows: "Sequence[Row]") -> None:
    """Print the best models by validation AUC, and how many more there are."""

    def said(auc: "Auc | None") -> str:
        """Return an AUC and its interval."""
        if auc is None:
            return "-"
        return f"{auc.value:.3f}" + ("" if auc.low is None else f" ({auc.low:.3f}-{auc.high:.3f})")

    shown = [[row.model, row.run, said(row.val), said(row.test), row.version] for row in rows[:_FIRST]]
    show("Leaderboard (A-AUC, 95% by patient)", ["model", "run", "validation", "test", "version"], shown)
    if len(rows) > len(shown):
        print(f"  and {len(rows) - len(shown):,} more")
