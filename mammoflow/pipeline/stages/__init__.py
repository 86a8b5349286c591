"""Every stage of the pipeline. The graph, the plan and the jobs follow from these records.

phantoms ─┐                            ┌▶ mined ─▶ retrained ─┐
source   ─┴▶ images ─▶ patches ─▶ trunks ─────────────────────┴▶ search ─▶ ensemble ─▶ registered
                                                               └▶ two_step └──────▶ evaluation ─▶ report

Fine-tuning (`--start`) has no trunks: `search` reads images alone, and patches are cut only to be looked at. `external`
scores images with a registered ensemble of other data; `recalibrated` registers that ensemble with a cut-off and a
calibration for these images. `mined` and `retrained` exist for trunks with hard-example mining.

To add a stage, add its record to the module here that it belongs to. Importing this package loads no torch, Ray or
MLflow: `locate` and `build` import what they need when they are called.
"""

from mammoflow.pipeline.stages import classifiers, data, ensembles
from mammoflow.pipeline.stages.stage import Stage

STAGES: dict[str, Stage] = {stage.name: stage for stage in (*data.STAGES, *classifiers.STAGES, *ensembles.STAGES)}
"""Name -> stage, each after all that it needs."""

TRANSFER, REPRODUCTION = OF_SEVERAL = ("transfer", "reproduction")
"""Folders of the lake whose artefacts combine those of several configs."""

FIGURES = "figures.json"
"""File of an artefact in one of `OF_SEVERAL`."""


def needed_for(name: str) -> list[str]:
    """Return a stage and everything that it needs, directly or through others, in building order."""
    needed = {name}
    for stage in reversed(STAGES.values()):
        if stage.name in needed:
            needed.update(stage.needs)
    return [stage for stage in STAGES if stage in needed]


def dependent_on(names: set[str]) -> set[str]:
    """Return the other stages that need any of these, directly or through others."""
    dependent = set(names)
    for stage in STAGES.values():
        if dependent.intersection(stage.needs):
            dependent.add(stage.name)
    return dependent - names
