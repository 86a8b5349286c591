"""Facts of each stage, which its artefact's `done.json` holds for later stages and the report.

Fields with a default were added later: artefacts made before them are read with that default.
"""

from dataclasses import dataclass, field

Counts = dict[str, int]
"""A count for each split, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomsFacts:
    """Facts of the stage `phantoms`."""

    patients: int
    files: int
    bytes: int
    """Total size of the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesFacts:
    """Facts of the stage `images`."""

    images: Counts
    """Decoded images."""
    malignant: Counts
    """Malignant images."""
    patients: Counts
    """Patients with images."""
    mean_grey: float | None
    """Mean grey value of the training images [0-255]; None without any."""
    histogram: list[int] = field(default_factory=list)
    """Pixels of all images in 256 grey-level bins of equal width."""
    quarantined: int
    """Images left out."""
    outlines_missing: int
    """Lesions without a usable outline."""
    duplicates: int = 0
    """Images with the pixels of another film; both are used."""
    left_out: str | None = None
    """Fingerprint of what could not be used; None where everything could."""
    source: Counts = field(default_factory=dict)
    """Counts from the release's metadata, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchesFacts:
    """Facts of the stage `patches`."""

    patches: dict[str, Counts]
    """Split -> class -> patches."""
    below_min: int
    """Patches below the least overlap or tissue, where no position reached it."""
    unverified: int
    """Background patches that may show a lesion without an outline; not used for training."""
    quarantined: int
    """Images without patches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkFacts:
    """Facts of a trained patch classifier: the stages `trunks` and `retrained`."""

    val_accuracy: float | None
    """Validation accuracy of the best epoch [0-1]; None for a trunk that is only initialised."""
    best_epoch: int | None
    """From 1; None for a trunk that is only initialised."""
    epochs: int
    """Epochs trained."""
    run_id: str
    """Id of its MLflow run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedFacts:
    """Facts of the stage `mined`: training patches, a share of them hard examples."""

    patches: int
    mined: int
    """Patches that were replaced by hard examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRow:
    """A candidate of a finished search."""

    name: str
    backbone: str
    top_layers: str
    """Its spec, e.g. `256x1,128x1`."""
    kind: str
    """Trunk family - top family, e.g. Resnet-VGG."""
    changes: str
    """Changes to the config's training, as written; empty if none."""
    lr: float
    """Stage-1 learning rate."""
    weight_decay: float
    """Of stage 1."""
    dropout: float
    """Of stage 1."""
    val_auc: float
    """Best validation AUC of the plain score [0-1]."""
    stage1_val_auc: float | None
    """Best of stage 1 alone."""
    best_epoch: int
    """Over both stages, from 1."""
    epochs: int
    """Epochs trained, over both stages."""
    parameters: int
    """Weights, the trunk's included."""
    gflops: float
    """Operations of a forward pass of one image [GFLOP]."""
    epoch_seconds: float | None
    """Median of an epoch of stage 2 [s]."""
    memory_gib: float | None
    """Peak of a worker in stage 2 [GiB]."""
    run_id: str
    """Of its MLflow run."""
    survived: bool
    """It completed both stages and may be scored."""

    @property
    def written(self) -> str:
        """Return the top layers and the changes to their training, as a candidate is written."""
        return f"{self.top_layers} {self.changes}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """Facts of the stage `search`."""

    run_id: str
    """Of the parent's MLflow run."""
    ranking: tuple[RankingRow, ...]
    """Best validation AUC first."""
    failed: dict[str, str]
    """Candidate -> reason."""
    out_of_time: tuple[str, ...]
    """Candidates that `search.max_hours` stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStepFacts:
    """Facts of the stage `two_step`."""

    backbone: str
    """Trunk whose patch classifier gives the heatmaps."""
    val_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleFacts:
    """Facts of the stage `ensemble`."""

    rule: str = ""
    """Empty where an earlier version did not record it."""
    members: tuple[str, ...]
    """Candidate names."""
    val_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFacts:
    """Facts of the stages `registered` and `recalibrated`: where their model is."""

    tracking_uri: str
    """Without its password."""
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalFacts:
    """Facts of the stage `external`."""

    model: str
    """URI of the registered version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchAccuracy:
    """How well a patch classifier names the patches of a split."""

    accuracy: float
    """[0-1]."""
    balanced_accuracy: float
    """Mean recall of the classes that are present [0-1]."""
    confusion: list[list[int]]
    """(C, C) counts; rows: true class, columns: named class."""
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFacts:
    """Facts of the stage `evaluation`, besides the test scores."""

    patch_accuracy: dict[str, PatchAccuracy]
    """Backbone -> its patch classifier on test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Facts of the stage `report`."""

    url: str
