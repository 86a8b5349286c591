r"""Score the test split, once members and operating point are frozen: per-image AUCs with 95% intervals.

    ray job submit --working-dir . -- python jobs/evaluate.py cbis-s10-resnet50 \
        --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    ensemble/ and the test images; builds what is missing
Writes   evaluation/ in the lake: one row per image and model, and the patch classifiers' test accuracy
Next     jobs/promote.py, jobs/report.py
"""

from mammoflow import cli, findings, pipeline, recipes, tables


def main() -> None:
    """Print the plan, score the test split, print the tables; without a registered ensemble that comes next."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = pipeline.ensure("evaluation", config)
    tables.show_scores(findings.summarise(artefacts))
    if artefacts.registered.done:
        findings.tag_test_figures(artefacts)
        tables.show_promotion(config)
        tables.show_next("report", config)
    else:
        tables.show_next("select_ensemble", config)


if __name__ == "__main__":
    cli.run(main)
