import ast
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mammoflow import cli, recipes
from mammoflow.cluster import interrupts
from mammoflow.config import Config, PatchConfig
from mammoflow.errors import ConfigError
from mammoflow.models import classifiers, top_kinds
from mammoflow.reports import paper_tables
from mammoflow.search import tuning

JOBS = Path(__file__).parents[2] / "jobs"


def test_without_words_the_first_recipe_is_taken() -> None:
    assert cli.parse("", recipes.ALL, []).name == "demo"
    assert cli.parse("", recipes.ALL, ["--seed", "3"]).seed == 3


def test_any_field_is_overridden_by_its_flag() -> None:
    words = ["smoke", "--limit", "5", "--lake", "/x", "--trunks.0.top-layers", "32x1,16x1", "[8-8-8]x1,[8-8-8]x1"]
    config = cli.parse("", recipes.ALL, [*words, "--image-training.stages.1.epochs", "7"])
    assert (config.limit, config.lake) == (5, "/x")
    assert config.trunks[0].top_layers == ("32x1,16x1", "[8-8-8]x1,[8-8-8]x1")
    assert config.image_training.stages[1].epochs == 7


def test_an_unknown_recipe_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse("", recipes.ALL, ["cbis"])
    assert stop.value.code == 2
    assert "such as cbis-s10, " in capsys.readouterr().err


@pytest.mark.parametrize("name", recipes.ALL)
def test_help_shows_every_field_of_every_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse("", recipes.ALL, [name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for flag in ("--seed", "--limit", "--lake", "--patches.side", "--image-training.stages.1.lr"):
        assert flag in shown


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.py")), ids=lambda path: path.stem)
def test_help_shows_the_manual_as_it_is_written_and_the_recipes(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manual = ast.get_docstring(ast.parse(job.read_text())) or ""
    with pytest.raises(SystemExit) as stop:
        cli.parse(manual, recipes.ALL, ["--help"])
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert stop.value.code == 0
    assert {line.strip() for line in manual.splitlines()} <= set(shown)
    assert "(default: demo)" in " ".join(shown)
    assert "cbis-s10-vgg16" in " ".join(shown)


def test_of_a_flag_that_stands_twice_the_last_counts() -> None:
    """`tables.show_next` relies on it."""
    assert cli.parse("", recipes.ALL, ["smoke", "--seed", "1", "--seed", "2"]).seed == 2


def test_a_field_out_of_range_names_value_limit_and_remedy() -> None:
    with pytest.raises(ConfigError, match=r"patches.side is 4, but must be at least 16 px; cut larger patches"):
        PatchConfig(side=4)
    with pytest.raises(ConfigError, match="image's smaller side, 896 px"):
        Config(name="x", patches=PatchConfig(side=1000))


def test_the_papers_recipes_hold_the_papers_numbers() -> None:
    config = recipes.ALL["cbis-s10-resnet50"]()
    patch, image = config.trunks[0].training, config.image_training
    assert [(s.trained, s.lr, s.epochs) for s in patch.stages] == [
        ("last", 1e-3, 3),
        ("top", 1e-4, 10),
        ("all", 1e-5, 37),
    ]
    assert [(s.lr, s.weight_decay, s.epochs) for s in image.stages] == [(1e-4, 0.001, 30), (1e-5, 0.01, 20)]
    assert (patch.batch, image.batch) == (32, 2)
    assert (config.images.height, config.images.width, config.patches.side) == (1152, 896, 224)
    assert (config.splits.test, config.splits.val) == (0.15, 0.10)
    augment = patch.augment
    assert (augment.rotation, augment.shear, augment.zoom, augment.channel_shift) == (25, 0.2, 0.2, 20)


ENDS = {
    "from mammoflow.errors import LakeError\n    raise LakeError('no')": 1,
    "from mammoflow.errors import QuarantineError\n    raise QuarantineError('bad')": 3,
    "raise KeyboardInterrupt": 130,
    "pass": 0,
}


@pytest.mark.parametrize("body", ENDS)
def test_exit_codes(body: str) -> None:
    code = f"from mammoflow import cli\ndef main():\n    {body}\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ENDS[body]
    assert "Traceback" not in done.stderr


def test_a_sigterm_whose_exception_was_lost_is_raised_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts.check_terminated()
    arrived = threading.Event()
    arrived.set()
    monkeypatch.setattr(cli, "_terminated", arrived)
    with pytest.raises(interrupts.Terminated):
        interrupts.check_terminated()


def test_sigterm_ends_a_job_with_143() -> None:
    body = "print('up', flush=True)\n    time.sleep(60)"
    code = f"import time\nfrom mammoflow import cli\ndef main():\n    {body}\ncli.run(main)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 143
        assert time.monotonic() - started < 10


def test_a_job_ends_cleanly_at_its_deadline() -> None:
    code = """
import time
from mammoflow import cli, recipes
def main():
    cli.parse("", recipes.ALL, ["smoke", "--deadline", "0.0001"])
    try:
        time.sleep(60)
    finally:
        print("closed", flush=True)
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 4
    assert done.stdout == "closed\n"
    assert "stopped by its deadline; the same command goes on from here" in done.stderr


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_arrives_in_a_finalizer_ends_the_job(number: str, code: int) -> None:
    """There Python prints and drops the exception of a signal handler; libraries like SQLAlchemy have many."""
    program = f"""
import signal, time
from mammoflow import cli
from mammoflow.models.top_kinds import parse
class Held:
    def __del__(self):
        signal.raise_signal(signal.{number})
def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born to ignore it
    held = Held()
    del held
    time.sleep(60)
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "the same command goes on from here" in done.stderr


def test_every_row_of_the_papers_tables_is_a_recipe() -> None:
    for row in paper_tables.ROWS:
        name = (
            f"cbis-{row.patch_set.lower()}-{classifiers.candidate_name(row.backbone, top_kinds.parse(row.top_layers))}"
        )
        config = recipes.ALL[name]()
        assert config.name == name
        assert config.patches.set == row.patch_set
        (trunk,) = config.trunks
        assert (trunk.backbone, trunk.weights, trunk.top_layers) == (row.backbone, "imagenet", (row.top_layers,))
        assert sum(stage.epochs for stage in trunk.training.stages) == {"S1": 200, "S10": 50}[row.patch_set]
        assert tuning.plan(config)[0].name == classifiers.candidate_name(row.backbone, top_kinds.parse(row.top_layers))
    for name in (
        "cbis-s10-resnet50-512-512-1024x2-512-512-1024x2",
        "cbis-s10-resnet50-heatmap-64-64-256x2-128-128-512x2",
        "cbis-s10-vgg16-256x1-128x1",
        "cbis-s10-vgg16-fc-pool5-64-32",
    ):
        assert name in recipes.ALL


def test_random_patch_classifiers_train_everything_at_one_rate() -> None:
    for name, epochs in (("cbis-s1-resnet50-random", 200), ("cbis-s10-resnet50-random", 50)):
        (trunk,) = recipes.ALL[name]().trunks
        assert trunk.weights is None
        assert [(s.trained, s.lr, s.epochs) for s in trunk.training.stages] == [("all", 1e-3, epochs)]


@pytest.mark.parametrize("patients", [20, 30, 40, 50, 60, 72])
def test_the_transfer_to_inbreast_is_that_of_table_4(patients: int) -> None:
    config = recipes.ALL[f"inbreast-{patients}"]()
    assert (config.dataset, config.splits.protocol, config.splits.patients) == ("inbreast", "70-30", patients)
    frozen, whole = config.image_training.stages
    assert frozen.epochs == 0
    assert (whole.trained, whole.lr, whole.epochs, whole.weight_decay, whole.decay) == ("all", 1e-5, 200, 0.01, "l2")
    assert config.start == "models:/mammoflow@champion"
    assert config.ensemble.model_name != "mammoflow", "its own champion is not what it begins from"
