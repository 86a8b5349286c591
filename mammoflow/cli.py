"""The command line of every job: recipe + overrides -> config, clean ends, exit codes. No Ray, no MLflow.

Exit codes: 0 done; 1 an error that names its remedy; 2 the command line can't be read; 3 done, but more images
than allowed went to quarantine; 130 Ctrl-C; 143 SIGTERM (`ray job stop`). Anything else is a bug, with a traceback.
"""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TypeVar

import tyro

from mammoflow.config import Config
from mammoflow.errors import MammoflowError, QuarantineError

T = TypeVar("T")


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread so that open runs are closed on the way out."""


def parse(manual: str | None, recipes: Mapping[str, Callable[[], Config]], argv: Sequence[str] | None = None) -> Config:
    """Turn `[recipe] [--field value ...]` into a config; without a recipe the first one is taken.

    Args:
        manual: the job's module docstring, shown by --help.
        recipes: name -> function; each name is a subcommand that shows and overrides every field.
        argv: words after the program's name; those of the process by default.

    Raises:
        ConfigError: a field is out of its range.
        SystemExit: 2, an unknown recipe or flag (named, with the known ones); 0, --help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    default = next(iter(recipes))
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = [default, *words]
    known = {name: ((recipe.__doc__ or "").strip(), recipe()) for name, recipe in recipes.items()}
    return tyro.extras.overridable_config_cli(known, args=words, description=manual or "", config=_PARSING)


_PARSING = (tyro.conf.FlagConversionOff,)


def options(manual: str | None, kind: type[T], argv: Sequence[str] | None = None) -> T:
    """Turn `--field value ...` into a small options dataclass, for jobs that need no recipe."""
    return tyro.cli(kind, args=argv, description=manual or "", config=_PARSING)


def run(main: Callable[[], None]) -> None:
    """Run a job's main function so that every end is clean and has its exit code (see this module's docstring)."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        main()
    except QuarantineError as error:
        _stop(f"error: {error}", 3)
    except MammoflowError as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt:
        _stop("stopped by Ctrl-C; the same command goes on from here", 130)
    except Terminated:
        _stop("stopped by SIGTERM; the same command goes on from here", 143)


def on_sigterm() -> None:
    """Take SIGTERM back from Ray, which takes it over when a driver connects."""
    signal.signal(signal.SIGTERM, _raise_terminated)


def _raise_terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _stop(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
