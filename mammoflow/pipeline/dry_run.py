"""What a search would train and cost: candidates, memory, time. Trains nothing, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mammoflow import console
from mammoflow.config import Config
from mammoflow.models.classifiers import ImageSpec
from mammoflow.registry.starting_points import Starts
from mammoflow.rendering.formats import Value
from mammoflow.search import capacity, rungs, tuning
from mammoflow.search.candidates import Candidate
from mammoflow.search.capacity import Worker
from mammoflow.search.progress import spoken

_GIB = 2**30
_ASSUMED = {"train": 1000, "val": 0}
"""Number of images, where none are decoded yet."""

Groups = Sequence[tuple[Config, Sequence[Candidate]]]
"""Candidates on one trunk, with the config by which they train."""


def show(config: Config, images: Mapping[str, int] | None, starts: Starts | None) -> None:
    """Print candidates and packs with estimates of memory and time.

    Args:
        config: of the search.
        images: number of each split; None before they are decoded.
        starts: classifiers that the search would fine-tune, in place of trunks.

    Raises:
        PreflightError: no worker of this cluster can hold some candidate.
    """
    counts = _ASSUMED if images is None else images
    groups = _continued(config, starts.specs) if starts else _on_trunks(config)
    backbones = {candidate.backbone for _, group in groups for candidate in group}
    worker = capacity.worker(config, counts, sorted(backbones | {trunk.backbone for trunk in config.trunks}))
    if groups:
        _show_candidates(groups)
    seconds = _show_packs(config, groups, worker, counts)
    speeds = ", ".join(f"{flops / 1e12:.2f} TFLOP/s in training {name}" for name, flops in worker.flops.items())
    print(f"estimates: a worker has {worker.memory / _GIB:.1f} GiB for them and does {speeds}, measured here")
    drawn = config.search.drawn * len(config.trunks)
    if drawn:
        print(f"beside these, {drawn} candidate(s) are drawn, {config.search.at_a_time} a trunk at a time")
    if groups:
        assumed = f", for each {_ASSUMED['train']:,} training images, as none are decoded yet" if images is None else ""
        runs = capacity.runs_at_a_time(config.compute)
        print(f"these candidates take about {spoken(seconds)}, {runs} run(s) at a time{assumed}")
    for trained, group in groups:
        for candidate in group:
            capacity.check_fits(trained, candidate, worker.memory)


def _on_trunks(config: Config) -> Groups:
    candidates = tuning.plan(config)
    groups = ([c for c in candidates if c.backbone == trunk.backbone] for trunk in config.trunks)
    return [(config, group) for group in groups if group]


def _continued(config: Config, specs: Mapping[str, ImageSpec]) -> Groups:
    """Return the classifiers to fine-tune; each has its own trunk and patches."""
    return [
        (
            replace(config, patches=replace(config.patches, side=spec.side, classes=spec.classes)),
            [Candidate.continued(name, spec)],
        )
        for name, spec in specs.items()
    ]


def _show_candidates(groups: Groups) -> None:
    rows = []
    for config, candidate in ((config, candidate) for config, group in groups for candidate in group):
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
    """Print the packs of stage 1, and stage 2. Return the seconds of both, with as many runs at a time as fit."""
    rows: list[list[Value]] = []
    packs: list[float] = []
    first, second = config.image_training.stages
    for trained, group in groups:
        most = config.compute.pack or capacity.most_together(trained, group, worker.memory)
        name = group[0].backbone if config.trunks else group[0].name
        for number, pack in enumerate(rungs.cut(group, most), start=1):
            epoch = capacity.epoch_seconds(trained, pack, worker, images, trunk_trained=False)
            figures = _figures(capacity.pack_memory(trained, pack), epoch, first.epochs)
            rows.append([f"{name}, pack {number}", len(pack), *figures])
            packs.append(epoch * first.epochs)
    every = [(trained, candidate) for trained, group in groups for candidate in group]
    if not every:
        return 0.0
    kinds = len({candidate.kind for _, candidate in every})
    going_on = len(every) if config.search.survivors == "all" else kinds
    epochs = [capacity.epoch_seconds(trained, [c], worker, images, trunk_trained=True) for trained, c in every]
    mean, memory = sum(epochs) / len(epochs), max(capacity.stage2_memory(*pair) for pair in every)
    rows.append([f"stage 2, {going_on} run(s) of one", 1, *_figures(memory, mean, second.epochs)])
    console.show("Packs", ["pack", "candidates", "memory", "an epoch", "its stage"], rows)
    runs = capacity.runs_at_a_time(config.compute)
    return capacity.makespan(packs, runs) + capacity.makespan([mean * second.epochs] * going_on, runs)


def _figures(memory: int, epoch: float, epochs: int) -> list[str]:
    return [f"{memory / _GIB:.2f} GiB", spoken(epoch), spoken(epoch * epochs)]
