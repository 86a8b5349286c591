"""What a search would train, and what it would cost: candidates, memory, time. Trains nothing, writes nothing."""

from collections.abc import Sequence

from mammoflow import tables
from mammoflow.config import Config
from mammoflow.errors import PreflightError
from mammoflow.graph import Artefacts
from mammoflow.models import classifiers
from mammoflow.training import placing, rounds, tuning
from mammoflow.training.candidates import Candidate
from mammoflow.training.placing import Worker
from mammoflow.training.progress import spoken

_GIB = 2**30
_IMAGES = {"train": 1000, "val": 0}
"""Taken for the number of images where none are decoded yet."""


def show(a: Artefacts) -> None:
    """Print candidates and packs with estimates of memory and time.

    Raises:
        PreflightError: a candidate that no worker of this cluster can hold.
    """
    config = a.config
    candidates = _continued(a) if a.starts else tuning.plan(config)
    worker = placing.worker(config, timed=True)
    images = a.images.summary()["images"] if a.images.done else _IMAGES
    _show_candidates(config, candidates)
    seconds = _show_packs(config, candidates, worker, images, together=a.starts is None)
    print(
        f"estimates: a worker has {worker.memory / _GIB:.1f} GiB and does {worker.flops / 1e12:.2f} TFLOP/s "
        f"in training {candidates[0].backbone if candidates else config.trunks[0].backbone}, measured here"
    )
    drawn = config.search.drawn * len(config.trunks)
    if drawn:
        print(f"beside these, {drawn} candidate(s) are drawn, {config.search.at_a_time} a trunk at a time")
    base = "" if a.images.done else f" for each {_IMAGES['train']:,} training images, as none are decoded yet"
    runs = placing.runs_at_a_time(config.compute)
    print(f"these candidates take about {spoken(seconds / runs)}, {runs} run(s) at a time{base}")
    _refuse(config, candidates, worker)


def _continued(a: Artefacts) -> list[Candidate]:
    """Return the classifiers that a search would go on from."""
    return [
        Candidate(
            name=name,
            backbone=spec.backbone,
            top_layers=spec.top_layers,
            kind=classifiers.candidate_kind(spec.backbone, spec.top_layers),
        )
        for name, spec in (a.starts.specs.items() if a.starts else ())
    ]


def _show_candidates(config: Config, candidates: Sequence[Candidate]) -> None:
    rows = []
    for candidate in candidates:
        trunk, top = placing.costs(config, candidate)
        rows.append(
            [
                candidate.name,
                candidate.kind,
                f"{(trunk.parameters + top.parameters) / 1e6:.1f} M",
                f"{(trunk.flops + top.flops) / 1e9:.1f}",
                f"{placing.pack_memory(config, [candidate]) / _GIB:.2f} GiB",
                f"{placing.stage2_memory(config, candidate) / _GIB:.2f} GiB",
            ]
        )
    columns = ["candidate", "kind", "parameters", "GFLOP an image", "stage 1, alone", "stage 2"]
    tables.show("Candidates, and the memory that each would take", columns, rows)


def _show_packs(
    config: Config, candidates: Sequence[Candidate], worker: Worker, images: dict[str, int], *, together: bool
) -> float:
    """Print the packs of stage 1, and stage 2; return the seconds of all runs, one after the other."""
    first, second = config.image_training.stages
    rows, seconds = [], 0.0
    groups = {c.backbone: [one for one in candidates if one.backbone == c.backbone] for c in candidates}
    for backbone, own in groups.items():
        most = 1 if not together else config.compute.pack or placing.most_together(config, own, worker.memory)
        for number, pack in enumerate(rounds.cut(own, most), start=1):
            epoch = placing.epoch_seconds(config, pack, worker, images, trunk_trained=False)
            memory = placing.pack_memory(config, pack)
            rows.append([f"{backbone}, pack {number}", len(pack), *_figures(memory, epoch, first.epochs)])
            seconds += epoch * first.epochs
    going_on = len(candidates) if config.search.survivors == "all" else len({c.kind for c in candidates})
    epochs = [placing.epoch_seconds(config, [c], worker, images, trunk_trained=True) for c in candidates]
    if epochs:
        memory = max(placing.stage2_memory(config, candidate) for candidate in candidates)
        mean = sum(epochs) / len(epochs)
        rows.append([f"stage 2, {going_on} run(s) of one", 1, *_figures(memory, mean, second.epochs)])
        seconds += mean * second.epochs * going_on
    tables.show("Packs", ["pack", "candidates", "memory", "an epoch", "its stage"], rows)
    return seconds


def _figures(memory: int, epoch: float, epochs: int) -> list[str]:
    return [f"{memory / _GIB:.2f} GiB", spoken(epoch), spoken(epoch * epochs)]


def _refuse(config: Config, candidates: Sequence[Candidate], worker: Worker) -> None:
    """Refuse what no worker can hold."""
    for candidate in candidates:
        needed = max(placing.pack_memory(config, [candidate]), placing.stage2_memory(config, candidate))
        if needed > worker.memory:
            raise PreflightError(
                f"{candidate.name} takes about {needed / _GIB:.1f} GiB, a worker here has "
                f"{worker.memory / _GIB:.1f}; give --compute.checkpointing True, --image-training.parts 2, smaller "
                "images, or larger GPUs"
            )
