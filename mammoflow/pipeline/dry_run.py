"""What a search would train, and what it would cost: candidates, memory, time. Trains nothing, writes nothing."""

from collections.abc import Mapping
from dataclasses import replace

from mammoflow import console
from mammoflow.config import Config
from mammoflow.facts.stages import ImagesFacts
from mammoflow.models.classifiers import ImageSpec
from mammoflow.pipeline.graph import Artefacts
from mammoflow.search import capacity, rungs, tuning
from mammoflow.search.candidates import Candidate
from mammoflow.search.capacity import Worker
from mammoflow.search.progress import spoken

_GIB = 2**30
_IMAGES = {"train": 1000, "val": 0}
"""Taken for the number of images where none are decoded yet."""


def show(a: Artefacts) -> None:
    """Print candidates and packs with estimates of memory and time.

    Raises:
        PreflightError: a candidate that no worker of this cluster can hold.
    """
    groups = _continued(a.config, a.starts.specs) if a.starts else _on_trunks(a.config)
    images = a.images.facts(ImagesFacts).images if a.images.done else _IMAGES
    backbones = {*(c.backbone for _, own in groups for c in own), *(trunk.backbone for trunk in a.config.trunks)}
    worker = capacity.worker(a.config, images, sorted(backbones))
    if groups:
        _show_candidates(groups)
    seconds = _show_packs(a.config, groups, worker, images)
    speeds = ", ".join(f"{flops / 1e12:.2f} TFLOP/s in training {name}" for name, flops in worker.flops.items())
    print(f"estimates: a worker has {worker.memory / _GIB:.1f} GiB for them and does {speeds}, measured here")
    drawn = a.config.search.drawn * len(a.config.trunks)
    if drawn:
        print(f"beside these, {drawn} candidate(s) are drawn, {a.config.search.at_a_time} a trunk at a time")
    if groups:
        base = "" if a.images.done else f", for each {_IMAGES['train']:,} training images, as none are decoded yet"
        runs = capacity.runs_at_a_time(a.config.compute)
        print(f"these candidates take about {spoken(seconds)}, {runs} run(s) at a time{base}")
    for config, own in groups:
        for candidate in own:
            capacity.check_fits(config, candidate, worker.memory)


Groups = list[tuple[Config, list[Candidate]]]
"""Candidates that have a trunk in common, with the config by which they train."""


def _on_trunks(config: Config) -> Groups:
    candidates = tuning.plan(config)
    own = ([c for c in candidates if c.backbone == trunk.backbone] for trunk in config.trunks)
    return [(config, group) for group in own if group]


def _continued(config: Config, specs: Mapping[str, ImageSpec]) -> Groups:
    """Return the classifiers that a search would go on from; each has a trunk and a kind of patches of its own."""
    return [
        (
            replace(config, patches=replace(config.patches, side=spec.side, classes=spec.classes)),
            [Candidate.continued(name, spec)],
        )
        for name, spec in specs.items()
    ]


def _show_candidates(groups: Groups) -> None:
    rows = []
    for config, candidate in ((config, candidate) for config, own in groups for candidate in own):
        trunk, top = capacity.costs(config, candidate)
        rows.append(
            [
                candidate.name,
                candidate.kind,
                f"{(trunk.parameters + top.parameters) / 1e6:.1f} M",
                f"{(trunk.flops + top.flops) / 1e9:.1f}",
                f"{capacity.pack_memory(config, [candidate]) / _GIB:.2f} GiB",
                f"{capacity.stage2_memory(config, candidate) / _GIB:.2f} GiB",
            ]
        )
    columns = ["candidate", "kind", "parameters", "GFLOP an image", "stage 1, alone", "stage 2"]
    console.show("Candidates, and the memory that each would take", columns, rows)


def _show_packs(config: Config, groups: Groups, worker: Worker, images: Mapping[str, int]) -> float:
    """Print the packs of stage 1, and stage 2; return the seconds of both, as many runs at a time as there can be."""
    rows: list[list[object]] = []
    taken: list[float] = []
    first, second = config.image_training.stages
    for each, own in groups:
        most = config.compute.pack or capacity.most_together(each, own, worker.memory)
        name = own[0].backbone if config.trunks else own[0].name
        for number, pack in enumerate(rungs.cut(own, most), start=1):
            epoch = capacity.epoch_seconds(each, pack, worker, images, trunk_trained=False)
            rows.append(
                [f"{name}, pack {number}", len(pack), *_figures(capacity.pack_memory(each, pack), epoch, first.epochs)]
            )
            taken.append(epoch * first.epochs)
    every = [(each, candidate) for each, own in groups for candidate in own]
    if not every:
        return 0.0
    kinds = len({candidate.kind for _, candidate in every})
    going_on = len(every) if config.search.survivors == "all" else kinds
    epochs = [capacity.epoch_seconds(each, [c], worker, images, trunk_trained=True) for each, c in every]
    mean, memory = sum(epochs) / len(epochs), max(capacity.stage2_memory(*one) for one in every)
    rows.append([f"stage 2, {going_on} run(s) of one", 1, *_figures(memory, mean, second.epochs)])
    console.show("Packs", ["pack", "candidates", "memory", "an epoch", "its stage"], rows)
    runs = capacity.runs_at_a_time(config.compute)
    return capacity.makespan(taken, runs) + capacity.makespan([mean * second.epochs] * going_on, runs)


def _figures(memory: int, epoch: float, epochs: int) -> list[str]:
    return [f"{memory / _GIB:.2f} GiB", spoken(epoch), spoken(epoch * epochs)]
