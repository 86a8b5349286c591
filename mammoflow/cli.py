"""The command line of every job: recipe + overrides -> config, clean ends, exit codes. No Ray, no MLflow.

Exit codes: 0 done; 1 an error that names its remedy; 2 the command line can't be read; 3 more images than allowed
went to quarantine, the good ones are kept; 4 the job's deadline came; 130 Ctrl-C; 143 SIGTERM (`ray job stop`).
Anything else is a bug, with a traceback.
"""

import difflib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import tyro

from mammoflow.cluster import interrupts
from mammoflow.config import Config
from mammoflow.errors import MammoflowError, QuarantineError

T = TypeVar("T")


def parse(manual: str | None, recipes: Mapping[str, Callable[[], Config]], argv: Sequence[str] | None = None) -> Config:
    """Turn `[recipe] [--field value ...]` into a config; without a recipe the first one is taken.

    Args:
        manual: the job's module docstring, shown by --help.
        recipes: name -> function; each name is a subcommand that shows and overrides every field.
        argv: words after the program's name; those of the process by default.

    Raises:
        ConfigError: a field is out of its range.
        SystemExit: 2, an unknown recipe or flag (named, with the nearest ones); 0, --help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = {name: recipe() for name, recipe in recipes.items()}
    default = next(iter(known))
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        words = [default, *words]  # flags alone: they belong to the first recipe
    if words and not words[0].startswith("-") and words[0] not in known:
        near = ", ".join(difflib.get_close_matches(words[0], known, n=3, cutoff=0))
        _stop(
            f"error: recipe is {words[0]!r}, but must be one of the {len(known)} that --help shows, such as {near}", 2
        )
    about = {name: (recipe.__doc__ or "").strip() for name, recipe in recipes.items()}
    kind = tyro.extras.subcommand_type_from_defaults(known, about)
    config = tyro.cli(kind, default=known[default], args=_spelt_out(words), description=_lines(manual), config=_PARSING)
    interrupts.end_at(config.compute.deadline)
    return config


SHORT: Mapping[str, list[str]] = {
    "--max-bad": ["--compute.max-bad"],
    "--retry-quarantined": ["--compute.retry-quarantined", "True"],
    "--dry-run": ["--compute.dry-run", "True"],
    "--deadline": ["--compute.deadline"],
    "--max-hours": ["--search.max-hours"],
    "--max-trials": ["--search.max-trials"],
}
"""Flags that stand for longer ones."""

_PARSING = (tyro.conf.FlagConversionOff,)


def _spelt_out(words: Sequence[str]) -> list[str]:
    """Replace short flags by long ones; a value may follow `=`."""
    parts = [word.partition("=") for word in words]
    return [
        part
        for name, equals, value in parts
        for part in ([SHORT[name][0] + equals + value, *SHORT[name][1:]] if name in SHORT else [name + equals + value])
    ]


def _lines(manual: str | None) -> str:
    """Indent a manual by a space, without which --help would run its lines together."""
    return textwrap.indent(manual or "", " ")


def options(manual: str | None, kind: type[T], argv: Sequence[str] | None = None) -> T:
    """Turn `--field value ...` into a small options dataclass, for jobs without a recipe; a switch takes no value."""
    words = _spelt_out(sys.argv[1:] if argv is None else argv)
    found = tyro.cli(kind, args=words, description=_lines(manual), config=(tyro.conf.FlagCreatePairsOff,))
    interrupts.end_at(getattr(getattr(found, "compute", None), "deadline", None))
    return found


def run(main: Callable[[], None]) -> None:
    """Run a job's main function so that every end is clean and has its exit code (see this module's docstring)."""
    interrupts.listen()
    try:
        main()
    except QuarantineError as error:
        _stop(f"error: {error}", 3)
    except MammoflowError as error:
        _stop(f"error: {error}", 1)
    except KeyboardInterrupt:
        name, code = interrupts.reason()
        _stop(f"stopped by {name}; the same command goes on from here", code)


def _stop(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
