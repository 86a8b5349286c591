import ast
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mammoflow import cli, console, recipes
from mammoflow.cluster import interrupts
from mammoflow.commands import COMMANDS, manual
from mammoflow.config import Config, PatchConfig
from mammoflow.errors import ConfigError
from mammoflow.models import classifiers, top_kinds
from mammoflow.reports import paper_tables
from mammoflow.search import tuning

JOBS = Path(__file__).parents[2] / "jobs"


def test_without_words_the_first_recipe_is_taken() -> None:
    assert cli.parse("", []).name == "demo"
    assert cli.parse("", ["--seed", "3"]).seed == 3


def test_any_field_is_overridden_by_its_flag() -> None:
    words = ["smoke", "--limit", "5", "--lake", "/x", "--trunks.0.top-layers", "32x1,16x1", "[8-8-8]x1,[8-8-8]x1"]
    config = cli.parse("", [*words, "--image-training.stages.1.epochs", "7"])
    assert (config.limit, config.lake) == (5, "/x")
    assert config.trunks[0].top_layers == ("32x1,16x1", "[8-8-8]x1,[8-8-8]x1")
    assert config.image_training.stages[1].epochs == 7


def test_an_unknown_recipe_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse("", ["cbis"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "recipe is 'cbis', but must be one of demo, smoke, cbis-s10, " in said
    assert "nearest: cbis-s10, " in said


@pytest.mark.parametrize("name", recipes.ALL)
def test_help_shows_every_field_of_every_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--help-verbose"):
        with pytest.raises(SystemExit) as stop:
            cli.parse("", [name, flag])
        shown = capsys.readouterr().out
        assert stop.value.code == 0
        for setting in ("--seed", "--limit", "--lake", "--patches.side", "--image-training.stages.1.lr", "--max-hours"):
            assert setting in shown
    assert "Seed of everything random" in shown, "descriptions"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_script_that_names_it_and_runs_it(name: str) -> None:
    (script,) = (path for path in JOBS.glob("*.py") if f"The command `mammoflow {name}` " in path.read_text())
    assert f"-- python jobs/{script.name}`" in script.read_text()
    assert f"cli.run({COMMANDS[name].rpartition('.')[2]}.main)" in script.read_text()
    assert len([*JOBS.glob("*.py")]) == len(COMMANDS)


def mammoflow(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mammoflow", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_lists_its_subcommands_a_line_each_without_loading_them() -> None:
    shown = mammoflow("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in shown
        assert manual(name).partition("\n")[0] in shown
    program = "import sys; from mammoflow import commands; sys.argv = ['mammoflow']; commands.main()"
    loaded = mammoflow_modules(program)
    assert not {"torch", "ray", "mlflow", "numpy", "tyro"} & loaded


def mammoflow_modules(program: str) -> set[str]:
    """Return the top-level modules that a program has loaded at its end."""
    code = f"{program}; import sys; print({{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stderr))


def test_the_command_line_is_read_without_torch_ray_or_mlflow() -> None:
    assert not {"torch", "ray", "mlflow"} & mammoflow_modules("import mammoflow.cli")


def test_an_unknown_command_names_the_nearest() -> None:
    done = mammoflow("tunes", "smoke")
    assert done.returncode == 2
    assert "error: command is 'tunes', but must be one that `mammoflow --help` lists, such as tune, " in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_its_manual_and_what_it_uses(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"mammoflow {name}", "--help"])
    module = importlib.import_module(COMMANDS[name])
    with pytest.raises(SystemExit) as stop:
        module.main()
    shown = capsys.readouterr().out
    lines = {line.strip() for line in shown.splitlines()}
    assert stop.value.code == 0
    assert {line.strip() for line in manual(name).splitlines()} <= lines
    assert f"usage: mammoflow {name} " in shown
    if "recipes (default: demo)" in shown:
        assert "cbis-s10-vgg16" in shown
        monkeypatch.setattr(sys, "argv", [f"mammoflow {name}", "demo", "--help"])
        with pytest.raises(SystemExit):
            module.main()
        assert "--splits.test" in capsys.readouterr().out
    else:
        assert "--compute.compile" not in shown or name == "reproduce"


@pytest.mark.parametrize(
    ("name", "used", "unused"),
    [
        ("ingest", "--compute.images-per-shard", ("--compute.gpu", "--search.drawn", "--trunks.0.backbone")),
        ("train-patch", "--trunks.0.hard-examples", ("--search.drawn", "--image-training.batch", "--compute.pack")),
        ("tune", "--search.drawn", ("--ensemble.rule", "--two-step.trees")),
        ("train-image", "--max-hours", ("--search.drawn", "--search.space.blocks")),
        ("score", "--compute.gpu", ("--compute.compile", "--compute.workers", "--dry-run")),
        ("report", "--ensemble.rule", ("--compute.gpu", "--max-bad")),
        ("external", "--start", ("--trunks.0.backbone", "--search.drawn", "--compute.compile")),
    ],
)
def test_help_leaves_out_what_a_command_does_not_use(
    name: str,
    used: str,
    unused: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = [] if name == "score" else ["demo"]
    monkeypatch.setattr(sys, "argv", [f"mammoflow {name}", *recipe, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(COMMANDS[name]).main()
    shown = capsys.readouterr().out
    assert used in shown
    assert not [flag for flag in unused if flag in shown]


def test_a_flag_of_another_stage_is_accepted() -> None:
    """One set of flags serves every job of a run; only the help hides what a job does not use."""
    assert cli.parse("", ["smoke", "--two-step.trees", "7"], hidden=("two_step",)).two_step.trees == 7


def test_switches_take_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    config = cli.parse("", ["smoke", "--compute.gpu", "--dry-run", "--patches.side", "32", "--images.no-reduced"])
    assert config.compute.gpu
    assert config.compute.dry_run
    assert not config.images.reduced
    assert not cli.parse("", ["cbis-s10", "--compute.no-gpu"]).compute.gpu
    with pytest.raises(SystemExit) as stop:
        cli.parse("", ["smoke", "--compute.gpu", "True"])
    assert stop.value.code == 2
    assert "switches take no value; write --name or --no-name" in capsys.readouterr().err


def test_short_flags_stand_for_long_ones() -> None:
    words = ["--max-bad", "0.5", "--deadline", "99", "--max-hours=3", "--max-trials", "4", "--retry-quarantined"]
    config = cli.parse("", ["smoke", *words])
    assert (config.compute.max_bad, config.compute.deadline, config.compute.retry_quarantined) == (0.5, 99, True)
    assert (config.search.max_hours, config.search.max_trials) == (3, 4)


def test_of_a_flag_that_stands_twice_the_last_counts() -> None:
    """`console.show_next` relies on it."""
    assert cli.parse("", ["smoke", "--seed", "1", "--seed", "2"]).seed == 2


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
    monkeypatch.setattr(interrupts, "_terminated", arrived)
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
    cli.parse("", ["smoke", "--deadline", "0.0001"])
    try:
        time.sleep(60)
    finally:
        print("closed", flush=True)
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 4
    assert done.stdout == "closed\n"
    assert "stopped by its deadline; run the same command again to continue" in done.stderr


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
    assert "run the same command again to continue" in done.stderr


def test_every_row_of_the_papers_tables_is_chosen_by_only() -> None:
    for row in paper_tables.ROWS:
        recipe = {"S1": "cbis-s1-resnet50", "S10": "cbis-s10"}[row.patch_set]
        name = classifiers.candidate_name(row.backbone, top_kinds.parse(row.top_layers))
        config = cli.parse("", [recipe, "--only", name, "--seed", "3"])
        assert config.name == f"cbis-{row.patch_set.lower()}-{name}"
        assert config.seed == 3
        assert config.patches.set == row.patch_set
        (trunk,) = config.trunks
        assert (trunk.backbone, trunk.weights, trunk.top_layers) == (row.backbone, "imagenet", (row.top_layers,))
        assert sum(stage.epochs for stage in trunk.training.stages) == {"S1": 200, "S10": 50}[row.patch_set]
        assert tuning.plan(config)[0].name == name
    assert "vgg16_bn-512x3-512x3" in recipes.rows("cbis-s10")
    assert "resnet50-attention-64" in recipes.rows("cbis-s10")


def test_a_row_differs_from_its_recipe_by_name_and_trunks_alone() -> None:
    recipe = recipes.load("cbis-s10-resnet50")
    (trunk,) = recipe.trunks
    trunk = replace(trunk, top_layers=("256x1,128x1",))
    row = recipes.load("cbis-s10", ["resnet50-256x1-128x1"])
    assert row == replace(recipe, name="cbis-s10-resnet50-256x1-128x1", trunks=(trunk,))


def test_several_rows_keep_their_order_and_the_recipes_name() -> None:
    config = cli.parse("", ["cbis-s10", "--only", "vgg16-256x1-128x1", "resnet50-max", "resnet50-sparse"])
    assert config.name == "cbis-s10"
    assert [(trunk.backbone, trunk.top_layers) for trunk in config.trunks] == [
        ("resnet50", ("max", "sparse")),
        ("vgg16", ("256x1,128x1",)),
    ]
    assert config.trunks[0].training == recipes.load("cbis-s10").trunks[0].training
    assert recipes.load("cbis-s10-resnet50-random", ["resnet50-256x1-128x1"]).trunks[0].weights is None


def test_an_unknown_row_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"only is 'x', but must be a row of recipe inbreast; choose from 20, 30, 40"):
        cli.parse("", ["inbreast", "--only", "x"])
    with pytest.raises(ConfigError, match=r"row of recipe demo; rows belong to cbis-s10, .* inbreast$"):
        cli.parse("", ["demo", "--only=resnet50-max"])


def test_the_next_command_is_called_as_this_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/tune_top_layers.py", "smoke", "--seed", "1", "--retry-quarantined"])
    console.show_next("select", recipes.smoke())
    assert capsys.readouterr().out == "next: python jobs/select_ensemble.py smoke --seed 1\n"
    monkeypatch.setattr(sys, "argv", ["mammoflow train-patch"])
    console.show_next("two-step", recipes.smoke(), "--seed", "2")
    assert capsys.readouterr().out == "next: mammoflow two-step smoke --seed 2\n"
    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", ["jobs/demo.py"])
        console.show_command(command)
        assert (JOBS.parent / capsys.readouterr().out.split()[-1]).is_file()


def test_random_patch_classifiers_train_everything_at_one_rate() -> None:
    for name, epochs in (("cbis-s1-resnet50-random", 200), ("cbis-s10-resnet50-random", 50)):
        (trunk,) = recipes.ALL[name]().trunks
        assert trunk.weights is None
        assert [(s.trained, s.lr, s.epochs) for s in trunk.training.stages] == [("all", 1e-3, epochs)]


@pytest.mark.parametrize("patients", [20, 30, 40, 50, 60, 72])
def test_the_transfer_to_inbreast_is_that_of_table_4(patients: int) -> None:
    config = recipes.load("inbreast", [str(patients)])
    assert (config.name, config.transfer) == (f"inbreast-{patients}", ())
    assert (config.dataset, config.splits.protocol, config.splits.patients) == ("inbreast", "70-30", patients)
    frozen, whole = config.image_training.stages
    assert frozen.epochs == 0
    assert (whole.trained, whole.lr, whole.epochs, whole.weight_decay, whole.decay) == ("all", 1e-5, 200, 0.01, "l2")
    assert config.start == "models:/mammoflow@champion"
    assert config.ensemble.model_name != "mammoflow", "its own champion is not what it begins from"
