"""Cut labelled patches out of the lake's images with Ray Data: the stage `patches`.

Shape letters: N rows of a shard; H, W image rows, columns [px]; P patch side [px].
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow import lake
from mammoflow.config import Config, PatchConfig
from mammoflow.data import outlines, patches, quarantine
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.shards import Done, Row, Say
from mammoflow.data.quarantine import Quarantined
from mammoflow.errors import PatchError
from mammoflow.facts.stages import Counts, PatchesFacts
from mammoflow.lake import Artefact, schema
from mammoflow.lake.schema import SPLITS


@dataclass(frozen=True, slots=True, kw_only=True)
class CutJob:
    """One shard of images to cut."""

    shard: str
    images: str
    """URL of the shard of images."""
    units: int
    """Images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutEntry:
    """The ledger entry of a shard of patches."""

    split: str
    patches: Counts
    """Patches by class."""
    below_min: int
    """Patches so flagged (`schema.patches`)."""
    unverified: int
    """Patches so flagged."""
    mined: int
    """Hard examples among the patches."""
    quarantine: tuple[Quarantined, ...]


def cut_patches(config: Config, images: Artefact, out: Artefact, say: Say = print) -> PatchesFacts:
    """Cut labelled patches out of decoded images into shards of `schema.patches`, rows shuffled within each.

    Args:
        config: the patch set and the seed.
        images: complete artefact of `decode_images`; each of its shards gives one of patches.
        out: the artefact; shards it already holds are kept.
        say: takes progress lines.

    Raises:
        ConfigError: a lesion's class is not in the class list.
        LakeError: the lake can't be read or written.
    """
    jobs = shard_jobs(config, images)
    work = partial(_cut_shard, config=config.patches, seed=config.seed, out=out.url)
    ledger = shards.complete(work, jobs, out, CutEntry, shards.Progress("images cut", say))
    faults = [row for entry in ledger for row in entry.quarantine]
    quarantine.write(out, faults)
    counts = {split: dict.fromkeys(config.patches.classes, 0) for split in SPLITS}
    for entry in ledger:
        for name, n in entry.patches.items():
            counts[entry.split][name] += n
    return PatchesFacts(
        patches=counts,
        below_min=sum(entry.below_min for entry in ledger),
        unverified=sum(entry.unverified for entry in ledger),
        quarantined=len(faults),
    )


Choose = Callable[[NDArray[np.uint16], list[patches.Lesion], np.random.Generator], list[patches.Patch]]
"""Chooses the patches of one image (H, W) from its lesions, with the image's own random generator."""


def shard_jobs(config: Config, images: Artefact, split: str = "") -> list[CutJob]:
    """Return one job per shard of images, of one split or of all (empty)."""
    jobs = []
    for url in lake.iter_shards(images, split):
        stem = url.rpartition("/")[2].removesuffix(".parquet")
        images_of, _, _ = stem.rpartition("-")  # split and images, which the shard of patches shares
        name = f"{images_of}-{lake.fingerprint(stem, config.patches, config.seed)}"
        jobs.append(CutJob(shard=name, images=url, units=shards.count_rows(url)))
    return jobs


def _cut_shard(job: CutJob, config: PatchConfig, seed: int, out: str) -> Done:
    """Cut the patches of one shard of images at random; runs in a Ray Data task."""

    def choose(
        pixels_HW: NDArray[np.uint16], lesions: list[patches.Lesion], rng: np.random.Generator
    ) -> list[patches.Patch]:
        """Choose at random."""
        return patches.cut(pixels_HW, lesions, config, rng)

    return cut_shard(job, choose, config, seed, out)


def cut_shard(job: CutJob, choose: Choose, config: PatchConfig, seed: int, out: str) -> Done:
    """Cut the patches of one shard of images and write them shuffled, with their ledger entry.

    Args:
        job: the shard of images.
        choose: called for each image; if it raises PatchError, the image goes to quarantine.
        config: P and the class list.
        seed: of the run.
        out: URL of the artefact.
    """
    cv2.setNumThreads(1)  # the task has one core
    rows, pixels, faults, mined = [], [], [], 0
    for image, pixels_HW in shards.read_images(job.images):
        rng = np.random.default_rng(int(lake.fingerprint(seed, image["image_id"], "patches"), 16))
        try:
            chosen = choose(pixels_HW, [_lesion(row) for row in image["lesions"]], rng)
        except PatchError as error:
            faults.append(quarantine.left_out(image["image_id"], job.images, error.reason, "patches"))
            continue
        rows += _patch_rows(image, chosen)
        mined += sum(patch.mined for patch in chosen)
        pixels += [pixels_HW[p.row : p.row + config.side, p.column : p.column + config.side].copy() for p in chosen]
    images_of, _, _ = job.shard.rpartition("-")  # seed by images, without settings: these must not change the order
    order = np.random.default_rng(int(lake.fingerprint(seed, images_of, "shuffle"), 16)).permutation(len(rows))
    rows = [rows[i] for i in order]
    shape = (0, config.side, config.side)
    pixels_NPP = np.stack([pixels[i] for i in order]) if rows else np.empty(shape, np.uint16)
    entry = CutEntry(
        split=job.shard.partition("-")[0],
        patches=Counter(config.classes[row["label"]] for row in rows),
        below_min=sum(row["below_min"] for row in rows),
        unverified=sum(row["unverified"] for row in rows),
        mined=mined,
        quarantine=tuple(faults),
    )
    shards.write_entry(out, job.shard, entry)
    shards.write(shards.shard_url(out, job.shard), rows, pixels_NPP, schema.patches(config.side))
    return Done(units=job.units, bad=len(faults), counts={"patches": len(rows)})


def _lesion(row: Row) -> patches.Lesion:
    mask = outlines.decode_mask(row["mask_png"]) if row["mask_png"] else None
    return patches.Lesion(lesion_id=row["lesion_id"], kind=row["kind"], pathology=row["pathology"], mask=mask)


def _patch_rows(image: Row, chosen: list[patches.Patch]) -> list[Row]:
    """Return the rows of one image's patches without pixels, numbered within each lesion."""
    numbers: Counter[str] = Counter()
    rows = []
    for patch in chosen:
        shown = patch.lesion_id or "background"
        rows.append(
            {name: image[name] for name in ("image_id", "film_id", "patient_id", "split")}
            | {name: getattr(patch, name) for name in ("label", "lesion_id", "row", "column", "overlap")}
            | {"below_min": patch.below_min, "unverified": patch.unverified}
            | {"patch_id": f"{image['image_id']}/{shown}/{numbers[shown]}"}
        )
        numbers[shown] += 1
    return rows
