"""The stages: which there are, what each reads, and names that they share. Imports nothing: jobs that look load fast.

phantoms ─┐                            ┌▶ mined ─▶ retrained ─┐
source   ─┴▶ images ─▶ patches ─▶ trunks ─────────────────────┴▶ search ─▶ ensemble ─▶ registered
                                                               └▶ two_step └──────▶ evaluation ─▶ report

Where whole-image classifiers of other data are gone on from, there are no trunks, and `search` reads images alone;
patches are cut all the same, to be looked at. `external` scores images with a registered ensemble of other data as it
is, and `recalibrated` registers it with a cut-off and a calibration of these images.
`mined` and `retrained` are there for trunks that train a second time, on patches that the first time gets wrong.
"""

STAGES = (
    "phantoms",
    "images",
    "external",
    "recalibrated",
    "patches",
    "trunks",
    "mined",
    "retrained",
    "two_step",
    "search",
    "ensemble",
    "registered",
    "evaluation",
    "report",
)
"""Every stage, each after all that it needs."""

TRANSFER, REPRODUCTION = OF_SEVERAL = ("transfer", "reproduction")
"""Folders of the lake whose artefacts are made of those of several configs."""

NEEDS = {
    "phantoms": (),
    "images": ("phantoms",),
    "external": ("images",),
    "recalibrated": ("external",),
    "patches": ("images",),
    "trunks": ("patches",),
    "mined": ("images", "trunks"),
    "retrained": ("patches", "mined"),
    "two_step": ("images", "trunks", "retrained"),
    "search": ("images", "trunks", "retrained"),
    "ensemble": ("search",),
    "registered": ("ensemble",),
    "evaluation": ("ensemble",),
    "report": ("registered", "evaluation"),
}
"""The stages that each stage reads."""

FIGURES = "figures.json"
"""File of an artefact that is made of those of several configs (`OF_SEVERAL`)."""
