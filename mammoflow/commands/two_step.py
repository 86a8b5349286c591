"""Fit and test the two-step baseline: a random forest on features of the patch classifier's heatmaps.

    mammoflow two-step cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    images/ and the patch classifier of the first ResNet trunk; builds missing inputs first
Writes   two_step/ in the lake: the forest as data, its scores on validation and test
Next     mammoflow report, which shows it beside the end-to-end models
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.ensemble import performance
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, fit and score, print what it reaches."""
    config = cli.parse(
        __doc__, hidden=("start", "transfer", "image_training", "search", "ensemble", "compute.pack", *settings.PLAN)
    )
    artefacts = build.ensure("two_step", config)
    baseline = outcome.baseline(artefacts)
    console.show_baseline(baseline.backbone, performance.measure(baseline.test, baseline.choice))
    console.show_next("report", config)
