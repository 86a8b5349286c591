"""What training reports: a row for each epoch of each model, and how far a candidate came."""

from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How a model does on the validation split after an epoch."""

    val_loss: float
    """Mean cross-entropy."""
    val_auc: float | None = None
    """AUC of the plain score [0-1]; whole-image classifiers only."""
    val_accuracy: float | None = None
    """[0-1]; patch classifiers only."""
    val_balanced_accuracy: float | None = None
    """Mean recall of the classes that are present [0-1]; patch classifiers only."""
    val_recalls: dict[str, float] = field(default_factory=dict)
    """Recall of each class that is present [0-1]; patch classifiers only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFigures:
    """One epoch of one model: a row of `history.json`. What is measured after training is None until then."""

    epoch: int
    """From 1, over all stages of training."""
    epochs: int
    """Epochs scheduled over all stages of training."""
    stage: int
    """Stage of training, from 1."""
    lr: float
    """Learning rate."""
    loss: float
    """Mean cross-entropy of the augmented rows without class weights, to compare with `val_loss`."""
    images_per_s: float
    """Over all workers."""
    data_wait: float
    """Share of the time that the first worker waited for data [0-1]."""
    val_loss: float | None = None
    val_auc: float | None = None
    val_accuracy: float | None = None
    val_balanced_accuracy: float | None = None
    val_recalls: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    """Duration, validation included [s]."""
    memory_gib: float | None = None
    """Peak of a worker so far [GiB]."""

    def judged(self, validation: Validation, *, seconds: float, memory_gib: float) -> "EpochFigures":
        """Return the row with the results of its validation."""
        return replace(self, **asdict(validation), seconds=seconds, memory_gib=memory_gib)

    def metrics(self) -> dict[str, float]:
        """Return the numbers that MLflow charts."""
        values = {name: getattr(self, name) for name in METRICS}
        return {name: float(value) for name, value in values.items() if value is not None}


METRICS = (
    *("loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc", "lr"),
    *("images_per_s", "data_wait", "seconds", "memory_gib"),
)
"""Fields of `EpochFigures` that are logged as metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """How far a candidate of a search came: its `result.json`."""

    stages: int
    """Stages of training that it completed."""
    epochs: int
    """Epochs trained, over both stages."""
    val_auc: float
    """Best validation AUC [0-1]; .5 without an epoch."""
    best_epoch: int
    """From 1, over both stages; 0 without an epoch."""
    stage1_val_auc: float
    """Best of stage 1; .5 without an epoch."""
    parameters: int
    """Weights, the trunk's included."""
    gflops: float
    """Operations of a forward pass of one image [GFLOP]."""
    epoch_seconds: float | None
    """Median of an epoch of stage 2 [s]; in stage 1 it shares its pack's time."""
    memory_gib: float | None
    """Peak of a worker in stage 2 [GiB]."""
