"""Every setting of mammoflow, as frozen dataclasses; one `Config` object per run. Imports only errors.

A recipe (recipes.py) is a function that returns a `Config`; the command line (cli.py) shows and overrides
every field. What comes out of a run is decided by *science* fields, which enter the fingerprints of
artefacts (lake.py); fields marked with `how()` (worker counts, paths) only decide how fast or where.

Units stand in each field's docstring. Sizes are height x width, rows x columns [px].
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from mammoflow.errors import ConfigError

CLASSES = (
    "background",
    "malignant_mass",
    "benign_mass",
    "malignant_calcification",
    "benign_calcification",
)
"""The paper's five patch classes; a patch's label is its index in the list (`PatchConfig.classes`)."""


def how(default: Any) -> Any:
    """Mark a field as one that decides how, not what: it never enters a fingerprint."""
    return field(default=default, metadata={"science": False})


def require(ok: bool, what: str, value: object, limit: str, remedy: str) -> None:
    """Raise `ConfigError` naming value, limit and remedy unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} is {value!r}, but must be {limit}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """Synthetic mammograms, drawn when a run has no `--source`. No claim to clinical realism."""

    layout: Literal["cbis_ddsm", "inbreast", "csv_folder"] = "cbis_ddsm"
    """How they lie on disk. `inbreast` and `csv_folder` are digital mammograms, and have films without lesions too."""
    patients: int = 200
    """How many women; on average about 2.0 films each as CBIS-DDSM, 3.6 in the other layouts. 0 draws none: the run
    needs `--source`."""
    height: int = 768
    """Rows of a film as drawn [px]; real films have 3000-7000."""
    width: int = 600
    """Columns of a film as drawn [px]."""
    contrast: float = 1.0
    """Factor on the contrast of every lesion; lower is harder."""
    compressed: float = 0.3
    """Share of films stored compressed (RLE, JPEG 2000, JPEG lossless in turn) [0-1]."""
    two_series: float = 0.02
    """Share of films that come as two series, once under mass, once under calcification [0-1]; in the other layouts
    of films with both kinds of lesion."""
    official_test: float = 0.0
    """Share of women in the release's own test part [0-1]; where above 0, some of CBIS-DDSM's are in its training part
    too, and csv_folder has a column `split`. INbreast has no parts."""

    def __post_init__(self) -> None:
        """Refuse what can't be drawn."""
        require(self.patients >= 0, "phantoms.patients", self.patients, "0 or more", "0 draws none")
        require(self.height >= 128, "phantoms.height", self.height, "at least 128 px", "draw larger films")
        require(self.width >= 96, "phantoms.width", self.width, "at least 96 px", "draw larger films")
        require(self.contrast >= 0, "phantoms.contrast", self.contrast, "0 or more", "use 1 for the default")
        for name in ("compressed", "two_series", "official_test"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"phantoms.{name}", share, "between 0 and 1", "it is a share")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How a film becomes an image of the lake. Source: paper, methods; reference sizes 1152x896."""

    height: int = 1152
    """Rows after reduction [px]."""
    width: int = 896
    """Columns after reduction [px]."""
    fit: Literal["stretch", "pad"] = "stretch"
    """`stretch` ignores the aspect ratio as the reference code does; `pad` keeps it and adds air."""
    intensity: Literal["full_range", "window", "percentile"] = "full_range"
    """Which grey values are spread over 0-65535: all that the stored bits can hold, as the reference code does; those
    of the file's window or VOI LUT (DICOM only); or those between the film's percentiles .5 and 99.5."""
    window: int = 0
    """Which one, where a file has several windows."""
    face: Literal["as_is", "right"] = "as_is"
    """`right` mirrors films, and the outlines on them, so that every breast points right: by the file's
    PatientOrientation, or where it gives none, by the brighter half."""
    reduced: bool = False
    """Decode JPEG 2000 (HTJ2K too) only to the smallest resolution that is not below the target size, then reduce by
    area as ever. On phantoms of 3328x2560 px it is 3.8 times faster and changes pixels by 25 grey levels of 65535 in
    the mean, by 7,600 at most, at the hard edges of labels. No effect on other files, under the intensity `percentile`,
    and where padding has to be found."""

    def __post_init__(self) -> None:
        """Refuse sizes that no stride-32 trunk can take."""
        for name in ("height", "width"):
            size = getattr(self, name)
            require(64 <= size <= 16384, f"images.{name}", size, "64 to 16384 px", "choose a size in between")
        require(self.window >= 0, "images.window", self.window, "0 or more", "0 is the first")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Who is in train, val and test; always by patient, stratified on cancer."""

    protocol: Literal["paper", "70-30", "official", "given"] = "paper"
    """`paper` re-splits the training release, as the paper does CBIS-DDSM's; `70-30` re-splits the whole release, 30%
    of its patients in test, as the paper does INbreast's; `official` keeps the release's own test part, less patients
    in both; `given` takes every image's split from the source. All but `given` draw `val` from who is not in test."""
    manifest: str | None = None
    """CSV of `patient_id, split`, as each ingest writes one (splits.csv beside its images): the splits are taken from
    there, whatever the protocol. Its contents, not its path, enter fingerprints."""
    test: float = 0.15
    """Share of patients in test under `paper` [0-1]."""
    val: float = 0.10
    """Share of the remaining patients in validation [0-1]."""

    def __post_init__(self) -> None:
        """Refuse shares that leave a split empty."""
        for name in ("test", "val"):
            share = getattr(self, name)
            require(0 < share < 1, f"splits.{name}", share, "between 0 and 1, both excluded", "it is a share")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchConfig:
    """How labelled patches are cut from images. Source: paper 3.1.1."""

    set: Literal["S1", "S10"] = "S10"
    """`S1`: one patch centred on each ROI; `S10`: `per_lesion` around each. As many background patches."""
    side: int = 224
    """Patch side P [px]."""
    per_lesion: int = 10
    """Patches drawn for each lesion in S10, and background patches beside them."""
    min_overlap: float = 0.9
    """Least lesion overlap, lesion pixels inside / min(P * P, lesion area) [0-1]."""
    min_tissue: float = 0.5
    """Least share of breast tissue in a background patch [0-1]."""
    classes: tuple[str, ...] = CLASSES
    """Patch classes; the first is background, the others are <pathology>_<kind>."""

    def __post_init__(self) -> None:
        """Refuse what can't be sampled."""
        require(self.side >= 16, "patches.side", self.side, "at least 16 px", "cut larger patches")
        require(self.per_lesion >= 1, "patches.per_lesion", self.per_lesion, "at least 1", "draw more patches")
        for name in ("min_overlap", "min_tissue"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"patches.{name}", share, "between 0 and 1", "it is a share")
        require(
            len(self.classes) >= 2 and self.classes[0] == "background" and len({*self.classes}) == len(self.classes),
            "patches.classes",
            self.classes,
            "two or more different names, `background` first",
            f"the paper's are {CLASSES}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of training: which layers, how fast, how long."""

    trained: Literal["last", "top", "all"]
    """`last`: the classification layer (patch), the new top layers (image); `top`: the upper stages too; `all`."""
    lr: float
    """Adam's learning rate."""
    epochs: int
    """Passes over the training split."""
    weight_decay: float = 0.0
    """Keras' L2 factor lambda on the new top layers: loss += lambda * |w|^2, coupled Adam's weight_decay 2 lambda."""

    def __post_init__(self) -> None:
        """Refuse a stage that can't run."""
        require(self.lr > 0, "lr", self.lr, "above 0", "the paper's are 1e-3 to 1e-5")
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more", "0 skips the stage")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, drawn anew each epoch. Source: paper, methods."""

    flips: bool = True
    """Horizontal and vertical flips, each with probability .5."""
    rotation: float = 25.0
    """Rotation, uniform in +- this [degrees]."""
    shear: float = 0.2
    """Shear, uniform in +- this [rad]."""
    zoom: float = 0.2
    """Zoom per axis, uniform in 1 +- this."""
    channel_shift: float = 20.0
    """Grey shift per channel, uniform in +- this [of 255]."""

    def __post_init__(self) -> None:
        """Refuse ranges that turn images inside out."""
        require(0 <= self.zoom < 1, "augment.zoom", self.zoom, "0 to below 1", "the paper's is 0.2")
        for name in ("rotation", "shear", "channel_shift"):
            value = getattr(self, name)
            require(value >= 0, f"augment.{name}", value, "0 or more", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTrainingConfig:
    """Training of the patch classifier. Source: paper, methods (3-stage schedule)."""

    stages: tuple[StageConfig, ...] = (
        StageConfig(trained="last", lr=1e-3, epochs=3),
        StageConfig(trained="top", lr=1e-4, epochs=10),
        StageConfig(trained="all", lr=1e-5, epochs=37),
    )
    """Stages in order; a randomly initialised classifier has one, all layers at 1e-3."""
    batch: int = 32
    """Patches per optimiser step, over all workers."""
    balanced: bool = True
    """Weigh each sample by 1 / (fraction of its class in the batch)."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentations of training patches."""
    settle: int = 0
    """Training batches over which BatchNorm's statistics are taken anew before each validation; 0 keeps the averages
    that training leaves, which lag behind weights that still move fast."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the forward pass; weights and optimiser stay fp32."""

    def __post_init__(self) -> None:
        """Refuse an empty schedule."""
        require(len(self.stages) >= 1, "stages", self.stages, "one or more", "see recipes.py for the paper's")
        require(self.batch >= 1, "batch", self.batch, "at least 1", "the paper's is 32")
        require(self.settle >= 0, "settle", self.settle, "0 or more", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """One patch classifier, whose convolutional part becomes the trunk of whole-image classifiers."""

    backbone: str = "resnet50"
    """A name of models.backbones.BACKBONES."""
    weights: str | None = "imagenet"
    """`imagenet` for torchvision's weights (downloaded by your machine), or None for random initialisation."""
    training: PatchTrainingConfig = PatchTrainingConfig()
    """How it is trained."""
    top_layers: tuple[str, ...] = ("256x1,128x1",)
    """Whole-image candidates on this trunk: two blocks each, VGG `NxK` or ResNet `[L-M-N]xK`, joined by a comma."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTrainingConfig:
    """Training of whole-image classifiers. Source: paper, methods (2-stage schedule)."""

    stages: tuple[StageConfig, ...] = (
        StageConfig(trained="last", lr=1e-4, epochs=30, weight_decay=0.001),
        StageConfig(trained="all", lr=1e-5, epochs=20, weight_decay=0.01),
    )
    """Exactly two stages: new top layers on the frozen trunk, then everything."""
    resume: int = 0
    """Most epochs that stage 2 goes on for where a model has not converged; the paper's is 200."""
    unconverged: int = 10
    """A model has not converged where its best epoch is among the last so many of the schedule."""
    patience: int = 20
    """It then goes on until so many epochs bring no gain."""
    batch: int = 2
    """Images per optimiser step, over all workers."""
    balanced: bool = True
    """Weigh each image by the inverse frequency of its class in the training split."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentations of training images."""
    settle: int = 0
    """Training batches over which BatchNorm's statistics are taken anew before each validation; 0 keeps the averages
    that training leaves, which lag behind weights that still move fast."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the forward pass; weights and optimiser stay fp32."""

    def __post_init__(self) -> None:
        """Refuse a schedule that is not the method's."""
        require(
            len(self.stages) == 2 and self.stages[0].trained == "last" and self.stages[1].trained == "all",
            "image_training.stages",
            [s.trained for s in self.stages],
            "`last` then `all`",
            "set a stage's epochs to 0 to skip it",
        )
        require(self.batch >= 1, "batch", self.batch, "at least 1", "the paper's is 2")
        require(self.resume >= 0, "resume", self.resume, "0 or more", "0 ends with the schedule")
        for name in ("unconverged", "patience"):
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1", "see the defaults")
        require(self.settle >= 0, "settle", self.settle, "0 or more", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """The search over top layers. Candidates stand in each trunk's `top_layers`."""

    survivors: Literal["best_of_each_kind", "all"] = "best_of_each_kind"
    """Who goes on from stage 1 to stage 2: per kind (Resnet-VGG, ...) the best by validation AUC, or everyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """How members and the operating point are chosen, on validation only."""

    cutoff: Literal["youden"] = "youden"
    """Operating point: the cut-off of largest sensitivity + specificity."""
    model_name: str = "mammoflow"
    """Name of the registered model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeConfig:
    """What a run may use; none of it changes results beyond rounding."""

    workers: int = how(1)
    """Ray Train workers of one training run."""
    gpu: bool = how(False)
    """Ask for one GPU per training worker."""
    cpus_per_worker: int = how(1)
    """CPUs of one training worker."""
    concurrent_trials: int = how(2)
    """Most training runs at the same time."""
    forgiven_failures: int = how(3)
    """How often a training run may lose a worker or node and go on from its last epoch."""
    images_per_shard: int = how(64)
    """Images in one Parquet shard, the unit of work that a kill can cost."""
    max_bad: float = how(0.02)
    """Largest share of images that may go to quarantine before a job ends non-zero [0-1]."""
    retry_quarantined: bool = how(False)
    """Try again, before anything else, what an earlier ingest could not decode."""

    def __post_init__(self) -> None:
        """Refuse what can't be scheduled."""
        for name in ("workers", "cpus_per_worker", "concurrent_trials", "images_per_shard"):
            value = getattr(self, name)
            require(value >= 1, f"compute.{name}", value, "at least 1", "give it more")
        require(0 <= self.max_bad <= 1, "compute.max_bad", self.max_bad, "between 0 and 1", "it is a share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that one run of the pipeline needs to know."""

    name: str
    """The recipe's name; part of every artefact's name in the lake."""
    lake: str | None = how(None)
    """Folder or URL where everything is kept; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""
    source: str | None = how(None)
    """Folder of the release; without it phantoms are drawn. Its contents, not its path, enter fingerprints."""
    dataset: str = "auto"
    """Layout of the source: a name of data.releases.RELEASES, or `auto`: by its files, or that of the phantoms."""
    limit: int | None = None
    """Use only the first N films of the release (whole patients), for a quick try; phantoms are drawn all the same."""
    seed: int = 0
    """Seed of everything random."""
    phantoms: PhantomConfig = PhantomConfig()
    """Synthetic mammograms, where no source is given."""
    images: ImageConfig = ImageConfig()
    """From film to image."""
    splits: SplitConfig = SplitConfig()
    """Who is in which split."""
    patches: PatchConfig = PatchConfig()
    """From image to patches."""
    trunks: tuple[TrunkConfig, ...] = (TrunkConfig(),)
    """Patch classifiers, and the top layers to try on each."""
    image_training: ImageTrainingConfig = ImageTrainingConfig()
    """From trunk to whole-image classifiers."""
    search: SearchConfig = SearchConfig()
    """Which of them go on."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Which of them are averaged."""
    compute: ComputeConfig = ComputeConfig()
    """Workers, CPUs, GPUs, shards."""

    def __post_init__(self) -> None:
        """Check what spans several parts."""
        require(len(self.trunks) >= 1, "trunks", self.trunks, "one or more", "name a backbone")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1", "leave it out for all films")
        smaller = min(self.images.height, self.images.width)
        require(
            self.patches.side <= smaller,
            "patches.side",
            self.patches.side,
            f"at most the image's smaller side, {smaller} px",
            "cut smaller patches or keep larger images",
        )
        names = [trunk.backbone for trunk in self.trunks]
        require(len({*names}) == len(names), "trunks", names, "different backbones", "remove the second one")
