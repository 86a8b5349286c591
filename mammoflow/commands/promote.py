"""Make a registered version the champion that `mammoflow score` uses, or go back. Never trains.

    mammoflow promote                     # the version with alias `candidate`
    mammoflow promote --version 3 --force
    mammoflow promote --rollback          # the version that the champion replaced
    mammoflow promote --history           # all moves of the champion

A new champion must not be worse: on the same validation images, the lower end of the 95% interval of the difference
in AUC must be above -0.02. Every move is logged; forced moves are marked.

Reads    the model registry
Writes   alias `champion` of the registered model; MLflow experiment "promotions"
Next     mammoflow score
"""

from dataclasses import dataclass

from mammoflow import cli, console, lake, tracking
from mammoflow.errors import ConfigError
from mammoflow.registry import promotion
from mammoflow.registry.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Options:
    """Model and version."""

    name: str = "mammoflow"
    """Name of the registered model."""
    version: str | None = None
    """Version to promote; else the one with alias `candidate`."""
    force: bool = False
    """Promote even if the comparison with the champion fails."""
    rollback: bool = False
    """Return to the version that the champion replaced."""
    history: bool = False
    """Print all moves of the champion and change nothing."""
    lake: str | None = None
    """Lake whose registry is used unless MLFLOW_TRACKING_URI is set."""


def main() -> None:
    """Move the alias and print where it points, or print its history."""
    options = cli.options(__doc__, Options)
    uri = tracking.uri(lake.Lake(lake.resolve_root(options.lake)))
    tracking.check_registry(uri)
    registry = Registry(uri)
    if options.rollback and (options.version or options.force):
        raise ConfigError(
            "--rollback returns to the version that the champion replaced; leave --version and --force out"
        )
    if options.history:
        console.show_moves(options.name, promotion.history(registry, options.name))
        return
    if options.rollback:
        move = promotion.rollback(registry, options.name)
    else:
        move = promotion.promote(registry, options.name, options.version, force=options.force)
    console.show_moves(options.name, [move])
    print(f"models:/{options.name}@champion is version {move.version} at {tracking.public(uri)}")
    console.show_scoring(options.name, options.lake)
