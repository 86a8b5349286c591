"""Facts of each stage, which its artefact's `done.json` holds for later stages and the report.

Fields with a default were added later: artefacts made before them are read with that default.
"""

from dataclasses import dataclass, field

Counts = dict[str, int]
"""A count for each split, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomsFacts:
    """What the stage `phantoms` drew."""

    patients: int
    files: int
    bytes: int
    """Size of all files together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesFacts:
    """What the stage `images` decoded."""

    images: Counts
    """Decoded images."""
    malignant: Counts
    """Malignant ones among them."""
    patients: Counts
    """Patients whose images they are."""
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
    """What the stage `patches` cut."""

    patches: dict[str, Counts]
    """Split -> class -> patches."""
    below_min: int
    """Patches that reach less of their lesion than asked, the best there was."""
    unverified: int
    """Background patches that may show a lesion without an outline; not trained on."""
    quarantined: int
    """Images that gave no patch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkFacts:
    """What training a patch classifier came to: the stages `trunks` and `retrained`."""

    val_accuracy: float | None
    """Validation accuracy of the best epoch [0-1]; None where no epoch was asked for: the trunk is as initialised."""
    best_epoch: int | None
    """From 1; None likewise."""
    epochs: int
    """Epochs trained."""
    run_id: str
    """Of its MLflow run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedFacts:
    """What the stage `mined` cut: training patches, a share of them where the classifier is most wrong."""

    patches: int
    mined: int
    """Patches among them that were exchanged for hard ones."""


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
    """How its training differs from the config's, as written; empty where it does not."""
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
    """It went through both stages and may be scored."""

    @property
    def written(self) -> str:
        """Return the top layers and what was changed in their training, as a candidate is written."""
        return f"{self.top_layers} {self.changes}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """What the stage `search` found."""

    run_id: str
    """Of the parent's MLflow run."""
    ranking: tuple[RankingRow, ...]
    """Best validation AUC first."""
    failed: dict[str, str]
    """Candidate -> why it could not go on."""
    out_of_time: tuple[str, ...]
    """Candidates that `search.max_hours` stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStepFacts:
    """What the stage `two_step` fitted."""

    backbone: str
    """Whose patch classifier's heatmaps it reads."""
    val_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleFacts:
    """What the stage `ensemble` chose."""

    rule: str = ""
    """Empty where an earlier version did not record it."""
    members: tuple[str, ...]
    """Candidate names."""
    val_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFacts:
    """Where the stages `registered` and `recalibrated` put their model."""

    tracking_uri: str
    """Without its password."""
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalFacts:
    """What the stage `external` scored with."""

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
    """What the stage `evaluation` found beside the test scores."""

    patch_accuracy: dict[str, PatchAccuracy]
    """Backbone -> its patch classifier on test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Where the stage `report` wrote."""

    url: str
