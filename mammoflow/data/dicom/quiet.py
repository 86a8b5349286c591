"""Silence parsers of patients' files, whose warnings and logs quote names, dates and ids. No Ray."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("pydicom", "openjpeg", "libjpeg", "pylibjpeg", "PIL")

_nowhere = logging.NullHandler()
_lock = threading.Lock()
_inside = 0
_kept: list[tuple[list[logging.Handler], bool]] = []
_caught = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and log records of parsers and codecs; several threads may be inside at once.

    Warnings and loggers belong to the process, so the first thread in silences them and the last one out restores them.
    """
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
        for name in _LOGGERS:  # levels stay: changing one clears the level cache of every logger
            logger = logging.getLogger(name)
            _kept.append((logger.handlers, logger.propagate))
            logger.handlers, logger.propagate = [_nowhere], False


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside:
            return
        for name, (handlers, propagate) in zip(_LOGGERS, _kept, strict=True):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
        _kept.clear()
        _caught.__exit__(None, None, None)
