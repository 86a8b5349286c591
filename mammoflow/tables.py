"""What jobs print at their end: tables of results for a person, and the next command. Rich only."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mammoflow.config import Config
from mammoflow.schema import SPLITS

_WIDTH = 110


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers stand right, text left."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def show_data(images: Mapping[str, Any], patches: Mapping[str, Any]) -> None:
    """Print films, malignant films, patients and patches of each split, and what went to quarantine."""
    rows = [
        [
            split,
            images["images"].get(split, 0),
            images["malignant"].get(split, 0),
            images["patients"].get(split, 0),
            sum(patches["patches"].get(split, {}).values()),
        ]
        for split in SPLITS
    ]
    show("Data", ["split", "images", "malignant", "patients", "patches"], rows)
    print(f"quarantined: {images['quarantined']} image(s)")


def show_trunks(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each patch classifier's validation accuracy."""
    rows = [
        [name, "untrained" if s["best_epoch"] is None else f"{s['val_accuracy']:.3f}", s["best_epoch"], s["run_id"]]
        for name, s in summaries.items()
    ]
    show("Patch classifiers (validation)", ["trunk", "accuracy", "best epoch", "MLflow run"], rows)


def show_ranking(ranking: Sequence[Mapping[str, Any]]) -> None:
    """Print the candidates of a search, best first."""
    rows = [
        [
            r["name"],
            r["kind"],
            f"{r['val_auc']:.3f}",
            r["best_epoch"],
            f"{r['parameters'] / 1e6:.2f} M",
            "stage 2" if r["survived"] else "stage 1",
        ]
        for r in ranking
    ]
    show(
        "Whole-image candidates, by validation AUC",
        ["candidate", "kind", "AUC", "best epoch", "parameters", "trained to"],
        rows,
    )


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
    print(f"patch classifier, test: accuracy {patch['accuracy']:.3f}, balanced {patch['balanced_accuracy']:.3f}")


def show_next(job: str, config: Config, *flags: str) -> None:
    """Print the command of the next job, with the flags of this one."""
    words = [*(sys.argv[1:] or [config.name]), *flags]
    print(f"next: python jobs/{job}.py {shlex.join(words)}", flush=True)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
