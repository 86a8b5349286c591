"""What a report is written from, of a made lake, and its page as a test reads it."""

from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
from made_lake import BACKBONE

from mammoflow import lake
from mammoflow.config import EnsembleConfig
from mammoflow.ensemble import ensemble, selection, two_step
from mammoflow.facts.published import (
    CandidateFigures,
    MatrixCell,
    PatchRow,
    Reproduction,
    SiteRow,
    Transfer,
    TransferRow,
)
from mammoflow.facts.results import (
    Auc,
    Interval,
    Measure,
    OperatingPoint,
    Performance,
    Proportion,
    RocCurve,
    Score,
)
from mammoflow.facts.stages import PatchAccuracy, RegisteredFacts
from mammoflow.lake.schema import SCORES
from mammoflow.reports import paper_tables, report
from mammoflow.reports.inputs import Baseline


class Page(HTMLParser):
    """Collects what a browser would fetch or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.captions = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        assert tag not in {"script", "link", "iframe"}
        self.captions += tag == "figcaption"

    def handle_data(self, data):
        self.text += data


def scores(made, split, seed):
    """Scores of the finished candidates on a split, at random around the label."""
    rng = np.random.default_rng(seed)
    films = lake.read_table(made.images.file("shards")).drop_columns("pixels").to_pylist()
    rows = []
    for name in made.folders:
        for film in (film for film in films if film["split"] == split):
            score = float(np.clip(0.4 + 0.2 * film["label"] + rng.normal(0, 0.15), 0, 1))
            row = {key: film[key] for key in SCORES.names if key in film}
            rows.append(row | {"model": name, "score": score, "score_tta": score})
    return pa.Table.from_pylist(rows, schema=SCORES)


def facts(made):
    """Facts about the test films beside their scores."""
    films = lake.read_table(made.images.file("shards"), ["image_id", "split", "density", "vendor"]).to_pylist()
    rows = [{**film, "kinds": ["mass"] if n % 2 else []} for n, film in enumerate(films) if film.pop("split") == "test"]
    fields = [
        ("image_id", pa.string()),
        ("density", pa.int8()),
        ("vendor", pa.string()),
        ("kinds", pa.list_(pa.string())),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields)).sort_by("image_id")


def baseline(made):
    """A two-step baseline with scores of its own."""

    def table(split, seed):
        rows = ensemble.rows_of(scores(made, split, seed), next(iter(made.folders)))
        names = pa.array([two_step.NAME] * rows.num_rows)
        return rows.set_column(0, "model", names).cast(SCORES)

    choice = two_step.choose(table("val", 8), BACKBONE, EnsembleConfig())
    return Baseline(backbone=BACKBONE, choice=choice, test=table("test", 9))


INTERVAL = Interval(low=0.7, high=0.9)
AUC = Auc(value=0.8125, by_patient=INTERVAL, delong=Interval(low=0.6, high=0.95))
SCORE = Score(images=60, malignant=20, plain=AUC, flips=AUC)
SHARE = Proportion(value=0.5, interval=INTERVAL, hits=10, of=20)
REACHED = Performance(
    score=SCORE,
    at_cutoff=OperatingPoint(cutoff=0.5, sensitivity=SHARE, specificity=SHARE),
    calibration="isotonic",
    measures=(Measure(name="Brier score", value=0.2),),
)
TRANSFER = Transfer(
    model="models:/mammoflow/3",
    site=(SiteRow(cutoff_of="as registered", reached=REACHED),),
    rows=tuple(
        TransferRow(patients=n, images=4 * n, malignant=n, members={"one": SCORE}, ensemble=SCORE) for n in (0, 20)
    ),
    curves=tuple(
        RocCurve(name=name, false_positive=(0, 0.2, 1), true_positive=(0, 0.9, 1)) for name in ("one", "ensemble")
    ),
    matrix=(MatrixCell(model="begun from", data="this site", score=SCORE),),
)


def reproduction(made):
    """The paper's tables of patch classifiers, made of this run's own candidates."""
    (first, *_) = made.ranking
    row = paper_tables.PATCH_ROWS[1]
    accuracy = PatchAccuracy(accuracy=0.9, balanced_accuracy=0.8, confusion=[[1]], patches=1)
    return Reproduction(
        search=made.search.fingerprint,
        patch_classifiers=(
            PatchRow(
                backbone=row.backbone, weights=row.weights, patch_set="S1", test=accuracy, best_epoch=None, paper=row
            ),
        ),
        patch_set="S1",
        other_set=(CandidateFigures(ranked=first, test=SCORE, paper=None),),
    )


def inputs_of(made):
    val = scores(made, "val", 1)
    by_rule = selection.choose_each(val, made.ranking, EnsembleConfig())
    accuracy = PatchAccuracy(accuracy=0.5, balanced_accuracy=0.4, confusion=np.eye(5, dtype=int).tolist(), patches=5)
    return report.ReportInputs(
        config=made.config,
        images=made.images,
        patches=made.patches,
        trunks={BACKBONE: made.trunk},
        search=made.search,
        test_scores=scores(made, "test", 2),
        ensemble=by_rule["best_of_kinds"],
        ensembles=by_rule,
        singles=selection.choose_singles(val, made.ranking, EnsembleConfig()),
        folders=made.folders,
        image_facts=facts(made),
        baseline=baseline(made),
        transfer=TRANSFER,
        reproduction=reproduction(made),
        registered=RegisteredFacts(tracking_uri="sqlite:///mlflow.db", name="mammoflow", version="3"),
        patch_accuracy={BACKBONE: accuracy},
        seconds={"images": 12.0, "search": 100.5},
    )
