"""Settings of training: stages, augmentation, patch and whole-image classifiers.

Units stand in each field's docstring. Sizes are height x width, rows x columns [px].
"""

from dataclasses import dataclass
from typing import Literal

from mammoflow.config.fields import renamed, require


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
    """Factor on the kernels that decay, of the kind that `decay` says."""
    decay: Literal["l2", "decoupled"] = "l2"
    """`l2` is Keras' factor lambda, loss += lambda * |w|^2, coupled Adam's weight_decay 2 lambda; `decoupled` is
    AdamW's weight_decay."""
    decayed: Literal["new", "all"] = "new"
    """Which kernels decay: those of the new top layers (patch: the FC), or all that are trained."""
    dropout: float = 0.0
    """Share of the features before the last FC that is dropped [0-1). The paper is silent; published nets had .5."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the stage's epochs: `lr`, or from `lr` down a half cosine."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """Statistics that trained BatchNorm layers normalise by: each batch's own, as in the paper's code, or the `frozen`
    ones of the model that training starts from, where batches of a few images are too small for their own."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        require(self.lr > 0, "lr", self.lr, "above 0", "the paper's are 1e-3 to 1e-5")
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more", "0 skips the stage")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more", "0 turns it off")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1", "0 turns it off")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, drawn afresh each epoch. Source: paper, methods."""

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
class StepConfig:
    """How a step of training is taken, of patches and of whole images alike."""

    batch: int = 32
    """Patches per optimiser step, over all workers."""
    balanced: bool = True
    """Weigh each patch by 1 / (fraction of its class in the batch), each image by the inverse frequency of its class in
    the training split."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentations of the training split."""
    micro_batches: int = renamed(1, was="parts")
    """Micro-batches that a step's batch is cut into. One is in memory at a time, and gradients are accumulated over the
    step, but BatchNorm sees one micro-batch only."""
    recalibrate: int = renamed(0, was="settle")
    """Training batches over which BatchNorm's statistics are recomputed before each validation. 0 uses the running
    averages, which lag behind weights that still change fast."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the forward pass; weights and optimiser stay fp32."""

    def __post_init__(self) -> None:
        """Check the step."""
        require(self.batch >= 1, "batch", self.batch, "at least 1", "the paper's are 32 patches and 2 images")
        require(self.recalibrate >= 0, "recalibrate", self.recalibrate, "0 or more", "0 uses the running averages")
        limit = f"1 to the batch, {self.batch}"
        require(1 <= self.micro_batches <= self.batch, "micro_batches", self.micro_batches, limit, "1 cuts nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTrainingConfig(StepConfig):
    """Training of the patch classifier. Source: paper, methods (3-stage schedule)."""

    stages: tuple[StageConfig, ...] = (
        StageConfig(trained="last", lr=1e-3, epochs=3),
        StageConfig(trained="top", lr=1e-4, epochs=10),
        StageConfig(trained="all", lr=1e-5, epochs=37),
    )
    """Stages in order; a randomly initialised classifier has one, all layers at 1e-3."""

    def __post_init__(self) -> None:
        """Refuse an empty schedule."""
        StepConfig.__post_init__(self)  # super() can't be used: slots=True makes a second class
        require(len(self.stages) >= 1, "stages", self.stages, "one or more", "see recipes.py for the paper's")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """One patch classifier, whose convolutional part becomes the trunk of whole-image classifiers."""

    backbone: str = "resnet50"
    """A name of models.backbones.BACKBONES; or `timm:<name>`, such as `timm:tf_efficientnet_lite0`: a convolutional net
    of stride 32 of the package timm (`pip install 'mammoflow[timm]'`), whose `imagenet` is timm's own download."""
    weights: str | None = "imagenet"
    """`imagenet` for torchvision's weights (downloaded by your machine); a path or URL of a file of weights
    (.safetensors, .pth, .pt; its contents, not its path, enter fingerprints); `runs:/<id>` for those of an MLflow run;
    or None for random initialisation."""
    training: PatchTrainingConfig = PatchTrainingConfig()
    """How it is trained."""
    hard_examples: float = renamed(0.0, was="mined")
    """Hard-example mining: share of each lesion's training patches, and of background's, that a second round of
    training takes where the first round's classifier is most wrong [0-1]; their number stays. 0 trains once."""
    top_layers: tuple[str, ...] = ("256x1,128x1",)
    """Whole-image candidates on this trunk: blocks, VGG `NxK` or ResNet `[L-M-N]xK`, joined by commas, and what else
    models/top_kinds.py reads; after them, where training is to differ, `lr*2`, `decay*0.1` or `dropout=0.5`."""

    def __post_init__(self) -> None:
        """Check `hard_examples`."""
        require(0 <= self.hard_examples <= 1, "hard_examples", self.hard_examples, "between 0 and 1", "it is a share")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTrainingConfig(StepConfig):
    """Training of whole-image classifiers. Source: paper, methods (2-stage schedule)."""

    stages: tuple[StageConfig, ...] = (
        StageConfig(trained="last", lr=1e-4, epochs=30, weight_decay=0.001),
        StageConfig(trained="all", lr=1e-5, epochs=20, weight_decay=0.01),
    )
    """Exactly two stages: new top layers on the frozen trunk, then everything."""
    resume: int = 0
    """Most extra epochs of stage 2 where a model has not converged; the paper's is 200."""
    unconverged: int = 10
    """A model has not converged if its best epoch is among this many last epochs of the schedule."""
    patience: int = 20
    """Early-stopping patience of the extra epochs [epochs]."""
    batch: int = 2
    """Images per optimiser step, over all workers."""

    def __post_init__(self) -> None:
        """Refuse a schedule that is not the method's."""
        StepConfig.__post_init__(self)
        require(
            len(self.stages) == 2 and self.stages[0].trained == "last" and self.stages[1].trained == "all",
            "image_training.stages",
            [s.trained for s in self.stages],
            "`last` then `all`",
            "set a stage's epochs to 0 to skip it",
        )
        require(self.resume >= 0, "resume", self.resume, "0 or more", "0 ends with the schedule")
        for name in ("unconverged", "patience"):
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1", "see the defaults")
