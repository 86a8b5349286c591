"""Tables of the report, as plain values for the template. No Ray, no MLflow, no torch."""

from typing import Any

from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble.ensemble import ENSEMBLE
from mammoflow.lake.schema import SPLITS
from mammoflow.metrics.operating_points import Proportion
from mammoflow.rendering import pages
from mammoflow.reports import paper_tables, quarantine
from mammoflow.reports.inputs import ReportInputs

_SHOWN = 40  # rows of quarantine in the page; the lake holds all


def tables(inputs: ReportInputs) -> dict[str, Any]:
    """Return every table of the report by the name that the template knows."""
    return {
        "data": _data(inputs),
        "patches": _patches(inputs),
        "patch_accuracy": _patch_accuracy(inputs),
        "confusions": [_confusion(inputs, name) for name in inputs.patch_accuracy],
        "models": _models(inputs),
        "paper": _paper(),
        "ensemble": _ensemble(inputs),
        "quarantine": quarantine.table(_refused(inputs), _SHOWN),
        "artefacts": _artefacts(inputs),
    }


def quarantine_text(inputs: ReportInputs) -> str:
    """Return how many files were refused, and where all of them are listed."""
    return quarantine.text(_refused(inputs), _SHOWN)


def _data(inputs: ReportInputs) -> dict[str, Any]:
    figures = inputs.images.summary()
    names = ("images", "malignant", "patients")
    rows = []
    for split in SPLITS:
        films, malignant, patients = (figures[name].get(split, 0) for name in names)
        rows.append(
            pages.cells(
                split, pages.count(films), pages.count(malignant), pages.share(malignant, films), pages.count(patients)
            )
        )
    films, malignant, patients = (sum(figures[name].values()) for name in names)
    rows.append(
        pages.cells(
            "all",
            pages.count(films),
            pages.count(malignant),
            pages.share(malignant, films),
            pages.count(patients),
            strong=True,
        )
    )
    columns = ["split", "films", "malignant", "share", "patients"]
    return pages.table("Films and patients of each split", columns, ["", "n", "n", "n", "n"], rows)


def _patches(inputs: ReportInputs) -> dict[str, Any]:
    counts = inputs.patches.summary()["patches"]
    rows = [
        pages.cells(_words(name), *(pages.count(counts.get(split, {}).get(name, 0)) for split in SPLITS))
        for name in inputs.config.patches.classes
    ]
    totals = (pages.count(sum(counts.get(split, {}).values())) for split in SPLITS)
    rows.append(pages.cells("all", *totals, strong=True))
    return pages.table("Patches of each class and split", ["class", *SPLITS], ["", "n", "n", "n"], rows)


def _patch_accuracy(inputs: ReportInputs) -> dict[str, Any]:
    rows = []
    for name, figures in inputs.patch_accuracy.items():
        trunk = inputs.trunks[name]
        trained = trunk.summary()
        rows.append(
            pages.cells(
                f"{name}, on mined patches" if trunk.stage == "retrained" else name,
                "–" if trained["val_accuracy"] is None else f"{float(trained['val_accuracy']):.3f}",
                trained["best_epoch"] or "–",
                f"{figures['accuracy']:.3f}",
                f"{figures['balanced_accuracy']:.3f}",
                pages.count(figures["patches"]),
            )
        )
    columns = ["trunk", "val accuracy", "best epoch", "test accuracy", "balanced", "test patches"]
    return pages.table("Accuracy of naming a patch's class", columns, ["nowrap", "n", "n", "n", "n", "n"], rows)


def _confusion(inputs: ReportInputs, backbone: str) -> dict[str, Any]:
    names = [_words(name) for name in inputs.config.patches.classes]
    rows = []
    for name, counts in zip(names, inputs.patch_accuracy[backbone]["confusion"], strict=True):
        total = sum(counts)
        rows.append(pages.cells(name, *(pages.share(count, total) for count in counts), pages.count(total)))
    caption = f"{backbone}: of the test patches of a class (row), how many are given each name (column)"
    return pages.table(caption, ["true class", *names, "patches"], ["nowrap", *["n"] * (len(names) + 1)], rows)


def _models(inputs: ReportInputs) -> dict[str, Any]:
    """Return every candidate, finished or not, and the ensemble; where the paper has this very row, its figures."""
    test = ensembles.summarise(inputs.test_scores)
    rows = []
    for row in inputs.ranking:
        figures = test.get(row["name"])
        named = inputs.trunks and not row["changes"]
        paper = named and paper_tables.find(row["backbone"], inputs.config.patches.set, row["top_layers"])
        member = row["name"] in inputs.ensemble.names
        rows.append(
            pages.cells(
                row["kind"],
                row["backbone"],
                inputs.written(row).replace(",", ",\n"),
                f"{row['parameters'] / 1e6:.2f} M",
                pages.NONE if row["epoch_seconds"] is None else f"{row['epoch_seconds']:.1f} s",
                pages.NONE if row["memory_gib"] is None else f"{row['memory_gib']:.1f} GiB",
                f"{row['val_auc']:.3f}",
                row["best_epoch"],
                *(_aucs(figures) if figures else [pages.NONE, pages.NONE]),
                *([f"{paper.auc:.2f}", _two_digits(paper.auc_tta)] if paper else [pages.NONE, pages.NONE]),
                tag="member" if member else "",
            )
        )
    ours = ensembles.summarise(inputs.test_ensemble)[ENSEMBLE]
    members = f"mean of {len(inputs.ensemble.members)}"
    rows.append(
        pages.cells(
            "Ensemble",
            members,
            *[""] * 6,
            *_aucs(ours),
            pages.NONE,
            f"{paper_tables.ENSEMBLE_AUC:.2f}" if inputs.trunks else pages.NONE,
            strong=True,
        )
    )
    columns = [
        "kind",
        "trunk",
        "top layers",
        "weights",
        "an epoch",
        "memory",
        "val AUC",
        "epoch",
        "test AUC",
        "test A-AUC (95%)",
    ]
    classes = ["nowrap", "nowrap", "lines", *["n"] * 7, "n paper", "n paper"]
    caption = (
        "Whole-image classifiers, best validation first; those without test figures did not go on to stage 2, whose "
        "epochs and memory are given"
    )
    return pages.table(caption, [*columns, "paper AUC", "paper A-AUC"], classes, rows)


def _paper() -> dict[str, Any]:
    rows = [
        pages.cells(
            row.table,
            row.backbone,
            row.patch_set,
            row.top_layers,
            f"{row.auc:.2f}",
            _two_digits(row.auc_tta),
            row.epoch,
        )
        for row in paper_tables.ROWS
    ]
    columns = ["table", "trunk", "patches", "top layers", "AUC", "A-AUC", "epoch"]
    classes = ["", "nowrap", "", "nowrap", "n", "n", "n"]
    return pages.table("Test figures as published, CBIS-DDSM", columns, classes, rows, ours=False)


def _ensemble(inputs: ReportInputs) -> dict[str, Any]:
    chosen = inputs.ensemble
    test = ensembles.summarise(inputs.test_ensemble)[ENSEMBLE]
    point = ensembles.performance(inputs.test_scores, chosen)
    paper, there = paper_tables, bool(inputs.trunks)  # of models trained on from others it has other figures
    rows = [
        pages.cells(
            "A-AUC",
            _interval(chosen.val_auc, *chosen.val_ci95),
            _interval(test["auc_tta"], *test["ci95_tta"]),
            f"{paper.ENSEMBLE_AUC:.2f}" if there else pages.NONE,
        ),
        pages.cells(
            "sensitivity",
            f"{chosen.val_sensitivity:.3f}",
            _proportion(point.sensitivity),
            f"{paper.ENSEMBLE_SENSITIVITY:.3f}" if there else pages.NONE,
        ),
        pages.cells(
            "specificity",
            f"{chosen.val_specificity:.3f}",
            _proportion(point.specificity),
            f"{paper.ENSEMBLE_SPECIFICITY:.3f}" if there else pages.NONE,
        ),
        pages.cells("cut-off", f"{chosen.cutoff:.4f}", "as chosen on validation", pages.NONE),
        pages.cells("films", pages.count(chosen.val_images), pages.count(test["images"]), pages.NONE),
    ]
    columns = ["figure", "validation (chosen on)", "test", "paper (chosen on test)"]
    return pages.table("The ensemble and its operating point", columns, ["", "nowrap", "nowrap", "n paper"], rows)


def _refused(inputs: ReportInputs) -> list[quarantine.Refused]:
    return quarantine.read((inputs.images, inputs.patches), inputs.config.source)


def _artefacts(inputs: ReportInputs) -> dict[str, Any]:
    found = [inputs.images, inputs.patches, *inputs.trunks.values(), inputs.search]
    rows = [pages.cells(item.stage, item.name, item.fingerprint) for item in found]
    classes = ["", "nowrap", "nowrap"]
    return pages.table("Artefacts of the lake that this report shows", ["stage", "name", "fingerprint"], classes, rows)


def _aucs(figures: dict[str, Any]) -> list[str]:
    low, high = figures["ci95_tta"]
    return [f"{figures['auc']:.3f}", f"{figures['auc_tta']:.3f} ({low:.2f}–{high:.2f})"]


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _proportion(share: Proportion) -> str:
    return f"{_interval(share.value, share.low, share.high)}, {share.hits} of {share.of}"


def _two_digits(value: float | None) -> str:
    return pages.NONE if value is None else f"{value:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
