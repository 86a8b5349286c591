"""The whole path on phantoms: draw, ingest, train, search, choose, register, promote, evaluate, report.

    python jobs/demo.py                 # the recipe `demo`
    python jobs/demo.py smoke           # the same path in a minute; learns next to nothing

Reads    nothing; with another recipe and --source, that release
Writes   everything in the lake, the registered model with alias `champion`, and <lake>/summary.json
Next     jobs/score.py
"""

from mammoflow import cli, findings, lake, pipeline, recipes, tables, tracking
from mammoflow.results import promotion


def main() -> None:
    """Build all, promote, print the table, the model's URI and the report's path."""
    config = cli.parse(__doc__, recipes.ALL)
    artefacts = pipeline.ensure("report", config)
    model = artefacts.registered.summary()
    promotion.promote(tracking.uri(artefacts.lake), model["name"], model["version"], force=True)
    summary = findings.summarise(artefacts)
    lake.write_json(lake.join(artefacts.lake.root, "summary.json"), summary)
    tables.show_data(artefacts.images, artefacts.patches)
    tables.show_quarantine([artefacts.images, artefacts.patches], config.source)
    tables.show_scores(summary)
    print(f"registered: {summary['registered']} (version {model['version']}) at {model['tracking_uri']}")
    print(f"report:     {artefacts.report.file('report.html')}")
    print(f"summary:    {lake.join(artefacts.lake.root, 'summary.json')}")
    tables.show_scoring(model["name"], config.lake)


if __name__ == "__main__":
    cli.run(main)
