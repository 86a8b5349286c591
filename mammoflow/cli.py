"""The command line of every job: recipe and flags to a config, exit codes. No Ray, no MLflow.

Exit codes: 0 done; 1 an error that names its remedy; 2 unreadable command line; 3 more images than allowed went to
quarantine, the good ones are kept; 4 the job's deadline passed; 130 Ctrl-C; 143 SIGTERM (`ray job stop`).
Anything else is a bug, with a traceback.
"""

import dataclasses
import difflib
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from mammoflow import recipes
from mammoflow.cluster import interrupts
from mammoflow.config import Config
from mammoflow.errors import ConfigError, MammoflowError, QuarantineError

T = TypeVar("T")

_HELP = ("-h", "--help", "-H", "--help-verbose")


def parse(manual: str | None, argv: Sequence[str] | None = None, *, hidden: Collection[str] = ()) -> Config:
    """Turn `[recipe] [--only row ...] [--field value ...]` into a config; the default recipe is `recipes.ALL`'s first.

    Args:
        manual: the command's module docstring, shown by --help.
        argv: words after the program's name; those of the process by default.
        hidden: settings that the command does not use, such as `search` or `compute.gpu`. Its help leaves them out.
            They are accepted all the same, so that one set of flags serves every job of a run.

    Raises:
        ConfigError: a field is out of its range, or the recipe has no such row.
        SystemExit: 2, an unknown recipe or flag (named, with the nearest ones); 0, --help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _HELP:
        print(_overview(manual))
        sys.exit(0)
    recipe = words.pop(0) if words and not words[0].startswith("-") else next(iter(recipes.ALL))
    if recipe not in recipes.ALL:
        near = ", ".join(difflib.get_close_matches(recipe, recipes.ALL, n=3, cutoff=0))
        stop(f"error: recipe is {recipe!r}, but must be one of {', '.join(recipes.ALL)}; nearest: {near}", 2)
    only, words = _only(words)
    default = recipes.load(recipe, only)
    prog = f"{_prog()} {recipe}"
    if any(word in _HELP for word in words):
        kind = _shown(Config, default, hidden, recipes.rows(recipe))
        tyro.cli(kind, prog=prog, args=words, description=_lines(recipes.ALL[recipe].__doc__), compact_help=True)
    config = _read(Config, words, prog=prog, default=default)
    interrupts.end_at(config.compute.deadline)
    return config


def options(manual: str | None, kind: type[T], argv: Sequence[str] | None = None) -> T:
    """Turn `--field value ...` into a small options dataclass, for jobs without a recipe."""
    words = list(sys.argv[1:] if argv is None else argv)
    values = _read(kind, words, prog=_prog(), description=_lines(manual))
    interrupts.end_at(getattr(getattr(values, "compute", None), "deadline", None))
    return values


def run(main: Callable[[], None]) -> None:
    """Run a job's main function so that every end is clean and has its exit code (see this module's docstring)."""
    interrupts.listen()
    try:
        main()
    except QuarantineError as error:
        stop(f"error: {error}", 3)
    except MammoflowError as error:
        stop(f"error: {error}", 1)
    except KeyboardInterrupt:
        name, code = interrupts.reason()
        stop(f"stopped by {name}; run the same command again to continue", code)


def stop(message: str, code: int) -> typing.NoReturn:
    """Print a message to stderr and leave with an exit code."""
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _read(
    kind: type[T], words: Sequence[str], *, prog: str, description: str | None = None, default: T | None = None
) -> T:
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        values: T = tyro.cli(kind, args=words, prog=prog, description=description, **given)
        return values
    except SystemExit as end:
        if end.code and not {"True", "False"}.isdisjoint(words):
            stop("error: True or False follows a switch, but switches take no value; write --name or --no-name", 2)
        raise


def _only(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the rows that follow `--only`, and the other words."""
    rows: list[str] = []
    others: list[str] = []
    inside = False
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            inside = name == "--only"
            if not inside:
                others.append(word)
            elif equals:
                rows.append(value)
        else:
            (rows if inside else others).append(word)
    return rows, others


def _prog() -> str:
    """Return the command as it was called: `mammoflow tune`, or a script's name."""
    return sys.argv[0] if sys.argv[0].startswith("mammoflow ") else Path(sys.argv[0]).name


def _overview(manual: str | None) -> str:
    """Return a command's manual and the recipes, a line each."""
    width = max(map(len, recipes.ALL))
    lines = [f"  {name:<{width}}  {(make.__doc__ or '').partition(chr(10))[0]}" for name, make in recipes.ALL.items()]
    usage = f"usage: {_prog()} [RECIPE] [--only ROW ...] [--SETTING VALUE ...]"
    first = f"recipes (default: {next(iter(recipes.ALL))}); `{_prog()} RECIPE --help` shows the settings of one:"
    return "\n".join([usage, "", (manual or "").strip(), "", first, *lines])


def _lines(text: str | None) -> str:
    """Indent text by a space: --help would run its lines together otherwise."""
    return textwrap.indent(text or "", " ")


def _shown(kind: type[Any], default: Any, hidden: Collection[str], rows: Sequence[str] = ()) -> type[Any]:
    """Return a dataclass as the help is to show it: with the values of `default`, without the hidden settings."""
    hints = typing.get_type_hints(kind, include_extras=True)
    suppress = typing.cast(Any, tyro.conf.Suppress)
    unknown = {name.partition(".")[0] for name in hidden} - hints.keys()
    if unknown:
        raise ConfigError(f"hidden is {sorted(unknown)}, but must be settings of {kind.__name__}; correct the names")
    settings: list[Any] = []
    if rows:
        about = tyro.conf.arg(help=f"Rows of the paper's table to keep, of: {', '.join(rows)}", metavar="ROW ...")
        settings.append(("only", Annotated[tuple[str, ...], about], dataclasses.field(default=())))
    for field in dataclasses.fields(kind):
        name, value = field.name, getattr(default, field.name)
        inner = [setting.partition(".")[2] for setting in hidden if setting.startswith(f"{name}.")]
        hint = suppress[hints[name]] if name in hidden else hints[name]
        if inner:
            hint = _shown(hints[name], value, inner)
            value = hint()
        settings.append((name, hint, dataclasses.field(default=value)))
    return dataclasses.make_dataclass(kind.__name__, settings, bases=(kind,), frozen=True, kw_only=True)
