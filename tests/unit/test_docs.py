"""The documentation: links lead somewhere, and the README names every job and package."""

import re
from pathlib import Path

import pytest
from house_figures import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("dashboards/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_code_spans_exist(page: Path) -> None:
    paths = re.findall(
        r"`((?:mammoflow|tests|jobs|deploy|docs|dashboards)/[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    missing = [path for path in paths if "<" not in path and not (ROOT / path).exists()]
    assert missing == []


def test_the_readme_names_every_job() -> None:
    assert set(re.findall(r"`jobs/(\w+)\.py`", README)) == {path.stem for path in (ROOT / "jobs").glob("*.py")}


def test_the_readme_names_every_package() -> None:
    tree = README.partition("## The tree")[2].partition("## ")[0]
    packages = {path.parent.name for path in (ROOT / "mammoflow").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"(\w+)/", tree))
