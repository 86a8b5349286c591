"""The paper's own figures, to stand beside ours: tables 1 to 4, and its ensemble. Imports the records alone.

They belong to CBIS-DDSM's training release split 85-15 by patient; beside figures of other images or another split
they are a reference, not a comparison. Source: Shen et al., Sci Rep 9:12495, 2019.
"""

from mammoflow.facts.published import PaperPatchRow, PaperRow, References


def _row(table: int, patch_set: str, top_layers: str, plain_auc: float, auc: float | None, epoch: int) -> PaperRow:
    backbone = {2: "resnet50", 3: "vgg16"}[table]
    return PaperRow(
        table=table,
        backbone=backbone,
        patch_set=patch_set,
        top_layers=top_layers,
        plain_auc=plain_auc,
        auc=auc,
        epoch=epoch,
    )


ROWS = (
    _row(2, "S1", "[512-512-2048]x1,[512-512-2048]x1", 0.63, None, 35),
    _row(2, "S10", "[512-512-2048]x1,[512-512-2048]x1", 0.85, 0.87, 20),
    _row(2, "S10", "[512-512-1024]x2,[512-512-1024]x2", 0.85, 0.87, 34),
    _row(2, "S10", "[256-256-256]x1,[128-128-128]x1", 0.84, 0.85, 25),
    _row(2, "S10", "[256-256-256]x3,[128-128-128]x3", 0.83, 0.84, 17),
    _row(2, "S10", "[256-256-512]x3,[128-128-256]x3", 0.84, 0.87, 48),
    _row(2, "S10", "256x1,128x1", 0.87, 0.88, 36),
    _row(2, "S10", "heatmap,[512-512-1024]x2,[512-512-1024]x2", 0.80, None, 47),
    _row(2, "S10", "heatmap,[64-64-256]x2,[128-128-512]x2", 0.81, None, 41),
    _row(2, "S10", "fc-pool5-64-32", 0.73, None, 28),
    _row(2, "S10", "fc-pool2-512-256", 0.72, None, 47),
    _row(2, "S10", "fc-pool1-2048-1024", 0.65, None, 43),
    _row(3, "S10", "512x3,512x3", 0.81, 0.82, 91),
    _row(3, "S10", "512x1,512x1", 0.83, 0.86, 98),
    _row(3, "S10", "256x3,128x3", 0.83, 0.85, 51),
    _row(3, "S10", "256x1,128x1", 0.85, 0.86, 61),
    _row(3, "S10", "128x1,64x1", 0.84, 0.85, 142),
    _row(3, "S10", "[512-512-1024]x2,[512-512-1024]x2", 0.85, 0.88, 165),
    _row(3, "S10", "fc-pool5-64-32", 0.71, None, 26),
    _row(3, "S10", "fc-pool2-512-256", 0.68, None, 27),
    _row(3, "S10", "fc-pool1-2048-1024", 0.69, None, 50),
)
"""Tables 2 and 3."""

ENSEMBLE_AUC = 0.91
"""Mean of the paper's best four, chosen on its test set."""
ENSEMBLE_POINT = (0.861, 0.801)
"""Its sensitivity and specificity."""


PATCH_ROWS = (
    PaperPatchRow(backbone="resnet50", weights=None, patch_set="S1", accuracy=0.97, epoch=198),
    PaperPatchRow(backbone="resnet50", weights="imagenet", patch_set="S1", accuracy=0.99, epoch=99),
    PaperPatchRow(backbone="resnet50", weights=None, patch_set="S10", accuracy=0.63, epoch=24),
    PaperPatchRow(backbone="resnet50", weights="imagenet", patch_set="S10", accuracy=0.89, epoch=39),
    PaperPatchRow(backbone="vgg16", weights="imagenet", patch_set="S10", accuracy=0.84, epoch=25),
)
"""Table 1."""

WAYS = {
    "two-step baseline": 0.73,
    "heatmap + FC": 0.73,
    "heatmap": 0.81,
    "all-convolutional": 0.88,
    "mean of the best of each kind": 0.91,
}
"""Its best test AUC by each way to a whole-image score, flip-averaged where it gives that; tables 2 and 3, and text."""

REFERENCES = References(cad_auc=0.72, radiologists_sensitivity=0.844, radiologists_specificity=0.908)

TRANSFER = (
    (20, 79, {"Resnet-Resnet": 0.92, "Resnet-VGG": 0.88, "VGG-VGG": 0.87, "VGG-Resnet": 0.89}),
    (30, 117, {"Resnet-Resnet": 0.93, "Resnet-VGG": 0.94, "VGG-VGG": 0.93, "VGG-Resnet": 0.90}),
    (40, 159, {"Resnet-Resnet": 0.93, "Resnet-VGG": 0.95, "VGG-VGG": 0.93, "VGG-Resnet": 0.93}),
    (50, 199, {"Resnet-Resnet": 0.94, "Resnet-VGG": 0.95, "VGG-VGG": 0.94, "VGG-Resnet": 0.93}),
    (60, 239, {"Resnet-Resnet": 0.95, "Resnet-VGG": 0.95, "VGG-VGG": 0.95, "VGG-Resnet": 0.94}),
    (72, 280, {"Resnet-Resnet": 0.95, "Resnet-VGG": 0.95, "VGG-VGG": 0.95, "VGG-Resnet": 0.95}),
)
"""Table 4: patients, images, test AUC per image on INbreast of each kind trained on."""


def find(backbone: str, patch_set: str, top_layers: str) -> PaperRow | None:
    """Return the paper's row of this very model, or None where it has none."""
    model = (backbone, patch_set, top_layers.replace(" ", ""))
    return next((row for row in ROWS if (row.backbone, row.patch_set, row.top_layers) == model), None)


def find_patch(backbone: str, weights: str | None, patch_set: str) -> PaperPatchRow | None:
    """Return the paper's row of this very patch classifier, or None where it has none."""
    trained = (backbone, weights, patch_set)
    return next((row for row in PATCH_ROWS if (row.backbone, row.weights, row.patch_set) == trained), None)
