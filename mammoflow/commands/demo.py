"""Run the whole path on phantoms: draw, ingest, train, search, select, register, promote, evaluate, report.

    mammoflow demo                 # the recipe `demo`
    mammoflow demo smoke           # the same path in a minute; learns next to nothing

Reads    nothing; with another recipe and --source, that release
Writes   everything in the lake, the registered model with alias `champion`, and <lake>/summary.json
Next     mammoflow score
"""

from mammoflow import cli, console, lake, tracking
from mammoflow.commands import settings
from mammoflow.facts import codec
from mammoflow.facts.stages import RegisteredFacts
from mammoflow.pipeline import build, outcome
from mammoflow.registry import promotion
from mammoflow.registry.registry import Registry


def main() -> None:
    """Build all, promote, print the table, the model's URI and the report's path."""
    config = cli.parse(__doc__, hidden=("transfer", *settings.PLAN))
    artefacts = build.ensure("report", config)
    model = artefacts.registered.facts(RegisteredFacts)
    promotion.promote(Registry(tracking.uri(artefacts.lake)), model.name, model.version, force=True)
    summary = outcome.summarise(artefacts)
    lake.write_bytes(lake.join(artefacts.lake.root, "summary.json"), codec.to_json(summary))
    console.show_data(artefacts.images, artefacts.patches)
    console.show_quarantine([artefacts.images, artefacts.patches], config.source)
    console.show_scores(summary)
    print(f"registered: {summary.registered} (version {model.version}) at {model.tracking_uri}")
    print(f"report:     {artefacts.report.file('report.html')}")
    print(f"summary:    {lake.join(artefacts.lake.root, 'summary.json')}")
    console.show_scoring(model.name, config.lake)
