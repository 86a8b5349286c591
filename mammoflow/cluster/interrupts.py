"""How a job ends early: SIGTERM, Ctrl-C, a deadline. No Ray.

Ray and Python swallow some exceptions that a signal raises; this module notices and raises them again.
"""

import os
import signal
import sys
import threading
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Raised in the main thread, so that open runs are closed on the way out.

    Ray's waiting calls pass on a KeyboardInterrupt, and turn any other exception into a SystemError.
    """


_terminated = threading.Event()
"""SIGTERM arrived, even if its exception was lost."""

_late = threading.Event()
"""The job sent SIGTERM to itself at its deadline."""


def listen() -> None:
    """Make SIGTERM raise `Terminated` in this process, and forget an earlier one."""
    _terminated.clear()
    _late.clear()
    on_sigterm()
    sys.unraisablehook = _signal_again


def reason() -> tuple[str, int]:
    """Return what ended the job, and its exit code. Later SIGTERMs are ignored."""
    cause = ("its deadline", 4) if _late.is_set() else ("SIGTERM", 143) if _terminated.is_set() else ("Ctrl-C", 130)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would only disturb the cleanup
    return cause


def end_at(hours: float | None) -> None:
    """End this process as by SIGTERM after a number of hours; None means never."""
    if hours is not None:
        timer = threading.Timer(hours * 3600, _be_late)
        timer.daemon = True
        timer.start()


def _be_late() -> None:
    _late.set()
    os.kill(os.getpid(), signal.SIGTERM)


def on_sigterm() -> None:
    """Reinstall the handler, which Ray replaces when a driver connects."""
    signal.signal(signal.SIGTERM, _raise_terminated)


def check_terminated() -> None:
    """Raise again if SIGTERM came but its exception was lost, as in a callback that catches everything.

    Raises:
        Terminated: SIGTERM has arrived.
    """
    if _terminated.is_set():
        raise Terminated


def _raise_terminated(_signal: int, _frame: FrameType | None) -> None:
    _terminated.set()
    raise Terminated


def _signal_again(lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose exception Python dropped, in a finalizer or a weakref's callback."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        again = threading.Timer(0.02, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
