"""The page that shows what ingest made, to be looked at before anything is trained: one HTML file that opens offline.

Counts, distributions, films of every data set of the lake beside each other (the paper's figure 4), the contact sheet,
the patches that show least of their lesion, and what could not be used. qc.html lays it out. No Ray, no MLflow.

Shape letters: N images, H W rows and columns of an image [px].
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import mammoflow
from mammoflow import lake
from mammoflow.config import Config
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact
from mammoflow.lake.schema import BENIGN, MALIGNANT, SPLITS, pixels_of
from mammoflow.rendering import figures, formats, marks, pages, pictures
from mammoflow.rendering.pages import Card
from mammoflow.rendering.tables import Column, Table, numbers, table, texts
from mammoflow.rendering.tables import Row as TableRow
from mammoflow.reports import contact_sheet, data_sets, quarantine

FILE = "qc.html"
UNKNOWN = "unknown"
_SHOWN = 50  # rows of quarantine
_WORST = 12  # patches
_EXAMPLES = 4  # films of each data set
_DENSITY = {1: "A, almost fatty", 2: "B, scattered", 3: "C, heterogeneous", 4: "D, extremely dense"}
_LABEL = {BENIGN: "benign or negative", MALIGNANT: "malignant"}
_ABOUT = ["image_id", "patient_id", "split", "label", "view", "density", "vendor", "source_height", "source_width"]
_CUT = ["image_id", "label", "lesion_id", "row", "column", "overlap", "below_min"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QcInputs:
    """What the page is made from: the tables without pixels, and where the pixels lie."""

    config: Config
    """The data's settings."""
    images: Artefact
    """Decoded images, complete."""
    patches: Artefact
    """Cut from them; need not be marked complete yet."""
    films: list[Row]
    """Rows of schema.images without pixels and lesions, with `shard`: the URL of the file that holds each."""
    cut: pa.Table
    """schema.patches without pixels, all splits."""

    @property
    def mark(self) -> str:
        """Return the mark of its images: of phantoms, that they are; else empty."""
        return marks.mark_of(self.images)


def write(config: Config, images: Artefact, patches: Artefact) -> str:
    """Write the page into the patches' folder, beside the contact sheet, and return where it lies.

    Args:
        config: the data's settings.
        images: complete.
        patches: cut from them, with their contact sheet and quarantine.

    Raises:
        LakeError: an artefact is incomplete, or the page can't be written.
    """
    inputs = QcInputs(config=config, images=images, patches=patches, films=_films(images), cut=_cut(patches))
    url = patches.file(FILE)
    lake.write_bytes(url, pages.render("qc.html", context(inputs)))
    return url


def context(inputs: QcInputs) -> dict[str, Any]:
    """Return what the template shows."""
    config, sets = inputs.config, data_sets.beside(inputs.images)
    refused = quarantine.read((inputs.images, inputs.patches), config.source)
    return {
        "name": inputs.images.name,
        "subtitle": f"What ingest made of {config.source or 'phantoms drawn by mammoflow'}: films at "
        f"{config.images.height} x {config.images.width} px, patches {config.patches.set} of {config.patches.side} px.",
        "mark": inputs.mark,
        "cards": _cards(inputs),
        "counts": _counts(inputs),
        "sizes": _sizes(inputs),
        "data_sets": _compared(inputs, sets),
        "intensity": data_sets.intensity(inputs.images, sets),
        "examples": [picture for item in sets if (picture := _examples(item))],
        "sheet": _sheet(inputs),
        "patch_text": _patch_text(inputs),
        "worst": _worst(inputs),
        "quarantine": quarantine.shown(refused, _SHOWN),
        "quarantine_text": quarantine.text(refused, _SHOWN),
        "version": mammoflow.__version__,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
    }


def _films(images: Artefact) -> list[Row]:
    return [
        row | {"shard": shard}
        for shard in lake.iter_shards(images)
        for row in lake.read_table(shard, _ABOUT).to_pylist()
    ]


def _cut(patches: Artefact) -> pa.Table:
    return lake.read_table(patches.file("shards"), _CUT)


def _cards(inputs: QcInputs) -> list[Card]:
    """Return the headline figures."""
    films, left_out = inputs.films, inputs.images.facts(ImagesFacts).quarantined
    malignant = sum(row["label"] == MALIGNANT for row in films)
    patients = len({row["patient_id"] for row in films})
    lesions, below = _below_min(inputs)
    count = formats.count
    return [
        Card(what="Films", value=count(len(films)), more=f"of {count(patients)} patients"),
        Card(what="Malignant", value=formats.share(malignant, len(films)), more=f"{count(malignant)} films"),
        Card(what="Patches", value=count(inputs.cut.num_rows), more=f"{count(lesions)} around lesions"),
        Card(what="Too little of the lesion", value=count(below), more="patches below the least overlap"),
        Card(what="Left out", value=count(left_out), more="films, see quarantine"),
    ]


def _below_min(inputs: QcInputs) -> tuple[int, int]:
    """Return how many patches lie around lesions, and how many of them show too little of theirs."""
    of_lesions = inputs.cut.filter(pc.greater(inputs.cut["label"], 0))
    return of_lesions.num_rows, int(pc.sum(of_lesions["below_min"]).as_py() or 0)


def _counts(inputs: QcInputs) -> list[Table]:
    """Return a table of films by split for each of their properties."""
    properties: tuple[tuple[str, dict[int, str]], ...] = (
        ("label", _LABEL),
        ("view", {}),
        ("density", _DENSITY),
        ("vendor", {}),
    )
    return [_counted(inputs.films, column, words) for column, words in properties]


def _counted(films: list[Row], title: str, words: dict[int, str]) -> Table:
    """Return how many films of each split have each value; unknown ones last."""
    counts = Counter((row.get(title), row["split"]) for row in films)
    values = sorted({value for value, _ in counts}, key=lambda value: (value is None, value))
    rows = []
    for value in values:
        by_split = [counts[value, split] for split in SPLITS]
        word = UNKNOWN if value is None else str(words.get(value, value))
        rows.append(TableRow(cells=(word, *by_split, formats.share(sum(by_split), len(films)))))
    splits = Counter(row["split"] for row in films)
    rows.append(TableRow(cells=("all", *(splits[split] for split in SPLITS), ""), strong=True))
    return table(f"Films by {title}", [*texts(title), *numbers(*SPLITS, "share")], rows)


def _sizes(inputs: QcInputs) -> dict[str, str]:
    """Return how tall and wide the films were as files."""
    sides = {
        name: np.array([row[f"source_{side}"] for row in inputs.films])
        for name, side in (("rows", "height"), ("columns", "width"))
    }
    both = np.concatenate([*sides.values()])
    edges = np.histogram_bin_edges(both, bins=30)
    parts = [
        figures.Histogram(name=name, heights=np.histogram(side, edges)[0].astype(float), edges=edges, colour=colour)
        for (name, side), colour in zip(sides.items(), figures.COLOURS, strict=False)
    ]
    ranges = "; ".join(f"{name} {_range(side)} px" for name, side in sides.items())
    drawn = figures.histogram("Size of the files", parts, ("pixels", "films"), inputs.mark, log=False)
    return pages.picture(
        drawn, "svg+xml", f"Histogram of the films' rows and columns: {ranges}", f"{ranges.capitalize()}."
    )


def _range(values: Any) -> str:
    return f"{values.min():,}" if values.min() == values.max() else f"{values.min():,} to {values.max():,}"


def _compared(inputs: QcInputs, sets: list[Artefact]) -> Table:
    """Return a row of figures for each data set."""
    rows = []
    for item in sets:
        facts = item.facts(ImagesFacts)
        films, malignant = sum(facts.images.values()), sum(facts.malignant.values())
        counts = np.array(facts.histogram)
        middle = None if not counts[1:].any() else int(np.searchsorted(np.cumsum(counts[1:]), counts[1:].sum() / 2)) + 1
        tag = "this page" if item.url == inputs.images.url else ""
        shares = formats.share(malignant, films), formats.share(counts[0], counts.sum())
        rows.append(TableRow(cells=(data_sets.title(item), films, *shares, middle), tag=tag))
    columns = [Column(name="data set", kind="path"), *numbers("films", "malignant", "pixels at 0")]
    return table("Data sets of this lake", [*columns, *numbers("median grey of the others")], rows, ours=False)


def _examples(item: Artefact) -> dict[str, str] | None:
    """Return the first films of a data set, malignant and benign in turn."""
    shard = next((url for split in SPLITS for url in lake.iter_shards(item, split)), None)
    if shard is None:
        return None
    rows = lake.read_table(shard, ["label", "laterality", "view"]).to_pylist()
    seen: Counter[int] = Counter()
    order = []
    for index, row in enumerate(rows):
        seen[row["label"]] += 1
        order.append((seen[row["label"]], -row["label"], index))
    chosen = [index for _, _, index in sorted(order)[:_EXAMPLES]]
    films = [
        pictures.Framed(
            pixels=pixels_HW,
            lesions=[],
            frames=[],
            caption=f"{_LABEL[rows[index]['label']]}, {rows[index]['laterality']} {rows[index]['view']}",
        )
        for index, pixels_HW in zip(chosen, pixels_of(lake.read_table(shard, ["pixels"]).take(chosen)), strict=True)
    ]
    drawn = pictures.contact_sheet(films, _EXAMPLES, marks.mark_of(item))
    return pages.picture(
        drawn,
        "jpeg",
        f"{len(films)} films of {data_sets.title(item)}",
        f"{data_sets.title(item)}.",
        marks.mark_of(item),
    )


def _sheet(inputs: QcInputs) -> dict[str, str]:
    data = lake.read_bytes(inputs.patches.file(contact_sheet.FILE))
    caption = (
        "Outlined: malignant lesions red, benign ones blue. Framed: patches of lesions yellow, of background green."
    )
    return pages.picture(
        data, "jpeg", "Films of each split with outlined lesions and the frames of their patches", caption
    )


def _patch_text(inputs: QcInputs) -> str:
    lesions, below = _below_min(inputs)
    least = inputs.config.patches.min_overlap
    return (
        f"Overlap is the part of a lesion that its patch shows, or of the patch that the lesion fills. Of {lesions:,} "
        f"patches around lesions {below:,} lie below the least asked for, {least:.0%}. Look here for outlines that "
        "don't fit their film."
    )


def _worst(inputs: QcInputs) -> list[dict[str, str]]:
    """Return close-ups of the patches that show least of their lesion, one a lesion."""
    cut = inputs.cut.filter(pc.greater(inputs.cut["label"], 0)).sort_by("overlap")
    chosen: dict[tuple[str, str], Row] = {}
    for start in range(0, cut.num_rows, 1000):
        for patch in cut.slice(start, 1000).to_pylist():
            if len(chosen) < _WORST:
                chosen.setdefault((patch["image_id"], patch["lesion_id"]), patch)
        if len(chosen) == _WORST:
            break
    shards = {row["image_id"]: row["shard"] for row in inputs.films}
    return [_closeup(inputs, patch, shards[patch["image_id"]]) for patch in chosen.values()]


def _closeup(inputs: QcInputs, patch: Row, shard: str) -> dict[str, str]:
    """Draw one patch on its film."""
    index = pc.index(lake.read_table(shard, ["image_id"])["image_id"], patch["image_id"]).as_py()
    film = lake.read_table(shard, ["lesions", "pixels"]).slice(index, 1)
    lesions = pictures.lesions_of(film.drop_columns("pixels").to_pylist()[0])
    frame = pictures.Frame(row=patch["row"], column=patch["column"], side=inputs.config.patches.side, background=False)
    drawn = pictures.closeup(pixels_of(film)[0], lesions, frame)
    below = f", below {inputs.config.patches.min_overlap:.0%}" if patch["below_min"] else ""
    shown = f"{patch['overlap']:.0%}{below}"
    kind = inputs.config.patches.classes[patch["label"]].replace("_", " ")
    name = patch["lesion_id"] or patch["image_id"]
    return pages.picture(drawn, "jpeg", f"Patch of {name}, overlap {shown}", f"Overlap {shown}. {kind}, {name}.")
