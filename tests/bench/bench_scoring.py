"""Scoring new images: against decoding alone and the model alone on the same cores, and in how much memory.

    python tests/bench/bench_scoring.py                     # about 20 minutes on 2 cores
    python tests/bench/bench_scoring.py --images 32 --many 0     # speed alone, a quick look

`score_vs_slower`: films of 3328x2560 px (JPEG lossless) through `scoring.score` with a Resnet50 and a VGG16 member at
1152x896 in bf16, four flips each; against the slower of decoding the same films and of scoring them decoded, each by a
pool of as many processes as there are cores. The pipeline's rate is that between its first round of shards and its
last, so that starting Ray's processes counts on no side.
`scoring_memory_growth`: 2,000 small images through a small model; memory of Ray's processes over the last quarter
against the second. Prints one JSON line a figure.
"""

import argparse
import functools
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import full_size_films
import numpy as np
import psutil
import ray
import torch
from bench_classifiers import show
from mlflow import MlflowClient

from mammoflow import lake
from mammoflow.cluster import session
from mammoflow.config import CLASSES, ImageConfig
from mammoflow.data import decode
from mammoflow.ensemble.ensemble import Ensemble, Member
from mammoflow.facts.results import Interval
from mammoflow.models import classifiers, model_files
from mammoflow.models.classifiers import PatchSpec
from mammoflow.models.top_kinds import parse
from mammoflow.registry import predictor
from mammoflow.registry.registry import Registry
from mammoflow.scoring import score, score_files
from mammoflow.scoring.score import Request, ScoringCompute
from mammoflow.scoring.score_files import Outputs

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import made_lake
import registering

CORES = 2
TOPS = {"resnet50": "256x1,128x1", "vgg16": "256x1,128x1"}
NAME = "bench"
FULL = ImageConfig()


def register(root: Path, images: ImageConfig, tops: dict[str, str], side: int) -> tuple[str, str]:
    """Register an ensemble of new models, and return the registry and the folder of what it holds."""
    made = made_lake.make(root / "lake")
    folders, members = {}, []
    for backbone, top in tops.items():
        spec = PatchSpec(precision="bf16", backbone=backbone, classes=CLASSES, side=side, mean_grey=52.0, weights=None)
        model = classifiers.whole_image(classifiers.patch_classifier(spec, 0), parse(top), images, 0, "bf16").model
        name = classifiers.candidate_name(backbone, parse(top))
        folders[name] = str(root / name)
        lake.write_folder(folders[name], model_files.to_files(model.eval()))
        members.append(Member(name=name, kind="a-b", backbone=backbone, top_layers=top, val_auc=0.8))
    figures = {
        "val_auc": 0.8,
        "val_by_patient": Interval(low=0.7, high=0.9),
        "val_sensitivity": 0.8,
        "val_specificity": 0.7,
    }
    frozen = Ensemble(members=tuple(members), cutoff=0.5, val_images=200, **figures)
    sized = replace(made, config=replace(made.config, images=images))
    uri = f"sqlite:///{root}/mlflow/mlflow.db"
    registering.register(sized, uri, frozen, NAME, folders=folders, precision="bf16")
    version = MlflowClient(uri, uri).get_model_version(NAME, "1")
    return uri, f"{version.source}/data/ensemble"


def request(uri: str, out: str) -> Request:
    """Return what is asked of the pipeline: scores alone."""
    model = Registry(uri).version(f"models:/{NAME}/1").describe()
    outputs = Outputs(model=f"{NAME}/1", heatmaps="none", dicom=False)
    return Request(model=model, tracking_uri=uri, out=out, outputs=outputs, salt="", compute=ScoringCompute())


say = functools.partial(print, file=sys.stderr)


def begin(folder: str | None) -> None:
    """Make a process ready, with one thread."""
    global model  # a process of the pool holds one
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = predictor.read_folder(folder) if folder else None


def decode_one(path: str) -> np.ndarray:
    """Decode a film."""
    return decode.load_image(path, FULL).pixels


def score_four(pixels_NHW: np.ndarray) -> int:
    """Score films that are decoded."""
    return len(model.score(pixels_NHW))


def rate(work, items: list, folder: str | None, of_item: int) -> float:
    """Return the images a second that a pool does, its processes warm."""
    with multiprocessing.get_context("spawn").Pool(CORES, begin, (folder,)) as pool:
        pool.map(work, items[:CORES], chunksize=1)
        began = time.perf_counter()
        pool.map(work, items, chunksize=1)
        return len(items) * of_item / (time.perf_counter() - began)


def pipeline_rate(out: Path) -> float:
    """Return the images a second that the pipeline writes between its first round of shards and its last."""
    shards = sorted(path.stat().st_mtime for path in (out / "shards").iterdir())
    per_shard = score_files.IMAGES_PER_SHARD
    return (len(shards) - CORES) * per_shard / (shards[-1] - shards[CORES - 1])


def speed(images: int) -> None:
    """Print how fast scoring is against its parts."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        films = full_size_films.write(root / "films", images, ("jpeg-lossless",), CORES)["jpeg-lossless"]
        (root / "registry").mkdir()
        uri, package = register(root / "registry", FULL, TOPS, 224)
        files = [file for file in score_files.find(str(films)) if "masks" not in file.path]
        paths = [file.path for file in files]
        score.score(request(uri, str(root / "out")), files, say=say)
        whole = pipeline_rate(root / "out")
        decoded = rate(decode_one, paths, None, 1)
        pixels = np.stack([decode_one(path) for path in paths[:4]])
        scored = rate(score_four, [pixels] * (2 * CORES), package, 4)
        about = {
            "images": len(paths),
            "rate": round(whole, 3),
            "decoding": round(decoded, 3),
            "model": round(scored, 3),
        }
        slower = min(decoded, scored)
        show(
            "score_vs_slower", whole / slower, "share", ">= 0.85", "the slower of decoding and the model alone", **about
        )


class Watch(threading.Thread):
    """Notes the memory of all processes of Ray, once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.noted: list[int] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1):
            total = 0
            for process in psutil.process_iter(["name", "cmdline"]):
                if any("ray::" in word for word in process.info["cmdline"] or ()):
                    try:
                        total += process.memory_info().rss - process.memory_info().shared
                    except psutil.NoSuchProcess:
                        continue
            self.noted.append(total)

    def stop(self) -> list[int]:
        """End, and return what was noted."""
        self._over.set()
        self.join()
        return self.noted


def memory(many: int) -> None:
    """Print whether memory stays flat over many images."""
    small = ImageConfig(height=320, width=256)
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), np.random.default_rng(0)
        (root / "films").mkdir()
        (root / "registry").mkdir()
        grey = (rng.random((400, 320)) * 40000).astype(np.uint16)
        for number in range(many):
            cv2.imwrite(str(root / "films" / f"{number:05}.png"), np.roll(grey, number, axis=0))
        uri, _ = register(root / "registry", small, {"resnet10_narrow": "16x1,8x1"}, 64)
        watch = Watch()
        watch.start()
        score.score(request(uri, str(root / "out")), score_files.find(str(root / "films")), say=say)
        noted = watch.stop()
        quarter = len(noted) // 4
        early, late = statistics.median(noted[quarter : 2 * quarter]), statistics.median(noted[-quarter:])
        about = {"gib": round(late / 2**30, 2), "spilled_mib": spilled()}
        show("scoring_memory_growth", late / early, "ratio", "about 1", f"{many} images, second quarter", **about)


def spilled() -> int:
    """Return what Ray wrote to disk for want of memory [MiB]."""
    stats = ray._private.internal_api.memory_summary(stats_only=True)
    return 0 if "Spilled" not in stats else int(stats.split("Spilled ")[1].split(" MiB")[0])


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="full-size films")
    parser.add_argument("--many", type=int, default=2000, help="small images; 0 leaves memory out")
    asked = parser.parse_args()
    session.start()
    speed(asked.images)
    if asked.many:
        memory(asked.many)


if __name__ == "__main__":
    main()
