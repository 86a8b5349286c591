"""Tables of what a run was made from: data, patches, patch classifiers, artefacts. No Ray, MLflow, torch."""

from collections.abc import Mapping, Sequence

from mammoflow.facts.stages import ImagesFacts, PatchAccuracy, PatchesFacts, TrunkFacts
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS
from mammoflow.rendering import formats
from mammoflow.rendering.formats import Value
from mammoflow.rendering.tables import Row, Table, names, numbers, table, texts


def data(images: ImagesFacts, patches: PatchesFacts) -> Table:
    """Return films, malignant films, patients and patches of each split."""
    counts: list[tuple[str, int, int, int, int]] = [
        (
            split,
            images.images.get(split, 0),
            images.malignant.get(split, 0),
            images.patients.get(split, 0),
            sum(patches.patches.get(split, {}).values()),
        )
        for split in SPLITS
    ]
    films, malignant, patients, cut = (sum(values) for values in zip(*(row[1:] for row in counts), strict=True))
    rows = [
        Row(cells=(name, films, malignant, formats.share(malignant, films), patients, cut), strong=name == "all")
        for name, films, malignant, patients, cut in [*counts, ("all", films, malignant, patients, cut)]
    ]
    columns = [*texts("split"), *numbers("films", "malignant", "share", "patients", "patches")]
    return table("Films, patients and patches of each split", columns, rows)


def patches(found: PatchesFacts, classes: Sequence[str]) -> Table:
    """Return patches of each class and split."""
    counts = found.patches
    rows = [Row(cells=(words(name), *(counts.get(split, {}).get(name, 0) for split in SPLITS))) for name in classes]
    rows.append(Row(cells=("all", *(sum(counts.get(split, {}).values()) for split in SPLITS)), strong=True))
    return table("Patches of each class and split", [*texts("class"), *numbers(*SPLITS)], rows)


def patch_accuracy(test: Mapping[str, PatchAccuracy], trunks: Mapping[str, Artefact]) -> Table:
    """Return how well each backbone's patch classifier names patches, on validation and test."""
    rows = []
    for name, figures in test.items():
        trained = trunks[name].facts(TrunkFacts)
        rows.append(
            (
                f"{name}, on mined patches" if trunks[name].stage == "retrained" else name,
                trained.val_accuracy,
                trained.best_epoch,
                figures.accuracy,
                figures.balanced_accuracy,
                figures.patches,
            )
        )
    columns = numbers("val accuracy", "best epoch", "test accuracy", "balanced", "test patches")
    return table("Accuracy of naming a patch's class", [*names("trunk"), *columns], rows)


def confusion(backbone: str, figures: PatchAccuracy, classes: Sequence[str]) -> Table:
    """Return which names a patch classifier gives to the test patches of each class."""
    rows: list[tuple[Value, ...]] = [
        (words(name), *(formats.share(count, sum(counts)) for count in counts), sum(counts))
        for name, counts in zip(classes, figures.confusion, strict=True)
    ]
    title = f"{backbone}: test patches of a class (row) by the name that they are given (column)"
    return table(title, [*names("true class"), *numbers(*map(words, classes), "patches")], rows)


def trunks(found: Mapping[str, TrunkFacts]) -> Table:
    """Return each patch classifier's validation accuracy."""
    rows: list[tuple[Value, ...]] = [
        (name, "untrained" if facts.best_epoch is None else facts.val_accuracy, facts.best_epoch, facts.run_id)
        for name, facts in found.items()
    ]
    columns = [*texts("trunk"), *numbers("accuracy", "best epoch"), *texts("MLflow run")]
    return table("Patch classifiers (validation)", columns, rows)


def artefacts(found: Sequence[Artefact]) -> Table:
    """Return where the figures come from."""
    rows = [(item.stage, item.name, item.fingerprint) for item in found]
    return table("Artefacts of the lake that this report shows", names("stage", "name", "fingerprint"), rows)


def words(name: str) -> str:
    """Return a class's name in words."""
    return name.replace("_", " ")
