"""Read and write facts as JSON: one codec for every record that mammoflow keeps or publishes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from mammoflow.errors import LakeError

T = TypeVar("T")


def to_json(record: Any) -> bytes:
    """Return a record as indented JSON, keys sorted. NaN and infinities become null, NumPy numbers plain ones."""
    plain = msgspec.to_builtins(record, enc_hook=_plain, builtin_types=(), str_keys=True)
    return msgspec.json.format(msgspec.json.encode(plain, order="deterministic"), indent=1) + b"\n"


def from_json(data: bytes, kind: type[T], where: str) -> T:
    """Return the record that a JSON text holds.

    Args:
        data: the text.
        kind: the record's class. Keys that it does not know are ignored.
        where: the file's URL, for errors.

    Raises:
        LakeError: the text is damaged, or a field is missing or of another type.
    """
    with _naming(kind, where):
        return msgspec.json.decode(data, type=kind, strict=False)


def from_plain(value: Any, kind: type[T], where: str) -> T:
    """Return the record that plain values hold: `from_json` for JSON that is already parsed.

    Raises:
        LakeError: a field is missing or of another type.
    """
    with _naming(kind, where):
        return msgspec.convert(value, kind, strict=False)


@contextmanager
def _naming(kind: type, where: str) -> Iterator[None]:
    """Name the file and the remedy in an error."""
    try:
        yield
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise LakeError(
            f"{where} holds no {kind.__name__} that this version of mammoflow can read ({error}); "
            "remove its artefact with jobs/lake.py and run its job again"
        ) from error


def _plain(value: Any) -> Any:
    """Return a NumPy number or array as plain values."""
    if hasattr(value, "tolist"):
        plain = value.tolist()
        return None if isinstance(plain, float) and not math.isfinite(plain) else plain
    raise TypeError(f"a {type(value).__name__} can't be written as JSON")
