"""Every setting of mammoflow, as frozen dataclasses; one `Config` object per run. Imports only errors.

The parts stand in data.py, training.py and search.py; all are taken from here.

A recipe (recipes.py) is a function that returns a `Config`; the command line (cli.py) shows and overrides
every field. The results of a run depend on *science* fields only, which enter the fingerprints of artefacts
(lake.fingerprint); fields marked with `how()` (worker counts, paths) only decide how fast or where.

Fingerprints name artefacts in everyone's lake, so they must last. Declare a new science field with `added(default)`,
and a renamed one with `renamed(default, was="old_name")`: existing artefacts keep their names. Without that, or where a
field moves or goes, all artefacts that depend on it are built again; a test lists the names that fingerprints contain.

Units stand in each field's docstring. Sizes are height x width, rows x columns [px].
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from mammoflow.config.data import CLASSES, ImageConfig, PatchConfig, PhantomConfig, SplitConfig
from mammoflow.config.fields import added, how, renamed, require
from mammoflow.config.search import SearchConfig, SpaceConfig
from mammoflow.config.training import AugmentConfig, ImageTrainingConfig, PatchTrainingConfig, StageConfig, TrunkConfig

__all__ = [
    "CLASSES",
    "AugmentConfig",
    "ComputeConfig",
    "Config",
    "EnsembleConfig",
    "ImageConfig",
    "ImageTrainingConfig",
    "PatchConfig",
    "PatchTrainingConfig",
    "PhantomConfig",
    "SearchConfig",
    "SpaceConfig",
    "SplitConfig",
    "StageConfig",
    "TrunkConfig",
    "TwoStepConfig",
    "added",
    "how",
    "renamed",
    "require",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """How members, operating point and calibration are chosen, on validation only."""

    rule: Literal["best_of_kinds", "greedy"] = "best_of_kinds"
    """Members: the best of each kind, as in the paper; or greedily those that raise the mean's AUC most, one after the
    other, again and again. What the other rule would choose is in the report."""
    pool: Literal["search", "all"] = "search"
    """Who may be a member: finished candidates of this search; or also those of earlier searches on the same data and
    splits, whatever their settings."""
    pool_size: int = 20
    """Most candidates that are scored from elsewhere and that the greedy rule takes from, the best by validation."""
    rounds: int = 20
    """Most members of the greedy rule, counted with repeats."""
    calibration: Literal["best", "none", "temperature", "logistic", "isotonic"] = "best"
    """From score to probability: the one of lowest loss in patient-level cross-validation, or always this one."""
    cutoff: str = "youden"
    """Operating point: `youden`, the cut-off of largest sensitivity + specificity; or `sensitivity=0.9` or
    `specificity=0.9`, at which that side is no less and the other is best."""
    model_name: str = "mammoflow"
    """Name of the registered model."""

    def __post_init__(self) -> None:
        """Refuse a rule that there is not, and an empty choice."""
        for name in ("pool_size", "rounds"):
            require(getattr(self, name) >= 1, f"ensemble.{name}", getattr(self, name), "at least 1", "give it more")
        name, least = self.cutoff_rule
        known = self.cutoff == "youden" or (name in ("sensitivity", "specificity") and 0 < least < 1)
        right = "youden, sensitivity=S or specificity=S, with S between 0 and 1"
        require(known, "ensemble.cutoff", self.cutoff, right, "such as sensitivity=0.9")

    @property
    def cutoff_rule(self) -> tuple[str, float]:
        """Return the rule's name and what its side may not fall below; NaN where there is no number."""
        name, _, share = self.cutoff.partition("=")
        try:
            return name, float(share)
        except ValueError:
            return name, math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStepConfig:
    """The two-step baseline: heatmap, regions, random forest."""

    backbone: str | None = None
    """Trunk whose patch classifier gives the heatmaps; None: the first ResNet of the config, as in the paper, else the
    first trunk."""
    cutoffs: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Probabilities at which each class's map is cut (0-1)."""
    regions: int = 2
    """Largest regions of each cut map that are described; the paper says "the largest"."""
    trees: int = 500
    """Trees of the forest."""
    depth: int = 9
    """Most levels of a tree."""
    min_split: int = 300
    """Fewest training images at a node that is split."""

    def __post_init__(self) -> None:
        """Refuse what gives no figures or no trees."""
        for name in ("regions", "trees", "depth"):
            require(getattr(self, name) >= 1, f"two_step.{name}", getattr(self, name), "at least 1", "give it more")
        require(self.min_split >= 2, "two_step.min_split", self.min_split, "at least 2", "a node of one can't be split")
        inside = bool(self.cutoffs) and all(0 < cutoff < 1 for cutoff in self.cutoffs)
        require(inside, "two_step.cutoffs", self.cutoffs, "one or more between 0 and 1", "they are probabilities")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeConfig:
    """What a run may use; none of it enters fingerprints.

    Results are identical up to rounding, except for BatchNorm, which sees each worker's share of a step, or one
    micro-batch of it.
    """

    workers: int = how(1)
    """Ray Train workers of one training run."""
    least_workers: int | None = how(None)
    """Go on with as few as these where nodes are lost, and grow again to `workers`; None waits for all of them."""
    checkpointing: bool = how(False)
    """Keep less of a trunk in memory for the backward pass and compute it a second time, so that larger images fit."""
    compile: bool = how(False)
    """Run trunks as torch.compile makes them: some minutes to begin with, then faster on most GPUs."""
    sync_batch_norm: bool = how(False)
    """BatchNorm over the shares (or micro-batches) of all workers, as one worker would see them; GPUs only."""
    gpu: bool = how(False)
    """Ask for one GPU per training worker."""
    cpus_per_worker: int = how(1)
    """CPUs of one training worker."""
    pack: int | None = how(None)
    """Most candidates that train together on one pass through their frozen trunk; None: all of a trunk's."""
    concurrent_trials: int = how(2)
    """Most training runs at the same time."""
    forgiven_failures: int = how(3)
    """How often a training run may lose a worker or node and go on from its last epoch."""
    images_per_shard: int = how(96)
    """Images in one Parquet shard, the unit of work that a kill can cost; at 1152x896 a shard has about 70 MiB."""
    max_bad: Annotated[float, arg(aliases=["--max-bad"])] = how(0.02)
    """Largest share of images that may go to quarantine before a job ends non-zero [0-1]."""
    retry_quarantined: Annotated[bool, arg(aliases=["--retry-quarantined"])] = how(False)
    """Try again, before anything else, what an earlier ingest could not decode."""
    deadline: Annotated[float | None, arg(aliases=["--deadline"])] = how(None)
    """Hours after which a job ends, whatever it does; the same command goes on from there."""
    dry_run: Annotated[bool, arg(aliases=["--dry-run"])] = how(False)
    """Of a search, print what would be trained, with estimates of memory and time, and do nothing."""

    def __post_init__(self) -> None:
        """Refuse what can't be scheduled."""
        for name in ("workers", "cpus_per_worker", "concurrent_trials", "images_per_shard"):
            value = getattr(self, name)
            require(value >= 1, f"compute.{name}", value, "at least 1", "give it more")
        require(self.pack is None or self.pack >= 1, "compute.pack", self.pack, "at least 1", "or leave it out")
        least = self.workers if self.least_workers is None else self.least_workers
        require(1 <= least <= self.workers, "compute.least_workers", least, f"1 to {self.workers}", "or leave it out")
        require(
            not (self.compile and self.checkpointing),
            "compute.compile",
            self.compile,
            "False with compute.checkpointing",
            "choose one of the two",
        )
        require(
            self.gpu or not self.sync_batch_norm,
            "compute.sync_batch_norm",
            self.sync_batch_norm,
            "False on CPUs",
            "torch has it for GPUs only; set compute.gpu where there are some",
        )
        late = self.deadline is None or self.deadline > 0
        require(late, "compute.deadline", self.deadline, "above 0 hours", "or leave it out")
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
    start: str | None = None
    """Whole-image classifiers of other data to train on, by image labels alone, in the place of `trunks`: all members
    of a registered ensemble (`models:/mammoflow@champion`, `models:/mammoflow/3`), the candidate of an MLflow run
    (`runs:/<id>`), or a folder or URL of a model. Fingerprinted by content."""
    transfer: tuple[int, ...] = how(())
    """Numbers of patients of new data to train on, one after the other, by jobs/finetune.py: the paper's Table 4.
    Empty: once, with all of them or `splits.patients`."""
    trunks: tuple[TrunkConfig, ...] = (TrunkConfig(),)
    """Patch classifiers, and the top layers to try on each."""
    image_training: ImageTrainingConfig = ImageTrainingConfig()
    """From trunk to whole-image classifiers."""
    search: SearchConfig = SearchConfig()
    """Which of them go on."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Which of them are averaged."""
    two_step: TwoStepConfig = TwoStepConfig()
    """The baseline that they are held against."""
    compute: ComputeConfig = ComputeConfig()
    """Workers, CPUs, GPUs, shards."""

    def __post_init__(self) -> None:
        """Check what spans several parts."""
        require(bool(self.start or self.trunks), "trunks", self.trunks, "one or more", "name one, or give --start")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1", "leave it out for all films")
        smaller = min(self.images.height, self.images.width)
        require(
            self.patches.side <= smaller,
            "patches.side",
            self.patches.side,
            f"at most the image's smaller side, {smaller} px",
            "cut smaller patches or keep larger images",
        )
        empty = [] if self.start or self.search.drawn else [t.backbone for t in self.trunks if not t.top_layers]
        require(not empty, "top_layers", empty, "one or more for each trunk", "or draw some with --search.drawn")
        require(
            not (self.start and self.search.drawn),
            "search.drawn",
            self.search.drawn,
            "0 with --start, which goes on from top layers that are there",
            "leave one of the two out",
        )
        own, wanted = [trunk.backbone for trunk in self.trunks], self.two_step.backbone
        require(
            wanted is None or wanted in own or bool(self.start),
            "two_step.backbone",
            wanted,
            f"one of the trunks {own}",
            "or leave it out",
        )
        mining = any(trunk.hard_examples for trunk in self.trunks)
        require(
            not mining or self.patches.set == "S10",
            "patches.set",
            self.patches.set,
            "S10 for hard-example mining",
            "S1 takes the centred patch alone; set `hard_examples` to 0",
        )
        names = [trunk.backbone for trunk in self.trunks]
        require(len({*names}) == len(names), "trunks", names, "different backbones", "remove the second one")
