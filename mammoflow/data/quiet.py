"""Silence around parsers of patients' files: what they warn of quotes names, dates and ids. No Ray."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("pydicom", "openjpeg", "libjpeg", "pylibjpeg", "PIL")

_lock = threading.Lock()
_inside = 0
_levels: list[int] = []
_caught = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings and log records of parsers and codecs; threads may be inside at the same time."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _caught
    with _lock:
        _inside += 1
        if _inside > 1:
            return
        _caught = warnings.catch_warnings()
        _caught.__enter__()
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            _levels.append(logger.level)
            logger.setLevel(logging.CRITICAL + 1)


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside:
            return
        for name, level in zip(_LOGGERS, _levels, strict=True):
            logging.getLogger(name).setLevel(level)
        _levels.clear()
        _caught.__exit__(None, None, None)
