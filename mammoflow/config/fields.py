"""What fields of settings are made of: marks and checks."""

from dataclasses import field
from typing import Any

from mammoflow.errors import ConfigError


def how(default: Any) -> Any:
    """Mark a field as one that decides how, not what: it never enters a fingerprint."""
    return field(default=default, metadata={"science": False})


def require(ok: bool, what: str, value: object, limit: str, remedy: str) -> None:
    """Raise `ConfigError` naming value, limit and remedy unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} is {value!r}, but must be {limit}; {remedy}")
