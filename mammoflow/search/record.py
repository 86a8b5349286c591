"""What a search leaves behind while it runs and at its end: MLflow runs, and a row for each candidate.

One parent run a search, one child a candidate. Runs go on where an interrupted start left them.
"""

from collections.abc import Mapping, Sequence

from mammoflow import lake, tracking
from mammoflow.config import Config
from mammoflow.data import splits
from mammoflow.facts.stages import RankingRow
from mammoflow.facts.training import CandidateResult
from mammoflow.models.model_files import WEIGHTS_FILE
from mammoflow.rendering import marks
from mammoflow.search.bank_job import BankJob
from mammoflow.search.candidates import Candidate
from mammoflow.tracking import PLACE_TAG, WEIGHTS_TAG, Tracker
from mammoflow.training import trials
from mammoflow.training.loop import Figures


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
            "phantoms": str(marks.is_phantoms(images)),
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

    def epoch(self, figures: Figures) -> None:
        """Log one epoch of each candidate of a pack."""
        for name, row in figures.items():
            self._tracker.log(self.runs[name], row.metrics(), step=row.epoch)

    def end(self, candidate: Candidate, state: str, status: str = "FINISHED") -> None:
        """Close a candidate's run, and say how it ended.

        Epochs that were trained while the driver or a node was down are logged now.
        """
        run_id = self.runs[candidate.name]
        if epochs := candidate.history(self._out):
            trials.log_missed(self._tracker, run_id, epochs)
        if result := candidate.read_result(self._out):
            self._tracker.log(run_id, {tracking.BEST_METRIC: result.val_auc}, step=result.best_epoch)
        self._tracker.mark(run_id, state, status)

    def row(self, candidate: Candidate, result: CandidateResult, *, survived: bool) -> RankingRow:
        """Return a candidate's row of the ranking."""
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
            val_auc=result.val_auc,
            stage1_val_auc=result.stage1_val_auc,
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            parameters=result.parameters,
            gflops=result.gflops,
            epoch_seconds=result.epoch_seconds,
            memory_gib=result.memory_gib,
            run_id=self.runs[candidate.name],
            survived=survived,
        )
