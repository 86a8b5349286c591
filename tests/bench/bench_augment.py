"""Augmentation of whole batches against torchvision v2 image by image, on the same threads.

    python tests/bench/bench_augment.py           # half a minute on 2 cores

Batches of 32 patches of 224x224 and of 2 images of 1152x896, grey, made three channels by both sides: flips, one
affine (rotation, shear, zoom; torchvision's zoom is the same along both axes), a grey shift of each channel. Medians of
5, warm, alternating. Prints one JSON line a figure.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torchvision.transforms import InterpolationMode, v2

from mammoflow.config import AugmentConfig
from mammoflow.models import augment

ROUNDS = 5
PAPER = AugmentConfig()


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _shifted(image: torch.Tensor) -> torch.Tensor:
    shift = (2 * torch.rand(3, 1, 1) - 1) * PAPER.channel_shift
    return (image + shift).clamp(0, 255)


PER_IMAGE = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomAffine(
            degrees=PAPER.rotation,
            scale=(1 - PAPER.zoom, 1 + PAPER.zoom),
            shear=torch.rad2deg(torch.tensor(PAPER.shear)).item(),
            interpolation=InterpolationMode.BILINEAR,
        ),
        v2.Lambda(_shifted),
    ]
)


def main() -> None:
    """Measure both sides on both sizes of image."""
    for name, (number, height, width) in {"": (32, 224, 224), "_whole_image": (2, 1152, 896)}.items():
        grey = torch.rand(number, height, width) * 255
        ids = [str(n) for n in range(number)]

        def batch(grey: torch.Tensor = grey, ids: list[str] = ids) -> torch.Tensor:
            return augment.apply(grey, augment.draw(PAPER, 0, 0, 0, ids))

        def per_image(grey: torch.Tensor = grey) -> torch.Tensor:
            return torch.stack([PER_IMAGE(image.expand(3, -1, -1)) for image in grey])

        assert batch().shape == per_image().shape == (number, 3, height, width)
        rounds = [seconds(per_image) / seconds(batch) for _ in range(ROUNDS)]
        figure = {
            "figure": f"augment_vs_per_image{name}",
            "value": round(statistics.median(rounds), 3),
            "unit": "ratio",
            "goal": ">= 2",
            "against": "torchvision v2 image by image, three channels, equal threads",
            "threads": torch.get_num_threads(),
            "batch": [number, height, width],
            "rounds": [round(ratio, 2) for ratio in rounds],
        }
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
