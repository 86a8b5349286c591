"""How a job ends early: SIGTERM, Ctrl-C, a deadline. No Ray.

Ray and Python lose some exceptions that a signal raises; what is here notices and raises them again.
"""

import os
import signal
import sys
import threading
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; raised in the main thread so that open runs are closed on the way out.

    Ray's waiting calls let a KeyboardInterrupt out, as a plain one; any other exception they turn into a SystemError.
    """


_terminated = threading.Event()
"""SIGTERM arrived, whatever became of its exception."""

_late = threading.Event()
"""The job sent it to itself at its deadline."""


def listen() -> None:
    """Have SIGTERM raise `Terminated` in this process, and forget an earlier one."""
    _terminated.clear()
    _late.clear()
    on_sigterm()
    sys.unraisablehook = _signal_again


def reason() -> tuple[str, int]:
    """Return what ended the job, and the exit code for it; any later SIGTERM is ignored."""
    found = ("its deadline", 4) if _late.is_set() else ("SIGTERM", 143) if _terminated.is_set() else ("Ctrl-C", 130)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would only disturb the way out
    return found


def end_at(hours: float | None) -> None:
    """Have this process end as by SIGTERM once so many hours are over."""
    if hours is not None:
        timer = threading.Timer(hours * 3600, _be_late)
        timer.daemon = True
        timer.start()


def _be_late() -> None:
    _late.set()
    os.kill(os.getpid(), signal.SIGTERM)


def on_sigterm() -> None:
    """Take SIGTERM back from Ray, which takes it over when a driver connects."""
    signal.signal(signal.SIGTERM, _raise_terminated)


def check_terminated() -> None:
    """Raise anew where SIGTERM came but its exception was lost, as in a callback that catches everything.

    Raises:
        Terminated: SIGTERM has arrived.
    """
    if _terminated.is_set():
        raise Terminated


def _raise_terminated(_signal: int, _frame: FrameType | None) -> None:
    _terminated.set()
    raise Terminated


def _signal_again(lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal once more whose exception was lost: in a finalizer or a weakref's callback Python drops it."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        again = threading.Timer(0.02, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)
