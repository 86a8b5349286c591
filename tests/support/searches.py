"""Searches of top layers built in the test's own process, and held against one that nobody disturbed."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from mammoflow import cli, lake
from mammoflow.facts.stages import SearchFacts
from mammoflow.lake import Artefact
from mammoflow.pipeline import build

SCRIPT = "jobs/tune_top_layers.py"
FIGURES = ("name", "val_auc", "stage1_val_auc", "best_epoch", "epochs", "survived")
CURVES = ("epoch", "stage", "lr", "loss", "val_loss", "val_auc")


def ensure(stage: str, words: list[str], folder: Path) -> Artefact:
    """Build a stage in this process, and return it."""
    config = cli.parse(None, [*words[1:], "--lake", str(folder)])
    return build.ensure(stage, config).of(stage)[0]


def finished(search: Artefact) -> dict[str, int]:
    """Return the epochs of each candidate at its end."""
    return {row.name: row.epochs for row in search.facts(SearchFacts).ranking}


def curves(search: Artefact) -> dict[str, list[list[Any]]]:
    """Return what each candidate's epochs say, but for times."""
    return {
        name: [[row[key] for key in CURVES] for row in lake.read_json(search.file("candidates", name, "history.json"))]
        for name in finished(search)
    }


def runs(folder: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("top-layers")
    return client, list(client.search_runs([experiment.experiment_id], max_results=1000))


def check(folder: Path, search: Artefact, expected: Artefact) -> None:
    """Hold a killed search against the undisturbed one: ranking, epochs, runs."""
    found, wanted = (
        [[getattr(row, key) for key in FIGURES] for row in one.facts(SearchFacts).ranking] for one in (search, expected)
    )
    assert found == wanted
    assert search.facts(SearchFacts).failed == {}
    assert curves(search) == curves(expected), "each epoch once, with the same figures"
    client, opened = runs(folder)
    assert len(opened) == len(found) + 1, "one for each candidate and the parent's"
    assert {run.info.status for run in opened} == {"FINISHED"}
    ids = {run.info.run_id: run for run in opened}
    last = max(row.epochs for row in search.facts(SearchFacts).ranking)
    for row in search.facts(SearchFacts).ranking:
        run = ids[row.run_id]
        state = "finished" if row.epochs == last else f"pruned at epoch {row.epochs}"
        assert (run.info.run_name, run.data.tags["state"]) == (row.name, state)
        logged = [(point.step, point.value) for point in client.get_metric_history(row.run_id, "val_auc")]
        history = lake.read_json(search.file("candidates", row.name, "history.json"))
        assert sorted(logged) == [(epoch["epoch"], epoch["val_auc"]) for epoch in history], "each epoch once"
