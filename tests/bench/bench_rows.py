"""What every row of the paper's tables 2 and 3 costs to train: weights, memory and time, VGG16 against Resnet50.

    python tests/bench/bench_rows.py        # each row in a process of its own; about 8 minutes on 2 cores

A step is one of stage 2: all layers, forwards and backwards, on 2 images of 1152x896 in bf16, as the paper's batch.
Prints one JSON line a row (the time of a step; weights and memory beside it), then medians of the two trunks' rows.
"""

import multiprocessing
import statistics

from bench_classifiers import HEIGHT, WIDTH, most_memory, new_step, seconds, show

from mammoflow import recipes
from mammoflow.models.top_spec import slug
from mammoflow.training import distributed

BATCH = 2
TABLES = {
    "resnet50": (*recipes.RESNET50_TOP_LAYERS, *recipes.HEATMAP_TOP_LAYERS, *recipes.FC_TOP_LAYERS),
    "vgg16": (*recipes.VGG16_TOP_LAYERS, *recipes.FC_TOP_LAYERS),
}


def cost(backbone: str, top_layers: str) -> tuple[float, float, float]:
    """Return the seconds of a step, the most memory of its process [GiB] and the millions of weights."""
    distributed.keep_freed_memory()
    step = new_step(backbone, HEIGHT, WIDTH, top_layers=top_layers, batch=BATCH)
    weights = step()
    return seconds(step), most_memory(), weights / 1e6


def main() -> None:
    """Measure and print."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for backbone, tops in TABLES.items():
            for top in tops:
                row = pool.apply(cost, (backbone, top))
                found.setdefault(backbone, []).append(row)
                about = {"memory_gib": round(row[1], 2), "weights_m": round(row[2], 1)}
                show(f"row_{backbone}-{slug(top)}", row[0], "s a step", "-", "2 images of 1152x896", **about)
    resnet, vgg = ([statistics.median(column) for column in zip(*rows, strict=True)] for rows in found.values())
    for number, what in enumerate(("time", "memory", "weights")):
        show(
            f"vgg16_vs_resnet50_{what}", vgg[number] / resnet[number], "ratio", "-", "Resnet50's rows, medians of both"
        )


if __name__ == "__main__":
    main()
