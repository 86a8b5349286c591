"""Make a registered model the champion that jobs/score.py uses, or look back. Never trains.

    python jobs/promote.py                     # the version with alias `candidate`
    python jobs/promote.py --version 3 --force
    python jobs/promote.py --rollback          # to the version that the champion replaced
    python jobs/promote.py --history           # every move there was

A new champion must not be worse: on the validation images of both, the lower end of the 95% interval of the difference
in AUC lies above -0.02. Whatever moves is written down, forced moves as such.

Reads    the model registry
Writes   alias `champion` of the registered model; MLflow experiment "promotions"
Next     jobs/score.py
"""

from dataclasses import dataclass

from mammoflow import cli, console, lake, tracking
from mammoflow.errors import ConfigError
from mammoflow.registry import promotion


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to promote."""

    name: str = "mammoflow"
    """Name of the registered model."""
    version: str | None = None
    """Version to promote; else the one with alias `candidate`."""
    force: bool = False
    """Promote whatever the comparison with the champion says."""
    rollback: bool = False
    """Go back to the version that the champion replaced."""
    history: bool = False
    """Only print every move of the champion."""
    lake: str | None = None
    """The lake whose registry is meant, where MLFLOW_TRACKING_URI names none."""


def main() -> None:
    """Move the alias and print where it points, or what moved it."""
    options = cli.options(__doc__, Options)
    uri = tracking.uri(lake.Lake(lake.resolve_root(options.lake)))
    tracking.check_registry(uri)
    if options.rollback and (options.version or options.force):
        raise ConfigError("--rollback knows its version; leave --version and --force out")
    if options.history:
        console.show_moves(options.name, promotion.history(uri, options.name))
        return
    if options.rollback:
        move = promotion.rollback(uri, options.name)
    else:
        move = promotion.promote(uri, options.name, options.version, force=options.force)
    console.show_moves(options.name, [move])
    print(f"models:/{options.name}@champion is version {move.version} at {tracking.public(uri)}")
    console.show_scoring(options.name, options.lake)


if __name__ == "__main__":
    cli.run(main)
