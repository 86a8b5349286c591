"""mammoflow: screening mammograms in, a whole-image cancer classifier out, on Ray.

    import mammoflow
    mammoflow.load("models:/mammoflow@champion").score(["a.dcm", "b.dcm"])
    mammoflow.open_lake("/data/lake").images(columns=["image_id", "label"])
    mammoflow.read_run("/data/lake", "demo").search.ranking

These functions need no Ray cluster. The command `mammoflow` trains: `mammoflow --help`. Importing this package imports
nothing else and has no effect; `api` is imported with the first use of one of its names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoflow.api import load, open_lake, read_run

__version__ = "0.1.0"

__all__ = ["__version__", "load", "open_lake", "read_run"]


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    if name in __all__:
        from mammoflow import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its API is {', '.join(__all__)}")
