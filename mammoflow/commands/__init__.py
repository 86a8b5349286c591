"""The command `mammoflow`: its subcommands are the jobs, a module each, whose docstring is the manual.

Nothing is imported before a subcommand is chosen, so that `mammoflow --help` answers at once.
"""

import ast
import difflib
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

COMMANDS: Mapping[str, str] = {
    name: f"{__name__}.{name.replace('-', '_')}"
    for name in (
        "ingest",
        "train-patch",
        "tune",
        "train-image",
        "select",
        "evaluate",
        "promote",
        "score",
        "report",
        "site",
        "lake",
        "two-step",
        "external",
        "recalibrate",
        "finetune",
        "reproduce",
        "demo",
    )
}
"""Subcommand -> module with a function `main`."""


def main() -> None:
    """Run the subcommand that the command line names."""
    words = sys.argv[1:]
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(_overview())
    elif name == "--version":
        print(import_module("mammoflow").__version__)
    elif name in COMMANDS:
        sys.argv = [f"mammoflow {name}", *words[1:]]  # what help texts and `next:` lines call the program
        module = import_module(COMMANDS[name])
        import_module("mammoflow.cli").run(module.main)
    else:
        near = ", ".join(difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0))
        print(
            f"error: command is {name!r}, but must be one that `mammoflow --help` lists, such as {near}",
            file=sys.stderr,
        )
        sys.exit(2)


def manual(name: str) -> str:
    """Return the docstring of a subcommand's module, without importing it."""
    path = Path(__file__).with_name(f"{COMMANDS[name].rpartition('.')[2]}.py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {manual(name).partition(chr(10))[0]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: mammoflow COMMAND [RECIPE] [--SETTING VALUE ...]",
            "",
            "Screening mammograms in, a whole-image cancer classifier out.",
            "",
            "commands; `mammoflow COMMAND --help` shows the manual of one:",
            *rows,
        ]
    )
