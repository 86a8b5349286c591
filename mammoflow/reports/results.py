"""Tables of the report that set ways, levels, calibration and subgroups beside each other, from `report_numbers`.

No Ray, no MLflow, no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mammoflow.rendering import pages
from mammoflow.reports import paper_tables

Numbers = Mapping[str, Any]


def tables(numbers: Numbers) -> dict[str, Any]:
    """Return the tables by the names that the template knows; None where there is nothing to show.

    Args:
        numbers: of `report_numbers.numbers`.
    """
    return {
        "compared": _compared(numbers["compared"]),
        "shares": _shares(numbers["compared"]),
        "levels": _levels(numbers["levels"]),
        "calibration": _calibration(numbers["calibration"]),
        "subgroups": _subgroups(numbers["subgroups"]),
        "transfer": numbers["transfer"] and _transfer(numbers["transfer"]),
        "matrix": numbers["transfer"] and _matrix(numbers["transfer"]),
        "site": numbers["transfer"] and _site(numbers["transfer"]),
        "table1": numbers["reproduction"] and _table1(numbers["reproduction"]["patch_classifiers"]),
        "other_set": numbers["reproduction"] and _other_set(numbers["reproduction"]["other_set"]),
        "paper_transfer": numbers["transfer"] and _paper_transfer(),
    }


def _compared(ways: Sequence[Numbers]) -> dict[str, Any]:
    rows = []
    for way in ways:
        over = way["over_baseline"]
        rows.append(
            pages.cells(
                way["name"],
                way["of"],
                f"{way['val_auc']:.3f}",
                f"{_interval(way['auc'], way['ci95'])}\nDeLong {_range(way['ci95_delong'])}",
                f"{way['sensitivity']:.3f}",
                f"{way['specificity']:.3f}",
                f"{way['partial_auc']:.3f}",
                pages.NONE if over is None else f"{_signed(over['value'], over['low'], over['high'])}\n{_p(over['p'])}",
                pages.NONE if way["paper"] is None else f"{way['paper']:.2f}",
                strong="ensemble" in way["name"] or "mean" in way["name"],
            )
        )
    columns = ["way", "of", "val A-AUC", "test A-AUC (95%, by patient)", "sensitivity", "specificity"]
    columns += ["partial AUC", "over the baseline (95%, p)", "paper"]
    classes = ["", "", "n", "lines n", "n", "n", "n", "lines n", "n paper"]
    return pages.table("Ways from patches to a whole-image score, each frozen on validation", columns, classes, rows)


def _shares(ways: Sequence[Numbers]) -> dict[str, Any]:
    """Return who is in each ensemble, and how often they count."""
    means = [way for way in ways if len(way["members"]) > 1]
    names = sorted({name for way in means for name in way["members"]})
    rows = [pages.cells(name, *(way["members"].get(name, pages.NONE) for way in means)) for name in names]
    columns = ["model", *(way["name"] for way in means)]
    return pages.table("How often each model counts in the means", columns, ["path", *["n"] * len(means)], rows)


def _levels(rows: Sequence[Numbers]) -> dict[str, Any]:
    cells = [
        pages.cells(
            row["level"] if row["level"] == "image" else f"{row['level']}, {row['rule']} over views",
            pages.count(row["cases"]),
            pages.count(row["malignant"]),
            _interval(row["auc"], row["ci95"]),
            *(
                _interval(row[name]["value"], (row[name]["low"], row[name]["high"]))
                for name in ("sensitivity", "specificity")
            ),
        )
        for row in rows
    ]
    columns = ["by", "cases", "malignant", "A-AUC (95%, by patient)", "sensitivity (95%)", "specificity (95%)"]
    caption = "The ensemble on test by image, breast and patient, at the cut-off that was chosen for images"
    return pages.table(caption, columns, ["nowrap", "n", "n", "n", "n", "n"], cells)


def _calibration(found: Numbers) -> dict[str, Any]:
    rows = [
        pages.cells(name, f"{found[when]['error']:.3f}", f"{found[when]['brier']:.3f}")
        for when, name in (("before", "scores as they are"), ("after", f"calibrated on validation ({found['kind']})"))
    ]
    columns = ["probabilities", "expected calibration error", "Brier score"]
    return pages.table("How well probabilities hold on test", columns, ["nowrap", "n", "n"], rows)


def _subgroups(groups: Sequence[Numbers]) -> dict[str, Any]:
    rows = [
        pages.cells(
            f"{group['by']}: {group['name']}",
            pages.count(group["images"]),
            pages.count(group["malignant"]),
            pages.NONE if group["auc"] is None else _interval(group["auc"], group["ci95"]),
            *(pages.NONE if group[name] is None else _share(group[name]) for name in ("sensitivity", "specificity")),
        )
        for group in groups
    ]
    columns = ["test films", "films", "malignant", "A-AUC (95%, by patient)", "sensitivity", "specificity"]
    caption = "The ensemble on parts of the test split; a film with a mass and a calcification counts in both"
    return pages.table(caption, columns, ["nowrap", "n", "n", "n", "n", "n"], rows)


def _transfer(found: Numbers) -> dict[str, Any]:
    names = [*found["rows"][0]["members"]]
    rows = [
        pages.cells(
            row["patients"] or "none",
            pages.count(row["images"]),
            *(_figures(row["members"].get(name)) for name in names),
            _figures(row["ensemble"]),
        )
        for row in found["rows"]
    ]
    caption = f"{found['model']} trained on with patients of other data, by image labels alone: test A-AUC there"
    classes = ["n", "n", *["n"] * len(names), "n"]
    return pages.table(caption, ["patients", "images", *names, "ensemble"], classes, rows)


def _matrix(found: Numbers) -> dict[str, Any]:
    data = list(dict.fromkeys(row["data"] for row in found["matrix"]))
    models = list(dict.fromkeys(row["model"] for row in found["matrix"]))
    by = {(row["model"], row["data"]): row for row in found["matrix"]}
    rows = [pages.cells(model, *(_figures(by.get((model, each))) for each in data)) for model in models]
    caption = "Each ensemble (row) on the test images of both data sets (column): A-AUC, 95% by patient"
    return pages.table(caption, ["ensemble", *data], ["nowrap", *["n"] * len(data)], rows)


def _site(found: Numbers) -> dict[str, Any]:
    rows = [
        pages.cells(
            row["calibrated"],
            *(f"{row[name]:.3f}" for name in ("sensitivity", "specificity", "error", "brier")),
            row["kind"],
        )
        for row in found["site"]
    ]
    columns = [
        "cut-off and calibration",
        "sensitivity",
        "specificity",
        "calibration error",
        "Brier score",
        "calibration",
    ]
    caption = f"{found['model']} on the other data without training there, on {found['site'][0]['images']} test images"
    return pages.table(caption, columns, ["nowrap", "n", "n", "n", "n", "nowrap"], rows)


def _table1(rows: Sequence[Numbers]) -> dict[str, Any]:
    cells = [
        pages.cells(
            row["backbone"],
            row["weights"] or "random",
            row["set"],
            f"{row['accuracy']:.3f}",
            f"{row['balanced_accuracy']:.3f}",
            row["epoch"] or pages.NONE,
            pages.NONE if row["paper"] is None else f"{row['paper']['accuracy']:.2f}",
            pages.NONE if row["paper"] is None else row["paper"]["epoch"],
        )
        for row in rows
    ]
    columns = ["trunk", "weights", "set", "test accuracy", "balanced", "epoch", "paper", "paper's epoch"]
    classes = ["nowrap", "nowrap", "", "n", "n", "n", "n paper", "n paper"]
    return pages.table("Table 1: patch classifiers", columns, classes, cells)


def _other_set(rows: Sequence[Numbers]) -> dict[str, Any]:
    cells = [
        pages.cells(
            row["set"],
            row["backbone"],
            row["top_layers"],
            pages.NONE if row["test"] is None else _interval(row["test"]["auc"], row["test"]["ci95"]),
            pages.NONE if row["test"] is None else _interval(row["test"]["auc_tta"], row["test"]["ci95_patients"]),
            row["best_epoch"],
            pages.NONE if row["paper"] is None else f"{row['paper']['auc']:.2f}",
        )
        for row in rows
    ]
    columns = ["set", "trunk", "top layers", "test AUC (95%, DeLong)", "test A-AUC (95%, by patient)", "epoch", "paper"]
    classes = ["", "nowrap", "nowrap", "n", "n", "n", "n paper"]
    return pages.table("Table 2's row of the other patch set", columns, classes, cells)


def _paper_transfer() -> dict[str, Any]:
    kinds = [*paper_tables.TRANSFER[0][2]]
    rows = [
        pages.cells(patients, images, *(f"{aucs[kind]:.2f}" for kind in kinds))
        for patients, images, aucs in paper_tables.TRANSFER
    ]
    classes = ["n"] * (2 + len(kinds))
    return pages.table("Table 4 as published: INbreast", ["patients", "images", *kinds], classes, rows, ours=False)


def _figures(figures: Numbers | None) -> str:
    return pages.NONE if figures is None else _interval(figures["auc"], figures["ci95"])


def _interval(value: float, ends: Sequence[float] | None) -> str:
    return f"{value:.3f}" if ends is None else f"{value:.3f} ({_range(ends)})"


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f}–{ends[1]:.3f}"


def _share(share: Numbers) -> str:
    return f"{share['value']:.3f} ({share['hits']} of {share['of']})"


def _signed(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _p(value: float | None) -> str:
    if value is None:
        return "p unknown"
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"
