"""What a search leaves behind while it runs and at its end: MLflow runs, and a row for each candidate.

One parent run a search, one child a candidate. Runs go on where an interrupted start left them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mammoflow import lake, tracking
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.facts.stages import RankingRow
from mammoflow.models.model_files import WEIGHTS_FILE
from mammoflow.search.bank_job import BankJob
from mammoflow.search.bank_run import of_candidate
from mammoflow.search.candidates import Candidate
from mammoflow.tracking import PLACE_TAG, WEIGHTS_TAG, Tracker
from mammoflow.training import trials

_OF_RESULT = (
    *("val_auc", "stage1_val_auc", "best_epoch", "epochs"),
    *("parameters", "gflops", "epoch_seconds", "memory_gib"),
)
"""What a row of the ranking takes over from a candidate's result."""


class SearchRecord:
    """The MLflow runs of a search."""

    def __init__(
        self, tracker: Tracker, config: Config, trunks: Sequence[BankJob], trunk_runs: Mapping[str, str]
    ) -> None:
        """Open the parent's run.

        Args:
            tracker: of the experiment.
            config: of the search.
            trunks: the stage-1 job of each trunk.
            trunk_runs: backbone -> MLflow run of its patch classifier.
        """
        self.runs: dict[str, str] = {}
        """Candidate name -> run id, and the parent's under an empty name."""
        self._tracker, self._config, self._trunk_runs = tracker, config, trunk_runs
        images, self._out = trunks[0].images, trunks[0].out
        self._shared = {"recipe": config.name, "seed": config.seed, **splits.same_data(images)}
        self._shared["precision"] = config.image_training.precision
        self._tags = {
            "artefact": self._out.fingerprint,
            "phantoms": str(config.source is None),
            PLACE_TAG: self._out.url,
        }
        training = {"image_training": lake.science(config.image_training), "search": lake.science(config.search)}
        record = self._out.file("work", "runs", "parent.json")
        self.runs[""] = tracker.reopen(record, config.name, params=self._shared | training, tags=self._tags)

    def open(self, trunk: BankJob, candidates: Sequence[Candidate]) -> None:
        """Open the runs of a trunk's candidates."""
        first, second = self._config.image_training.stages
        for c in candidates:
            one, two = c.changes.of(first), c.changes.of(second)
            own = {"backbone": c.backbone, "top_layers": str(c.top_layers), "kind": c.kind}
            changed = {"changes": c.changes.words(), "lr_stage1": one.lr, "lr_stage2": two.lr, "dropout": one.dropout}
            decays = {"weight_decay_stage1": one.weight_decay, "weight_decay_stage2": two.weight_decay}
            named = {WEIGHTS_TAG: c.folder(self._out, "best", WEIGHTS_FILE), "start": trunk.start}
            if c.backbone in self._trunk_runs:
                named["trunk_run"] = self._trunk_runs[c.backbone]
            self.runs[c.name] = self._tracker.reopen(
                self._out.file("work", "runs", f"{c.name}.json"),
                c.name,
                parent=self.runs[""],
                params=self._shared | own | changed | decays,
                tags=self._tags | own | named,
            )

    def close_others(self) -> None:
        """Close what earlier starts of this search left open and this one does not go on with."""
        self._tracker.close_others(self._out.url, self.runs.values())

    def epoch(self, figures: Mapping[str, Any]) -> None:
        """Log one epoch of each candidate of a pack."""
        for name in figures["val_auc"]:
            own = trials.numbers(of_candidate(figures, name))
            self._tracker.log(self.runs[name], own, step=int(figures["epoch"]))

    def end(self, candidate: Candidate, state: str, status: str = "FINISHED") -> None:
        """Close a candidate's run, and say how it ended.

        Epochs that were trained as a driver or a node was lost, and of which no driver heard, are logged now.
        """
        run_id, history = self.runs[candidate.name], candidate.folder(self._out, "history.json")
        if lake.exists(history):
            trials.log_missed(self._tracker, run_id, lake.read_json(history))
        if lake.exists(candidate.result(self._out)):
            result = lake.read_json(candidate.result(self._out))
            self._tracker.log(run_id, {tracking.BEST_METRIC: result["val_auc"]}, step=result["best_epoch"])
        self._tracker.mark(run_id, state, status)

    def row(self, candidate: Candidate, *, survived: bool) -> RankingRow:
        """Return a candidate's row of the ranking."""
        result = lake.read_json(candidate.result(self._out))
        stage = candidate.changes.of(self._config.image_training.stages[0])
        return RankingRow(
            name=candidate.name,
            backbone=candidate.backbone,
            top_layers=str(candidate.top_layers),
            kind=candidate.kind,
            changes=candidate.changes.words(),
            lr=stage.lr,
            weight_decay=stage.weight_decay,
            dropout=stage.dropout,
            **{name: result[name] for name in _OF_RESULT},
            run_id=self.runs[candidate.name],
            survived=survived,
        )
