"""A registered ensemble on another data set: as registered, recalibrated, and trained on with ever larger samples.

The paper's Table 4 with intervals, and beside it what each ensemble reaches on the other's test images. Every size is a
run of the pipeline of its own, so a rerun does what is missing; the test images are the same at every size.
"""

from dataclasses import replace

import pyarrow as pa

from mammoflow import lake
from mammoflow.config import Config
from mammoflow.ensemble import ensemble as ensembles
from mammoflow.ensemble import evaluation, performance
from mammoflow.ensemble.ensemble import Ensemble
from mammoflow.ensemble.split_door import open_scores
from mammoflow.errors import ConfigError
from mammoflow.facts import codec
from mammoflow.facts.published import MatrixCell, Transfer, TransferRow
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact, Lake
from mammoflow.pipeline import build, outcome, stages
from mammoflow.pipeline.graph import Artefacts
from mammoflow.registry import starting_points


def run(config: Config) -> Artefact:
    """Do all sizes of `config.transfer`, and gather the figures.

    Args:
        config: of the new data, with `start`, a registered ensemble.

    Returns:
        The artefact whose `stages.FIGURES` holds a `Transfer`.

    Raises:
        ConfigError: no sizes, or no registered ensemble.
        MammoflowError: as in `pipeline.ensure`.
    """
    if not config.transfer:
        raise ConfigError("transfer is empty; give the numbers of patients to train on, such as --transfer 20 40 72")
    whole = replace(config, splits=replace(config.splits, patients=None), transfer=())
    before = build.ensure("external", whole)
    config = replace(config, start=before.config.start)  # one version, whatever is promoted meanwhile
    runs = {patients: build.ensure("evaluation", _of(config, patients)) for patients in sorted({*config.transfer})}
    scored = before.one("external")
    made = [sized.evaluation for sized in runs.values()]
    out = before.lake.artefact(stages.TRANSFER, config.name, scored, *made)
    if not out.done:
        largest = runs[max(runs)]
        chosen = outcome.load_ensemble(largest)
        figures = Transfer(
            model=str(config.start),
            site=outcome.transferred(before),
            rows=(_untouched(scored, before), *(_row(patients, sized) for patients, sized in runs.items())),
            matrix=_matrix(before, largest, out),
            curves=performance.roc_curves(open_scores(largest.evaluation, "test", chosen), chosen),
        )
        lake.write_bytes(out.file(stages.FIGURES), codec.to_json(figures))
        out.finish({"sizes": [*runs]}, [scored, *made])
        lake.remove(out.file("work"))
    return out


def _of(config: Config, patients: int) -> Config:
    return replace(config, splits=replace(config.splits, patients=patients), transfer=())


def _untouched(scored: Artefact, before: Artefacts) -> TransferRow:
    """Return the row of the ensemble as registered, trained on no patient here."""
    chosen = before.begun[1].ensemble
    return _reached(open_scores(scored, "test", chosen), chosen, patients=0, images=0, malignant=0)


def _row(patients: int, done: Artefacts) -> TransferRow:
    films, chosen = done.images.facts(ImagesFacts), outcome.load_ensemble(done)
    images, malignant = (
        sum(counts.get(split, 0) for split in ("train", "val")) for counts in (films.images, films.malignant)
    )
    test = open_scores(done.evaluation, "test", chosen)
    return _reached(test, chosen, patients=patients, images=images, malignant=malignant)


def _reached(test: pa.Table, chosen: Ensemble, *, patients: int, images: int, malignant: int) -> TransferRow:
    return TransferRow(
        patients=patients,
        images=images,
        malignant=malignant,
        members=ensembles.summarise(test),
        ensemble=ensembles.summarise_ensemble(test, chosen),
    )


def _matrix(before: Artefacts, after: Artefacts, out: Artefact) -> tuple[MatrixCell, ...]:
    """Return what the ensemble begun from and the one trained on reach, each on both data sets' test images."""
    (begun, about), ours = before.begun, outcome.load_ensemble(after)
    scored = before.one("external")
    here = [("begun from", scored, about.ensemble), ("trained on", after.evaluation, ours)]
    cells = [_cell(name, "this site", open_scores(artefact, "test", chosen), chosen) for name, artefact, chosen in here]
    origin = _origin(before.lake, about.card.data.images)
    if origin is None:
        print("  the data that the ensemble comes from are not in this lake: it is not scored on them", flush=True)
        return tuple(cells)
    compute = before.config.compute
    folders = {name: after.search.file("candidates", name, "best") for name in ours.names}
    for name, models, chosen in (
        ("begun from", starting_points.fetch(begun, out), about.ensemble),
        ("trained on", folders, ours),
    ):
        members = {member: models[member] for member in chosen.names}
        test = evaluation.score_split(members, origin, "test", compute, ensemble=chosen)
        cells.append(_cell(name, "where it began", test, chosen))
    return tuple(cells)


def _cell(model: str, data: str, test: pa.Table, chosen: Ensemble) -> MatrixCell:
    return MatrixCell(model=model, data=data, score=ensembles.summarise_ensemble(test, chosen))


def _origin(root: Lake, fingerprint: str) -> Artefact | None:
    """Return the images of that fingerprint, where the lake holds them."""
    return next((item for item in lake.list_complete(root, "images") if item.fingerprint == fingerprint), None)
