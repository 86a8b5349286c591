"""Ingest at full size, against a pool of processes, the codec alone, and the script that people write today.

    python tests/bench/bench_ingest.py                         # 200 films, 5 rounds: half an hour on 2 cores
    python tests/bench/bench_ingest.py --images 40 --rounds 3  # a quick look

Films of 3328x2560 px become images of 1152x896 and S10 patches. Every side does the whole of its work anew in each
round, all sides in turn, in one run on the same cores, their processes warm; `value` is the median of the rounds'
ratios. Prints one JSON line a figure.
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import multiprocessing.pool
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import full_size_films
import numpy as np
import psutil
import pyarrow.compute as pc
import pydicom
import ray

from mammoflow import lake
from mammoflow.cluster import session
from mammoflow.config import ComputeConfig, Config, SplitConfig
from mammoflow.data import ingest
from mammoflow.data.dicom import stored_values
from mammoflow.data.ingest import shards
from mammoflow.lake import Artefact, Lake

CORES = 2
STORE = 256 * 2**20
"""Ray's object store [bytes]; the films of one set hold more than 4 times as much."""
SCRIPTED = 24
"""Films of a round of the script, and of the codec alone: both are serial, so their rate needs no more."""

_numbers = itertools.count()


def config(images_per_shard: int) -> Config:
    """Return the paper's sizes; shards so small that two cores share 200 films evenly."""
    compute = ComputeConfig(images_per_shard=images_per_shard)
    return replace(Config(name="bench"), dataset="csv_folder", splits=SplitConfig(protocol="paper"), compute=compute)


def whole(run: Config, source: Path, root: Lake) -> tuple[Artefact, Artefact]:
    """Ingest a source from nothing: images, then patches, both written."""
    lakes = Lake(lake.join(root.root, str(next(_numbers))))
    images, patches = lakes.artefact("images", "bench"), lakes.artefact("patches", "bench")
    ingest.decode_images(run, str(source), images, lambda _: None)
    ingest.cut_patches(run, images, patches, lambda _: None)
    return images, patches


def by_pool(pool: multiprocessing.pool.Pool) -> Callable[..., list[dict[str, Any]]]:
    """Return a stand-in for `shards.complete` that does the same jobs by the same function, in a plain pool."""

    def complete(work, jobs, out, kind, _progress):
        for _ in pool.imap_unordered(work, jobs):
            pass
        return [shards.read_entry(out.url, job.shard, kind) for job in jobs]

    return complete


def decode_only(source: Path) -> float:
    """Return the films a second that one core decodes, with the outlines that belong to them; nothing else is done."""
    films = sorted(source.glob("[0-9]/*.dcm"))[:SCRIPTED]
    masks = sorted(source.glob("masks/*.dcm"))
    lesions = len((source / "lesions.csv").read_text().splitlines()) - 1
    headers = [pydicom.dcmread(path) for path in films]
    outlines = [pydicom.dcmread(path) for path in masks]
    started = time.perf_counter()
    for tags in headers:
        stored_values.decode(tags, None)
    a_film = (time.perf_counter() - started) / len(films)
    started = time.perf_counter()
    for tags in outlines:
        stored_values.decode(tags, None)
    a_mask = (time.perf_counter() - started) / len(masks)
    images = len((source / "images.csv").read_text().splitlines()) - 1
    return 1 / (a_film + a_mask * lesions / images)


def usual_decode(source: Path) -> float:
    """Return the films a second that one core decodes by what `pydicom` picks, as most people's code does."""
    films = [pydicom.dcmread(path) for path in sorted(source.glob("[0-9]/*.dcm"))[:SCRIPTED]]
    started = time.perf_counter()
    for tags in films:
        assert tags.pixel_array.size
    return len(films) / (time.perf_counter() - started)


def script(source: Path, images: Artefact, patches: Artefact, folder: Path) -> tuple[float, int]:
    """Do what people do today, serially: pydicom -> PNG -> read -> resize -> crop -> PNG.

    It is given the corners of the patches, so it neither samples nor looks for tissue.

    Returns:
        Films a second, and the largest difference of a patch's pixel from ours.
    """
    paths = {row["image_id"]: row["path"] for row in lake.read_table(images.file("exams.parquet")).to_pylist()}
    table = lake.read_table(patches.file("shards"))
    ids = sorted({*table["image_id"].to_pylist()})[:SCRIPTED]
    wanted = {image_id: table.filter(pc.equal(table["image_id"], image_id)) for image_id in ids}
    masks = {path.name.rpartition("-")[0].rpartition("-")[0]: path for path in source.glob("masks/*.dcm")}
    folder.mkdir()
    cut: dict[str, list[np.ndarray]] = {}
    started = time.perf_counter()
    for image_id in ids:
        for path in (Path(paths[image_id]), masks[image_id.rpartition("/")[2]]):
            png = str(folder / f"{path.stem}.png")
            cv2.imwrite(png, pydicom.dcmread(path).pixel_array)
            reduced_HW = cv2.resize(cv2.imread(png, cv2.IMREAD_UNCHANGED), (896, 1152), interpolation=cv2.INTER_AREA)
            if "masks" in path.parts:
                continue
            corners = zip(wanted[image_id]["row"].to_pylist(), wanted[image_id]["column"].to_pylist(), strict=True)
            cut[image_id] = [reduced_HW[row : row + 224, column : column + 224] for row, column in corners]
            for number, patch in enumerate(cut[image_id]):
                cv2.imwrite(str(folder / f"{path.stem}-{number}.png"), patch)
    rate = len(ids) / (time.perf_counter() - started)
    ours = {image_id: rows["pixels"].combine_chunks().to_numpy_ndarray() for image_id, rows in wanted.items()}
    differences = [np.abs(np.stack(cut[i]).astype(np.int64) - ours[i].astype(np.int64)).max() for i in ids]
    return rate, int(max(differences))


def rate_of(images: int, work: Callable[[], Any]) -> float:
    """Return images a second."""
    started = time.perf_counter()
    work()
    return images / (time.perf_counter() - started)


class Workers(threading.Thread):
    """Watches the largest resident memory [bytes] of Ray's working processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_now = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._stop_now.wait(0.05):
            for process in me.children(recursive=True):
                try:
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                        self.peak = max(self.peak, process.memory_info().rss)
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue

    def stop(self) -> int:
        self._stop_now.set()
        self.join()
        return self.peak


def spilled_mib() -> float:
    """Return what Ray has written from its object store to disk so far [MiB]."""
    from ray._private.internal_api import memory_summary

    found = re.search(r"Spilled (\d+) MiB", memory_summary(ray.get_runtime_context().gcs_address, stats_only=True))
    return float(found[1]) if found else 0.0


def figure(name: str, value: float, unit: str, goal: str, against: str, **more: object) -> None:
    print(
        json.dumps({"figure": name, "value": round(value, 3), "unit": unit, "goal": goal, "against": against, **more}),
        flush=True,
    )


def speed(sources: dict[str, Path], images: int, rounds: int, run: Config, root: Lake) -> None:
    """Measure images/s against the pool, the codec and the script."""
    with multiprocessing.get_context("spawn").Pool(CORES, initializer=_warm) as pool:
        for codec, source in sources.items():
            ours, pools, codecs, both, usual, scripts = [], [], [], [], [], []
            difference = 0
            for number in range(rounds + 1):  # the first warms up
                made: list[tuple[Artefact, Artefact]] = []
                ours.append(rate_of(images, lambda s=source, m=made: m.append(whole(run, s, root))))
                with mock.patch.object(shards, "complete", by_pool(pool)):
                    pools.append(rate_of(images, lambda s=source: whole(run, s, root)))
                codecs.append(decode_only(source))
                both.append(sum(pool.map(decode_only, [source] * CORES, chunksize=1)))
                usual.append(usual_decode(source))
                if codec == "jpeg-lossless":
                    folder = Path(root.root) / f"script-{number}"
                    scripted, off = script(source, *made[0], folder)
                    scripts.append(scripted)
                    difference = max(difference, off)
                    shutil.rmtree(folder)
                for child in Path(root.root).glob("[0-9]*"):
                    shutil.rmtree(child)
            about = {"images_per_s": round(statistics.median(ours[1:]), 2), "codec": codec, "images": images}
            suffix = "" if codec == "jpeg-lossless" else f"_{codec}"
            _ratios(f"ingest_vs_pool{suffix}", ours, pools, ">= 0.9", "a multiprocessing pool, same function", about)
            limits = [CORES * codec_rate for codec_rate in codecs]
            _ratios(f"ingest_vs_codec{suffix}", ours, limits, ">= 0.8", "decoding alone, one core times cores", about)
            against = "decoding alone as pydicom does it by itself, one core times cores"
            _ratios(f"ingest_vs_pydicom{suffix}", ours, [CORES * rate for rate in usual], "-", against, about)
            against = "decoding alone on one core: what the machine gives, not the software"
            _ratios(f"codec_scaling{suffix}", both, codecs, f"{CORES} at most", against, {"codec": codec})
            if scripts:
                per_core = [rate / CORES for rate in ours]
                against = "serial pydicom, PNG, read, resize, crop, per core"
                _ratios("ingest_vs_script", per_core, scripts, ">= 3", against, about)
                figure("script_patch_difference", difference, "of 65535", "<= 1", "pixels of the script's patches")


def _ratios(name: str, ours: list[float], theirs: list[float], goal: str, against: str, about: dict[str, Any]) -> None:
    ratios = [a / b for a, b in zip(ours[1:], theirs[1:], strict=True)]
    figure(name, statistics.median(ratios), "ratio", goal, against, rounds=[round(r, 3) for r in ratios], **about)


def _warm() -> None:
    """Import what the work needs, in a process of the pool."""
    cv2.setNumThreads(1)


@ray.remote(num_cpus=1)
class Idle:
    """Holds a CPU, so that one less works."""

    def ready(self) -> bool:
        return True


def scaling(source: Path, images: int, rounds: int, run: Config, root: Lake) -> None:
    """Measure two workers against one, the other CPU held idle."""
    ratios = []
    few = halved(halved(source, Path(root.root) / "a-half"), Path(root.root) / "a-quarter")
    for _ in range(rounds):
        whole(run, few, root)  # starts the workers: Ray ends those that idle
        two = rate_of(images, lambda: whole(run, source, root))
        idle = Idle.remote()
        ray.get(idle.ready.remote())
        one = rate_of(images, lambda: whole(run, source, root))
        ray.kill(idle)
        ratios.append(two / one)
    rounded = [round(ratio, 3) for ratio in ratios]
    figure("ingest_scaling_2", statistics.median(ratios), "ratio", ">= 1.8", "one worker", rounds=rounded)


def doubled(source: Path, folder: Path) -> Path:
    """Return a source with every film of another twice, the second time as a link of its own."""
    folder.mkdir()
    for child in source.iterdir():
        if child.is_dir():
            (folder / child.name).symlink_to(child)
            (folder / f"again-{child.name}").symlink_to(child)
    for name in ("images.csv", "lesions.csv"):
        header, *lines = (source / name).read_text().splitlines()
        again = [f"again-{line}" for line in lines]
        (folder / name).write_text("\n".join([header, *lines, *again]) + "\n")
    return folder


def halved(source: Path, folder: Path) -> Path:
    """Return a source with half the films of another."""
    folder.mkdir()
    for child in source.iterdir():
        if child.is_dir():
            (folder / child.name).symlink_to(child)
    header, *lines = (source / "images.csv").read_text().splitlines()
    kept = lines[: len(lines) // 2]
    paths = {line.partition(",")[0] for line in kept}
    first, *lesions = (source / "lesions.csv").read_text().splitlines()
    some = [line for line in lesions if line.partition(",")[0] in paths]
    (folder / "images.csv").write_text("\n".join([header, *kept]) + "\n")
    (folder / "lesions.csv").write_text("\n".join([first, *some]) + "\n")
    return folder


def memory(source: Path, images: int, root: Lake) -> None:
    """Measure workers' memory and spills at half and at twice the number of films, and a shard of the default size."""
    default, small = ComputeConfig().images_per_shard, 64  # which fill shards in the smaller set too
    half, twice = halved(source, Path(root.root) / "half"), doubled(source, Path(root.root) / "twice")
    peaks = []
    for folder, images_per_shard in ((half, small), (twice, small), (twice, default)):
        with ray_cluster():  # new processes: memory of theirs never shrinks
            watch = Workers()
            watch.start()
            made, _ = whole(config(images_per_shard), folder, root)
            peaks.append(watch.stop())
            spilled = spilled_mib()
    about = {"images": [images // 2, images * 2], "object_store_mib": STORE // 2**20}
    figure("worker_rss_gib", max(peaks) / 2**30, "GiB", "<= 1.5", f"shards of {default} images, the default", **about)
    figure("worker_rss_growth", peaks[1] / peaks[0], "ratio", "about 1", f"{images // 2} images", **about)
    figure("spilled_mib", spilled, "MiB", "0", "a set of more than 4 times the object store", **about)
    sizes = [os.path.getsize(url) for url in lake.iter_shards(made)]  # noqa: PTH202
    against = f"{default} images of 1152x896, the default"
    figure("shard_mib", max(sizes) / 2**20, "MiB", "64-512", against, shards=len(sizes))


class ray_cluster:  # noqa: N801
    """A private cluster of CORES CPUs with a small object store."""

    def __enter__(self) -> None:
        with mock.patch.object(ray, "init", functools.partial(ray.init, object_store_memory=STORE)):
            session.start(num_cpus=CORES)

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def main() -> None:
    """Draw the films, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["speed", "scaling", "memory"], default=None)
    parser.add_argument("--codecs", nargs="+", default=["jpeg-lossless", "jpeg2000"])
    parser.add_argument("--films", type=Path, help="keep the films here, and use those of an earlier call")
    options = parser.parse_args()
    os.environ.setdefault("RAY_ADDRESS", "local")
    with tempfile.TemporaryDirectory(prefix="mf-") as folder:
        films = options.films or Path(folder) / "films"
        sources = {codec: films / codec for codec in options.codecs}
        if not all((source / "images.csv").exists() for source in sources.values()):
            sources = full_size_films.write(films, options.images, tuple(options.codecs), CORES)
        print(f"{options.images} films in {films}", file=sys.stderr)
        root, run = Lake(f"{folder}/lake"), config(images_per_shard=8)
        Path(root.root).mkdir()
        first = next(iter(sources.values()))
        with ray_cluster():
            if options.only in (None, "speed"):
                speed(sources, options.images, options.rounds, run, root)
            if options.only in (None, "scaling"):
                scaling(first, options.images, options.rounds, run, root)
        if options.only in (None, "memory"):
            memory(first, options.images, root)


if __name__ == "__main__":
    main()
