r"""Score the test split, once members and operating point are frozen: per-image AUCs with 95% intervals.

    ray job submit --working-dir . -- python jobs/evaluate.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    ensemble/ and the test images; builds what is missing
Writes   evaluation/ in the lake: one row per image and model, and the patch classifiers' test accuracy
Next     jobs/promote.py, jobs/report.py
"""

from mammoflow import cli, console, recipes
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, score the test split, print the tables; without a registered ensemble that comes next."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = build.ensure("evaluation", config)
    console.show_scores(outcome.summarise(artefacts))
    if artefacts.registered.done:
        outcome.tag_test_figures(artefacts)
        console.show_promotion(config)
        console.show_next("report", config)
    else:
        console.show_next("select_ensemble", config)


if __name__ == "__main__":
    cli.run(main)
