r"""The two-step baseline: a random forest on figures of the patch classifier's heatmaps, fitted, frozen, tested.

    ray job submit --working-dir . -- python jobs/two_step.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    images/ and the patch classifier of the first ResNet trunk; builds what is missing
Writes   two_step/ in the lake: the forest as data, its scores on validation and test
Next     jobs/report.py, which shows it beside the end-to-end models
"""

from mammoflow import cli, console, recipes
from mammoflow.ensemble import performance
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, fit and score, print what it reaches."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = build.ensure("two_step", config)
    baseline = outcome.baseline(artefacts)
    console.show_baseline(baseline.backbone, performance.measure(baseline.test, baseline.choice))
    console.show_next("report", config)


if __name__ == "__main__":
    cli.run(main)
