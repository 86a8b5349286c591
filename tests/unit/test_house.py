"""The shape of the code base: small folders, modules and functions, and packages that say what they hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

import house_figures
import pytest
from house_figures import ROOT, Module

MOST_FILES = 22
MOST_LINES = 390  # aim at 350
MOST_FUNCTION_LINES = 60
MOST_ROOT_MODULES = 7

SOURCES = house_figures.modules(ROOT, "mammoflow", "jobs")
TESTS = house_figures.modules(ROOT, "tests")


def test_no_folder_holds_too_many_files() -> None:
    large = {str(path): count for path, count in house_figures.folder_sizes(ROOT).items() if count > MOST_FILES}
    assert large == {}, f"split these folders: more than {MOST_FILES} files"


def test_no_module_is_too_long() -> None:
    long = {str(module.path): module.lines for module in SOURCES if module.lines > MOST_LINES}
    assert long == {}, f"split these modules by what they do: more than {MOST_LINES} lines"


def test_no_function_is_too_long() -> None:
    sizes = {
        f"{module.path}:{node.name}": house_figures.lines_of(node) for module in SOURCES for node in module.functions()
    }
    long = {name: lines for name, lines in sizes.items() if lines > MOST_FUNCTION_LINES}
    assert long == {}, f"split these functions: more than {MOST_FUNCTION_LINES} lines"


def test_few_modules_lie_at_the_root_of_the_package() -> None:
    names = [path.stem for path in (ROOT / "mammoflow").glob("*.py") if path.stem != "__init__"]
    assert len(names) <= MOST_ROOT_MODULES, f"move one of {sorted(names)} into a package"


def test_no_module_is_called_utils() -> None:
    names = {"utils", "util", "helpers"}
    assert [str(module.path) for module in SOURCES if module.path.stem in names] == []


@pytest.mark.parametrize(
    "module", [one for one in SOURCES if one.path.stem == "__init__"], ids=lambda module: str(module.path.parent)
)
def test_every_package_says_what_it_holds(module: Module) -> None:
    assert ast.get_docstring(module.tree), f"{module.path} has no docstring"


def imports(module: Module) -> Iterator[str]:
    """Yield the first part of the name of each module that this one imports."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]


def test_tests_import_helpers_from_support_only() -> None:
    support = {path.stem for path in (ROOT / "tests" / "support").glob("*.py")}
    ours = {module.path.stem: module.path for module in TESTS}
    wrong = [
        f"{module.path} imports {name}"
        for module in TESTS
        if "bench" not in module.path.parts
        for name in imports(module)
        if name in ours and name not in support
    ]
    assert wrong == [], "move what they share into tests/support"


def test_tests_mirror_the_package() -> None:
    packages = {path.parent.relative_to(ROOT / "mammoflow") for path in (ROOT / "mammoflow").rglob("__init__.py")}
    folders = {
        path.parent.relative_to(ROOT / "tests" / kind)
        for kind in ("unit", "ray")
        for path in (ROOT / "tests" / kind).rglob("test_*.py")
    }
    assert folders - packages == set(), "a folder of tests is named like the package that it tests"
    assert Path() in packages
