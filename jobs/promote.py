"""Make a registered model the champion that jobs/score.py uses. Never trains.

    python jobs/promote.py                     # the version with alias `candidate`
    python jobs/promote.py --version 3 --force

Reads    the model registry
Writes   alias `champion` of the registered model
Next     jobs/score.py
"""

from dataclasses import dataclass

from mammoflow import cli, lake, tables, tracking
from mammoflow.results import registered_model


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to promote."""

    name: str = "mammoflow"
    """Name of the registered model."""
    version: str | None = None
    """Version to promote; else the one with alias `candidate`."""
    force: bool = False
    """Promote even where validation AUC is lower than the champion's."""
    lake: str | None = None
    """The lake whose registry is meant, where MLFLOW_TRACKING_URI names none."""


def main() -> None:
    """Move the alias and print where it points."""
    options = cli.options(__doc__, Options)
    uri = tracking.uri(lake.Lake(lake.resolve_root(options.lake)))
    tracking.check_registry(uri)
    version = registered_model.promote(uri, options.name, options.version, force=options.force)
    print(f"models:/{options.name}@champion is version {version} at {uri}")
    tables.show_scoring(options.name, options.lake)


if __name__ == "__main__":
    cli.run(main)
