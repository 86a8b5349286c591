"""Figures of the code base's shape: what is looked up by strings, how large things are, how names read.

    python tests/support/house_figures.py [ROOT]     # prints the table for a checkout; this one by default

Counts `mammoflow/` and `jobs/`; a line is a line of a `.py` file, blank lines and docstrings included.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]

VAGUE = frozenset({"found", "each", "own", "about", "known", "wanted", "said", "kept"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Lines of the file."""
        return len(self.text.splitlines())

    @property
    def comments(self) -> int:
        """Comments of the file, those behind code included."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT for token in tokens)

    def functions(self) -> Iterator[Function]:
        """Yield every function and method, nested ones included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


def modules(root: Path, *folders: str) -> list[Module]:
    """Parse every source file below these folders."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = [(path, path.read_text(encoding="utf-8")) for path in paths]
    return [Module(path=path.relative_to(root), text=text, tree=ast.parse(text)) for path, text in texts]


def string_keys(module: Module) -> Iterator[str]:
    """Yield each literal string that a value is subscripted with."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Subscript(slice=ast.Constant(value=str(key))):
                yield key


def lines_of(function: Function) -> int:
    """Count the lines of a function from its `def` to its end, docstring included."""
    return (function.end_lineno or 0) - function.lineno + 1


def returns_untyped_dict(function: Function) -> bool:
    """Whether the annotated return type holds a `dict[str, Any]`."""
    return function.returns is not None and "dict[str, Any]" in ast.unparse(function.returns)


def local_names(module: Module) -> Iterator[str]:
    """Yield each local variable once for each function that binds it."""
    for function in module.functions():
        yield from {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }


def folder_sizes(root: Path) -> Counter[Path]:
    """Count the files directly in each folder of the package, the tests and the jobs."""
    paths = (path for folder in ("mammoflow", "jobs", "tests") for path in (root / folder).rglob("*"))
    files = (path for path in paths if path.is_file() and "__pycache__" not in path.parts and path.name[0] != ".")
    return Counter(path.parent.relative_to(root) for path in files)


def figures(root: Path) -> dict[str, str]:
    """Return the rows of the table."""
    sources = modules(root, "mammoflow", "jobs")
    functions = [function for module in sources for function in module.functions()]
    lines = sum(module.lines for module in sources)
    keys = Counter(key for module in sources for key in string_keys(module))
    names = Counter(name for module in sources for name in local_names(module))
    sizes = sorted(map(lines_of, functions))
    largest = max(sources, key=lambda module: module.lines)
    package = [module for module in sources if module.path.parts[0] == "mammoflow"]
    (largest_folder, most), *_ = folder_sizes(root).most_common(1)
    at_root = [module for module in package if len(module.path.parts) == 2 and module.path.stem != "__init__"]
    return {
        "files / lines": f"{len(sources)} / {lines:,}",
        "lines of the package alone": f"{sum(module.lines for module in package):,}",
        "file median / max": f"{median(module.lines for module in sources):.0f} / {largest.lines} ({largest.path})",
        "function median / p90 / max": f"{median(sizes):.0f} / {sizes[len(sizes) * 9 // 10]} / {sizes[-1]}",
        "string-key lookups per 1,000 lines": f"{1000 * keys.total() / lines:.0f} ({len(keys)} keys)",
        "functions returning dict[str, Any]": f"{sum(map(returns_untyped_dict, functions))} of {len(functions):,}",
        "vague locals": f"{100 * sum(names[name] for name in VAGUE) / names.total():.1f}%",
        "modules at the package root": f"{len(at_root)}",
        "largest folder": f"{most} files ({largest_folder})",
        "comments by lines": f"{100 * sum(module.comments for module in sources) / lines:.0f}%",
        "README words": f"{len((root / 'README.md').read_text(encoding='utf-8').split()):,}",
    }


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for name, value in figures(root).items():
        print(f"{name:<36}{value}")
