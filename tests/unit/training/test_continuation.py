"""Stage 2 goes on where a model has not converged: the paper's rule, by the epochs that a run asks for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import whole_images

from mammoflow import recipes
from mammoflow.config import ImageConfig
from mammoflow.models import classifiers
from mammoflow.search.bank_run import BankRun
from mammoflow.training.loop import Best, Workers

PAPER = recipes.cbis_s10_resnet50().image_training
NAME = "resnet10_narrow-8x1-8x1"


@pytest.fixture(scope="module")
def model() -> classifiers.WholeImageClassifier:
    spec = classifiers.PatchSpec(
        precision="fp32",
        backbone="resnet10_narrow",
        classes=("background", "mass"),
        mean_grey=60.0,
        side=32,
        weights=None,
    )
    patches = classifiers.patch_classifier(spec, 0)
    return whole_images.candidates(patches, ["8x1,8x1"], ImageConfig(height=128, width=128), 0)[NAME]


def run(model: classifiers.WholeImageClassifier, best: int, done: int, stage: int = 1, **changes: int) -> BankRun:
    """A run of the paper's 30 + 20 epochs, of whose second stage `done` are over, its best epoch so far `best`."""
    kept = {NAME: Best(value=0.8, epoch=best, weights={})} if best else {}
    config = replace(PAPER, **changes)
    made = BankRun(config, stage, {NAME: model}, np.array([5, 5]), torch.device("cpu"), Workers(), 0, best=kept)
    made.epoch = done
    return made


@pytest.mark.parametrize(
    ("best", "done", "epochs"),
    [
        (45, 5, 20),  # the schedule is not over
        (40, 20, 20),  # the best is not among the last ten: converged
        (12, 20, 20),  # of stage 1
        (41, 20, 41 + 20 - 30),  # goes on until 20 epochs bring no gain
        (50, 20, 40),
        (70, 40, 60),  # a gain on the way: 20 more from there
        (70, 60, 60),  # no gain since: over
        (249, 219, 220),  # at most 200 more
    ],
)
def test_a_model_that_has_not_converged_goes_on_until_no_gain(model, best: int, done: int, epochs: int) -> None:
    assert run(model, best, done).epochs == epochs


def test_stage_1_and_runs_without_the_rule_keep_to_their_schedule(model) -> None:
    assert run(model, 29, 30, stage=0).epochs == 30
    assert run(model, 50, 20, resume=0).epochs == 20
    assert run(model, 0, 20).epochs == 20
    assert recipes.demo().image_training.resume == 0


def test_the_papers_numbers() -> None:
    assert (PAPER.resume, PAPER.unconverged, PAPER.patience) == (200, 10, 20)
