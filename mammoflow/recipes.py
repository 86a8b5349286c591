"""Recipes: functions that return a whole `Config`. Imports only config.

The command line shows each with every number, and overrides any of them. `smoke` and `demo` draw phantoms;
the others hold the numbers of Shen et al. 2019 and want `--source`.
"""

from collections.abc import Callable, Mapping

from mammoflow.config import (
    AugmentConfig,
    ComputeConfig,
    Config,
    ImageConfig,
    ImageTrainingConfig,
    PatchConfig,
    PatchTrainingConfig,
    PhantomConfig,
    SearchConfig,
    SplitConfig,
    StageConfig,
    TrunkConfig,
)

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
    )


def _cbis_s10(name: str, top_layers: Mapping[str, tuple[str, ...]]) -> Config:
    trunks = [
        TrunkConfig(backbone=backbone, weights="imagenet", top_layers=tops) for backbone, tops in top_layers.items()
    ]
    return Config(
        name=name,
        phantoms=PhantomConfig(patients=0),
        trunks=tuple(trunks),
        search=SearchConfig(survivors="all"),
        image_training=ImageTrainingConfig(resume=200),
        compute=ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8),
    )


def cbis_s10_resnet50() -> Config:
    """CBIS-DDSM, S10, Resnet50 from ImageNet weights, the all-convolutional rows of Table 2. Wants --source."""
    return _cbis_s10("cbis-s10-resnet50", {"resnet50": RESNET50_TOP_LAYERS})


def cbis_s10_vgg16() -> Config:
    """CBIS-DDSM, S10, VGG16 from ImageNet weights, the all-convolutional rows of Table 3. Wants --source."""
    return _cbis_s10("cbis-s10-vgg16", {"vgg16": VGG16_TOP_LAYERS})


def cbis_s10() -> Config:
    """CBIS-DDSM, S10, both trunks: the four kinds of classifier, and the ensemble of them. Wants --source."""
    return _cbis_s10("cbis-s10", {"resnet50": RESNET50_TOP_LAYERS, "vgg16": VGG16_TOP_LAYERS})


ALL: Mapping[str, Callable[[], Config]] = {
    "demo": demo,
    "smoke": smoke,
    "cbis-s10-resnet50": cbis_s10_resnet50,
    "cbis-s10-vgg16": cbis_s10_vgg16,
    "cbis-s10": cbis_s10,
}
"""Every recipe by the name that the command line takes; the first is the default."""
