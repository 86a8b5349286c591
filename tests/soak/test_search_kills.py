"""A search killed with -9, in part and whole: the same command ends as if nobody had, and does nothing twice."""

import json
import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import killing
import pytest
from searches import SCRIPT, check, ensure, finished

from mammoflow.lake import Artefact

FEW = ("16x1,8x1", "[8-8-16]x1,[8-8-16]x1", "heatmap,[8-8-16]x1", "fc-pool1-16-8")
MANY = (
    *(f"{a}x{k},{b}x{k}" for a, b, k in product((8, 16), (8, 16), (1, 2))),
    *(f"[{a}-{a}-{2 * a}]x{k},[{b}-{b}-{2 * b}]x{k}" for a, b, k in product((4, 8), (4, 8), (1, 2))),
    *(f"[{a}-{a}-{2 * a}]x1,{b}x1" for a, b in product((4, 8), (4, 8))),
    *(f"heatmap,[{a}-{a}-{2 * a}]x{k}" for a, k in product((4, 8, 16), (1, 2))),
    *(f"fc-pool{pool}-{width}-4" for pool, width in product((1, 2), (8, 16))),
    *("attention-4", "attention-8"),
)
SHARE, MOST_KILLS, LEAST_KILLS = 0.2, 14, 6


def command(tops: tuple[str, ...], rungs: tuple[int, ...], first: int, second: int, pack: int) -> list[str]:
    """Return the words of a search, but for its lake."""
    words = [SCRIPT, "smoke", "--trunks.0.top-layers", *tops, "--search.rungs", *map(str, rungs)]
    words += ["--image-training.stages.0.epochs", str(first), "--image-training.stages.1.epochs", str(second)]
    return [*words, "--search.survivors", "all", "--compute.pack", str(pack)]


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake up to its patch classifier."""
    folder = tmp_path_factory.mktemp("trained") / "lake"
    ensure("trunks", [SCRIPT, "smoke"], folder)
    return folder


Undisturbed = Callable[[list[str]], Artefact]


@pytest.fixture
def undisturbed(trained: Path, tmp_path: Path) -> Undisturbed:
    """Searches in a lake where nobody kills."""

    def search(words: list[str]) -> Artefact:
        return ensure("search", words, shutil.copytree(trained, tmp_path / "undisturbed"))

    return search


def standing(folder: Path, ends: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the results of candidates that had come to their end: which file it is, and since when."""
    found = {}
    for path in folder.glob("search/*/candidates/*/result.json"):
        if json.loads(path.read_bytes())["epochs"] == ends[path.parent.name]:
            found[path.parent.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


@pytest.mark.soak  # test_rungs.py kills a smaller search in its own process
def test_a_killed_trial_and_a_killed_driver_change_nothing(trained: Path, undisturbed: Undisturbed, tmp_path: Path):
    words = [*command(FEW, rungs=(6,), first=6, second=8, pack=2), "--search.keep", "0.25"]
    expected = undisturbed(words)
    ends = finished(expected)
    assert sorted(ends.values()) == [6, 6, 6, 14]
    folder = shutil.copytree(trained, tmp_path / "killed")
    run = killing.launch(folder, *words)

    def came_to(stage: int, epoch: int) -> bool:
        return bool([*folder.glob(f"search/*/work/states/*-stage{stage}/{epoch}.pt")])

    run.wait_until(lambda: came_to(1, 2))
    run.trials()[0].kill()
    run.wait_until(lambda: came_to(2, 2))
    run.kill_driver()
    stood = standing(folder, ends)
    assert len(stood) == 3, "three were dropped"
    killing.launch(folder, *words).end()
    assert stood.items() <= standing(folder, ends).items(), "what was over is not trained again"
    check(folder, ensure("search", words, folder), expected)


@pytest.mark.soak
def test_a_search_killed_again_and_again_at_random_ends_as_one_that_was_not(
    trained: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    words = command(MANY, rungs=(2, 4, 8), first=8, second=4, pack=8)
    expected = undisturbed(words)
    ends = finished(expected)
    assert len(ends) == 32
    folder = shutil.copytree(trained, tmp_path / "killed")
    rng, kills, code, stood = random.Random(0), 0, None, {}
    while code != 0:
        run, before = killing.launch(folder, *words), kills
        while (code := run.wait(rng.uniform(4, 24) if kills < MOST_KILLS else 300)) is None:
            assert kills < MOST_KILLS, "it came to no end"
            rng.choice([run.kill_driver, lambda run=run: run.kill_share(SHARE, rng)])()
            kills += 1
        assert code == 0 or kills > before, run.process.stdout.read()
        run.clear()
        now = standing(folder, ends)
        assert stood.items() <= now.items(), "what was over is not trained again"
        stood = now
    assert kills >= LEAST_KILLS
    check(folder, ensure("search", words, folder), expected)
