"""What fields of settings are made of: marks and checks."""

from dataclasses import field
from typing import Any

from mammoflow.errors import ConfigError


def how(default: Any) -> Any:
    """Mark a field that decides how, not what: it never enters a fingerprint."""
    return field(default=default, metadata={"science": False})


_DEFAULT = object()


def added(default: Any, *, absent: Any = _DEFAULT) -> Any:
    """Declare a new science field, without renaming the artefacts that exist.

    Args:
        default: its default.
        absent: the value that means what was done before the field existed, and stays out of fingerprints; by default
            `default`. It never changes. Where the default changes later, give the first one here.
    """
    return field(default=default, metadata={"absent": default if absent is _DEFAULT else absent})


def renamed(default: Any, *, was: str) -> Any:
    """Declare a science field under a new name; fingerprints keep `was`, its first one."""
    return field(default=default, metadata={"was": was})


def require(ok: bool, what: str, value: object, limit: str, remedy: str) -> None:
    """Raise `ConfigError` naming value, limit and remedy unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} is {value!r}, but must be {limit}; {remedy}")
