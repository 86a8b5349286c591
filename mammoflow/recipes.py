"""Recipes: functions that return a whole `Config`. Imports only config and the language of top layers.

The command line shows and overrides their settings. `smoke` and `demo` draw phantoms; the others have the settings of
Shen et al. 2019 and need `--source`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mammoflow.config import (
    AugmentConfig,
    ComputeConfig,
    Config,
    EnsembleConfig,
    ImageConfig,
    ImageTrainingConfig,
    PatchConfig,
    PatchTrainingConfig,
    PhantomConfig,
    SearchConfig,
    SplitConfig,
    StageConfig,
    TrunkConfig,
    TwoStepConfig,
)
from mammoflow.config.fields import require
from mammoflow.models.top_spec import slug

RESNET50_TOP_LAYERS = (
    "[512-512-2048]x1,[512-512-2048]x1",
    "[512-512-1024]x2,[512-512-1024]x2",
    "[256-256-256]x1,[128-128-128]x1",
    "[256-256-256]x3,[128-128-128]x3",
    "[256-256-512]x3,[128-128-256]x3",
    "256x1,128x1",
)
"""Table 2, S10, all convolutional."""

VGG16_TOP_LAYERS = (
    "512x3,512x3",
    "512x1,512x1",
    "256x3,128x3",
    "256x1,128x1",
    "128x1,64x1",
    "[512-512-1024]x2,[512-512-1024]x2",
)
"""Table 3, S10, all convolutional."""

HEATMAP_TOP_LAYERS = (
    "heatmap,[512-512-1024]x2,[512-512-1024]x2",
    "heatmap,[64-64-256]x2,[128-128-512]x2",
)
"""Table 2, S10, heatmap inserted."""

FC_TOP_LAYERS = ("fc-pool5-64-32", "fc-pool2-512-256", "fc-pool1-2048-1024")
"""Tables 2 and 3, S10: heatmap, max pooling and FC layers with a shortcut."""

INSTANCE_TOP_LAYERS = ("max", "sparse", "attention-64")
"""Multi-instance heads on the heatmap, for comparison with works that the paper cites; not in its tables."""


def smoke() -> Config:
    """Phantoms, seconds of training: shows that the whole path works, learns next to nothing."""
    patch_training = PatchTrainingConfig(stages=(StageConfig(trained="all", lr=1e-3, epochs=1),), precision="fp32")
    return Config(
        name="smoke",
        phantoms=PhantomConfig(patients=24, height=320, width=256),
        images=ImageConfig(height=160, width=128),
        splits=SplitConfig(test=0.25, val=0.33),
        patches=PatchConfig(side=32, per_lesion=2),
        trunks=(
            TrunkConfig(
                backbone="resnet10_narrow",
                weights=None,
                training=patch_training,
                top_layers=("16x1,8x1", "[8-8-16]x1,[8-8-16]x1"),
            ),
        ),
        image_training=ImageTrainingConfig(
            stages=(
                StageConfig(trained="last", lr=1e-3, epochs=1, weight_decay=0.001),
                StageConfig(trained="all", lr=1e-4, epochs=1, weight_decay=0.01),
            ),
            batch=8,
            precision="fp32",
        ),
        two_step=TwoStepConfig(min_split=4),
    )


def demo() -> Config:
    """Phantoms, small images, two small trunks: the four kinds of classifier in minutes on two cores."""
    gentle = AugmentConfig(shear=0.1, zoom=0.1, channel_shift=5.0)  # the paper's ranges need more epochs
    patch_training = PatchTrainingConfig(
        stages=(StageConfig(trained="all", lr=1e-3, epochs=6), StageConfig(trained="all", lr=1e-4, epochs=2)),
        batch=16,
        augment=gentle,
        settle=30,
    )
    return Config(
        name="demo",
        phantoms=PhantomConfig(patients=300, contrast=2.2),
        images=ImageConfig(height=288, width=224),
        splits=SplitConfig(test=0.2, val=0.25),
        patches=PatchConfig(side=72),
        trunks=(
            TrunkConfig(
                backbone="resnet10_narrow",
                weights=None,
                training=patch_training,
                top_layers=("64x1,32x1", "[64-64-128]x1,[64-64-128]x1", "[32-32-64]x2,[32-32-64]x2"),
            ),
            TrunkConfig(
                backbone="vgg9_bn_narrow",
                weights=None,
                training=patch_training,
                top_layers=("64x1,32x1", "128x1,64x1", "[64-64-128]x1,[64-64-128]x1"),
            ),
        ),
        image_training=ImageTrainingConfig(
            stages=(
                StageConfig(trained="last", lr=1e-3, epochs=10, weight_decay=0.001),
                StageConfig(trained="all", lr=1e-4, epochs=4, weight_decay=0.001),
            ),
            batch=4,
            augment=gentle,
            settle=30,
        ),
        two_step=TwoStepConfig(min_split=56),  # the paper's share of its training images
    )


def _cbis(
    name: str,
    top_layers: Mapping[str, tuple[str, ...]],
    *,
    patch_set: Literal["S1", "S10"] = "S10",
    weights: str | None = "imagenet",
    search: SearchConfig | None = None,
) -> Config:
    """Return the paper's settings for CBIS-DDSM, with these top layers per backbone and this patch set.

    From random weights all layers are trained at 1e-3, for as many epochs as the three stages have.
    """
    first, middle, last = PatchTrainingConfig().stages
    stages: tuple[StageConfig, ...] = (first, middle, replace(last, epochs=37 if patch_set == "S10" else 187))
    if weights is None:
        stages = (StageConfig(trained="all", lr=1e-3, epochs=sum(stage.epochs for stage in stages)),)
    training = PatchTrainingConfig(stages=stages)
    return Config(
        name=name,
        phantoms=PhantomConfig(patients=0),
        patches=PatchConfig(set=patch_set),
        trunks=tuple(
            TrunkConfig(backbone=backbone, weights=weights, training=training, top_layers=tops)
            for backbone, tops in top_layers.items()
        ),
        search=search or SearchConfig(survivors="all"),
        image_training=ImageTrainingConfig(resume=200),
        compute=ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8),
    )


def cbis_s10_resnet50() -> Config:
    """CBIS-DDSM, S10, Resnet50 from ImageNet weights, the all-convolutional rows of Table 2. Needs --source."""
    return _cbis("cbis-s10-resnet50", {"resnet50": RESNET50_TOP_LAYERS})


def cbis_s10_vgg16() -> Config:
    """CBIS-DDSM, S10, VGG16 from ImageNet weights, the all-convolutional rows of Table 3. Needs --source."""
    return _cbis("cbis-s10-vgg16", {"vgg16": VGG16_TOP_LAYERS})


def cbis_s10() -> Config:
    """CBIS-DDSM, S10, both trunks: the four kinds of classifier and their ensemble. Needs --source."""
    return _cbis("cbis-s10", {"resnet50": RESNET50_TOP_LAYERS, "vgg16": VGG16_TOP_LAYERS})


def cbis_s10_tables() -> Config:
    """CBIS-DDSM, S10, both trunks: every S10 row of tables 2 and 3. Needs --source."""
    return _cbis(
        "cbis-s10-tables",
        {
            "resnet50": (*RESNET50_TOP_LAYERS, *HEATMAP_TOP_LAYERS, *FC_TOP_LAYERS),
            "vgg16": (*VGG16_TOP_LAYERS, *FC_TOP_LAYERS),
        },
    )


def cbis_s10_free() -> Config:
    """CBIS-DDSM, S10, both trunks: 32 random top layers each, halved at 5, 10 and 20 epochs. Needs --source."""
    search = SearchConfig(drawn=32, rungs=(5, 10, 20))
    return _cbis("cbis-s10-free", {"resnet50": (), "vgg16": ()}, search=search)


def cbis_s1_resnet50() -> Config:
    """CBIS-DDSM, S1, Resnet50 from ImageNet weights: a row of Table 1, the first of Table 2. Needs --source."""
    return _cbis("cbis-s1-resnet50", {"resnet50": RESNET50_TOP_LAYERS[:1]}, patch_set="S1")


def cbis_s1_resnet50_random() -> Config:
    """CBIS-DDSM, S1, Resnet50 from random weights: the first row of Table 1. Needs --source."""
    return _cbis("cbis-s1-resnet50-random", {"resnet50": RESNET50_TOP_LAYERS[:1]}, patch_set="S1", weights=None)


def cbis_s10_resnet50_random() -> Config:
    """CBIS-DDSM, S10, Resnet50 from random weights: a row of Table 1. Needs --source."""
    return _cbis("cbis-s10-resnet50-random", {"resnet50": RESNET50_TOP_LAYERS}, weights=None)


_CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cbis-s10": {
        "resnet50": (*RESNET50_TOP_LAYERS, *HEATMAP_TOP_LAYERS, *FC_TOP_LAYERS, *INSTANCE_TOP_LAYERS),
        "vgg16": (*VGG16_TOP_LAYERS, *FC_TOP_LAYERS),
        "vgg16_bn": VGG16_TOP_LAYERS,  # Table 3 with BatchNorm in the trunk
    },
    "cbis-s1-resnet50": {"resnet50": RESNET50_TOP_LAYERS[:1]},
    "cbis-s10-resnet50-random": {"resnet50": RESNET50_TOP_LAYERS},
    "cbis-s1-resnet50-random": {"resnet50": RESNET50_TOP_LAYERS[:1]},
}
"""Recipe -> backbone -> top layers that `--only` chooses from."""


def inbreast() -> Config:
    """INbreast, fine-tuned from the champion's members with 20 to 72 patients: Table 4. Needs --source.

    The paper chose epochs by the films that it reports; here a fifth of the training patients serves for that.
    """
    return Config(
        name="inbreast",
        dataset="inbreast",
        start="models:/mammoflow@champion",
        phantoms=PhantomConfig(patients=0),
        transfer=_PATIENTS,
        splits=SplitConfig(protocol="70-30", val=0.2),
        image_training=ImageTrainingConfig(
            stages=(
                StageConfig(trained="last", lr=1e-4, epochs=0),
                StageConfig(trained="all", lr=1e-5, epochs=200, weight_decay=0.01),
            )
        ),
        search=SearchConfig(survivors="all"),
        ensemble=EnsembleConfig(model_name="mammoflow-inbreast"),  # the mammoflow champion stays where it is
        compute=ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8),
    )


_PATIENTS = (20, 30, 40, 50, 60, 72)

ALL: Mapping[str, Callable[[], Config]] = {
    "demo": demo,
    "smoke": smoke,
    "cbis-s10": cbis_s10,
    "cbis-s10-resnet50": cbis_s10_resnet50,
    "cbis-s10-vgg16": cbis_s10_vgg16,
    "cbis-s10-tables": cbis_s10_tables,
    "cbis-s10-free": cbis_s10_free,
    "cbis-s10-resnet50-random": cbis_s10_resnet50_random,
    "cbis-s1-resnet50": cbis_s1_resnet50,
    "cbis-s1-resnet50-random": cbis_s1_resnet50_random,
    "inbreast": inbreast,
}
"""Every recipe by the name that the command line takes; the first is the default."""


def rows(recipe: str) -> tuple[str, ...]:
    """Return the rows of the paper's tables that `--only` chooses from; empty for a recipe without rows."""
    if recipe == "inbreast":
        return tuple(map(str, _PATIENTS))
    return tuple(_classifiers(recipe))


def load(recipe: str, only: Sequence[str] = ()) -> Config:
    """Return the config of a recipe, or of the given rows of its table alone.

    Args:
        recipe: a name in `ALL`.
        only: names in `rows(recipe)`. A single one becomes part of the config's name.

    Raises:
        ConfigError: a row that the recipe does not have.
    """
    config = ALL[recipe]()
    if not only:
        return config
    choices = rows(recipe)
    for row in only:
        remedy = f"choose from {', '.join(choices)}" if choices else f"rows belong to {', '.join(_WITH_ROWS)}"
        require(row in choices, "only", row, f"a row of recipe {recipe}", remedy)
    if recipe == "inbreast":
        return _inbreast_rows(config, only)
    classifiers = _classifiers(recipe)
    chosen: dict[str, tuple[str, ...]] = {}
    for backbone, top_layers in (classifiers[row] for row in choices if row in only):
        chosen[backbone] = (*chosen.get(backbone, ()), top_layers)
    name = f"cbis-{config.patches.set.lower()}-{only[0]}{'-random' if recipe.endswith('-random') else ''}"
    return replace(
        config,
        name=name if len(only) == 1 else config.name,
        trunks=tuple(
            replace(config.trunks[0], backbone=backbone, top_layers=top_layers)
            for backbone, top_layers in chosen.items()
        ),
    )


def _inbreast_rows(config: Config, only: Sequence[str]) -> Config:
    """Return the fine-tuning for one number of patients, or for several in turn."""
    patients = tuple(sorted(map(int, only)))
    if len(patients) > 1:
        return replace(config, transfer=patients)
    splits = replace(config.splits, patients=patients[0])
    return replace(config, name=f"{config.name}-{patients[0]}", transfer=(), splits=splits)


def _classifiers(recipe: str) -> dict[str, tuple[str, str]]:
    """Return row -> (backbone, top layers)."""
    return {
        f"{backbone}-{slug(spec)}": (backbone, spec)
        for backbone, specs in _CHOICES.get(recipe, {}).items()
        for spec in specs
    }


_WITH_ROWS = (*_CHOICES, "inbreast")
