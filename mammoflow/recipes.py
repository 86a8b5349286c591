"""Recipes: functions that return a whole `Config`. Imports only config and the language of top layers.

The command line shows each with every number, and overrides any of them. `smoke` and `demo` draw phantoms;
the others hold the numbers of Shen et al. 2019 and want `--source`.
"""

from collections.abc import Callable, Mapping
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
"""Multi-instance heads on the heatmap, in no table: to compare with the works that the paper names."""


def smoke() -> Config:
    """Phantoms, the whole path in seconds of training: shows that everything works, learns next to nothing."""
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
    """Phantoms, small images and two small trunks: the method's four kinds of classifier in minutes on two cores."""
    gentle = AugmentConfig(
        shear=0.1, zoom=0.1, channel_shift=5.0
    )  # the paper's ranges want more epochs than a demo has
    patch_training = PatchTrainingConfig(
        stages=(StageConfig(trained="all", lr=1e-3, epochs=6), StageConfig(trained="all", lr=1e-4, epochs=2)),
        batch=16,
        augment=gentle,
        recalibrate=30,
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
            recalibrate=30,
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
    """Return the paper's settings for CBIS-DDSM: the top layers of each backbone, on patch classifiers of one set.

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
    """CBIS-DDSM, S10, Resnet50 from ImageNet weights, the all-convolutional rows of Table 2. Wants --source."""
    return _cbis("cbis-s10-resnet50", {"resnet50": RESNET50_TOP_LAYERS})


def cbis_s10_vgg16() -> Config:
    """CBIS-DDSM, S10, VGG16 from ImageNet weights, the all-convolutional rows of Table 3. Wants --source."""
    return _cbis("cbis-s10-vgg16", {"vgg16": VGG16_TOP_LAYERS})


def cbis_s10() -> Config:
    """CBIS-DDSM, S10, both trunks: the four kinds of classifier, and the ensemble of them. Wants --source."""
    return _cbis("cbis-s10", {"resnet50": RESNET50_TOP_LAYERS, "vgg16": VGG16_TOP_LAYERS})


def cbis_s10_tables() -> Config:
    """CBIS-DDSM, S10, both trunks: every S10 row of tables 2 and 3, heatmaps and FC layers too. Wants --source."""
    return _cbis(
        "cbis-s10-tables",
        {
            "resnet50": (*RESNET50_TOP_LAYERS, *HEATMAP_TOP_LAYERS, *FC_TOP_LAYERS),
            "vgg16": (*VGG16_TOP_LAYERS, *FC_TOP_LAYERS),
        },
    )


def cbis_s10_free() -> Config:
    """CBIS-DDSM, S10, both trunks: 32 top layers drawn on each, halved at 5, 10 and 20 epochs. Wants --source."""
    search = SearchConfig(drawn=32, rungs=(5, 10, 20))
    return _cbis("cbis-s10-free", {"resnet50": (), "vgg16": ()}, search=search)


def cbis_s1_resnet50() -> Config:
    """CBIS-DDSM, S1, Resnet50 from ImageNet weights: of Table 1, and the first row of Table 2. Wants --source."""
    return _cbis("cbis-s1-resnet50", {"resnet50": RESNET50_TOP_LAYERS[:1]}, patch_set="S1")


def cbis_s1_resnet50_random() -> Config:
    """CBIS-DDSM, S1, Resnet50 from random weights: the first row of Table 1. Wants --source."""
    return _cbis("cbis-s1-resnet50-random", {"resnet50": RESNET50_TOP_LAYERS[:1]}, patch_set="S1", weights=None)


def cbis_s10_resnet50_random() -> Config:
    """CBIS-DDSM, S10, Resnet50 from random weights: of Table 1. Wants --source."""
    return _cbis("cbis-s10-resnet50-random", {"resnet50": RESNET50_TOP_LAYERS}, weights=None)


def _row(patch_set: Literal["S1", "S10"], backbone: str, top_layers: str, where: str) -> Callable[[], Config]:
    """Return the recipe of one whole-image classifier."""

    def recipe() -> Config:
        """Return it; below it gets a name and words of its own."""
        return _cbis(name, {backbone: (top_layers,)}, patch_set=patch_set)

    name = f"cbis-{patch_set.lower()}-{backbone}-{slug(top_layers)}"
    recipe.__name__ = name
    recipe.__doc__ = f"CBIS-DDSM, {patch_set}, {backbone} from ImageNet weights, {top_layers}: {where}. Wants --source."
    return recipe


_ROWS = (
    _row("S1", "resnet50", RESNET50_TOP_LAYERS[0], "of Table 2"),
    *(
        _row("S10", "resnet50", top, "of Table 2")
        for top in (*RESNET50_TOP_LAYERS, *HEATMAP_TOP_LAYERS, *FC_TOP_LAYERS)
    ),
    *(_row("S10", "vgg16", top, "of Table 3") for top in (*VGG16_TOP_LAYERS, *FC_TOP_LAYERS)),
    *(_row("S10", "vgg16_bn", top, "Table 3 with BatchNorm in the trunk, in no table") for top in VGG16_TOP_LAYERS),
    *(_row("S10", "resnet50", top, "a multi-instance head, in no table") for top in INSTANCE_TOP_LAYERS),
)


def _inbreast(patients: int | None) -> Callable[[], Config]:
    """Return the recipe of the paper's transfer to INbreast, with so many patients to train on; None: each in turn."""

    def recipe() -> Config:
        """Return it; below it gets a name and words of its own."""
        return Config(
            name=name,
            dataset="inbreast",
            start="models:/mammoflow@champion",
            phantoms=PhantomConfig(patients=0),
            transfer=_PATIENTS if patients is None else (),
            splits=SplitConfig(protocol="70-30", patients=patients, val=0.2),
            image_training=ImageTrainingConfig(
                stages=(
                    StageConfig(trained="last", lr=1e-4, epochs=0),
                    StageConfig(trained="all", lr=1e-5, epochs=200, weight_decay=0.01),
                )
            ),
            search=SearchConfig(survivors="all"),
            ensemble=EnsembleConfig(model_name="mammoflow-inbreast"),  # its champion is not what this begins from
            compute=ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8),
        )

    name = f"inbreast-{patients}" if patients else "inbreast"
    recipe.__name__ = name
    recipe.__doc__ = (
        f"INbreast, the champion's members trained on with {patients or '20 to 72'} patients: Table 4. The paper chose "
        "epochs by the films that it reports; here a fifth of these patients is for that. Wants --source."
    )
    return recipe


_PATIENTS = (20, 30, 40, 50, 60, 72)
_TRANSFERS = (_inbreast(None), *(_inbreast(patients) for patients in _PATIENTS))

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
    **{recipe.__name__: recipe for recipe in (*_ROWS, *_TRANSFERS)},
}
"""Every recipe by the name that the command line takes; the first is the default."""
