"""Decode a release into the lake's images with Ray Data: the stage `images`.

Shape letters: N rows of a shard; H, W image rows, columns [px].
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mammoflow import lake
from mammoflow.config import Config, ImageConfig
from mammoflow.data import decode, outlines, quarantine, releases, splits
from mammoflow.data.dicom.reader import FULL
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.shards import Done, Row, Say
from mammoflow.data.quarantine import Quarantined
from mammoflow.data.releases import patients
from mammoflow.data.releases.listing import Listing, contents
from mammoflow.errors import DecodeError, SplitError
from mammoflow.facts.stages import ImagesFacts
from mammoflow.lake import Artefact, schema
from mammoflow.lake.schema import SPLITS


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """Some consecutive exams of one split."""

    shard: str
    first: int
    """Row in the table of exams."""
    units: int
    """Images."""
    bytes_read: int
    """Size of their files and outlines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedEntry:
    """The ledger entry of a shard of images."""

    split: str
    images: int
    malignant: int
    patients: tuple[str, ...]
    """Ids, sorted."""
    grey_sum: int
    """Sum of all pixels [0-65535 each]."""
    pixels: int
    histogram: tuple[int, ...]
    """Pixels in 256 bins of grey, of equal width."""
    pixel_hashes: dict[str, str]
    """Image id -> hash of its pixels."""
    outlines_missing: int
    """Lesions without a usable outline."""
    quarantine: tuple[Quarantined, ...]


def decode_images(
    config: Config, source: str, out: Artefact, say: Say = print, salt: Callable[[], str] = patients.no_salt
) -> ImagesFacts:
    """List a release, assign splits, and decode its films and outlines into shards of `schema.images`.

    Writes exams.parquet (the images used, with their splits), splits.csv, shards/ and quarantine.parquet. An image that
    can't be decoded becomes a fatal row of quarantine and is in no shard. A lesion without a usable outline becomes a
    row of quarantine, and its image has a null mask.

    Args:
        config: data set, limit, splits, image size, seed and shard size.
        source: folder or URL of the release.
        out: the artefact; shards it already holds are kept, those of its siblings are copied.
        say: takes progress lines.
        salt: returns the salt of patient hashes; called only if the release lacks patient ids.

    Raises:
        SourceError: the source is not that release.
        SplitError: the images can't be split, or the same pixels are in two splits.
        LakeError: the lake can't be written.
    """
    listing = releases.read(config.dataset, source, salt)
    exams = _split(listing.exams, config)
    lake.write_table(out.file("exams.parquet"), exams)
    lake.write_bytes(out.file(splits.PUBLISHED), splits.manifest(exams).encode())
    jobs = _decode_jobs(exams, listing.files.sizes(), config)
    copied = shards.adopt(jobs, out)
    if copied:
        say(f"  {copied} of {len(jobs)} shards are those of an earlier run")
    work = partial(_decode_shard, exams=exams, images=config.images, out=out.url)
    ledger = shards.complete(work, jobs, out, DecodedEntry, shards.Progress("images decoded", say))
    duplicates = _duplicates(exams, ledger)
    quarantine.write(out, [*listing.problems, *(row for entry in ledger for row in entry.quarantine), *duplicates])
    return _facts(listing, ledger, duplicates)


def _split(exams: pa.Table, config: Config) -> pa.Table:
    """Keep the exams within protocol and limit, assign splits, and put them in the order of shards."""
    protocol = config.splits
    if protocol.manifest:
        exams = splits.with_manifest(exams, lake.read_bytes(protocol.manifest).decode("utf-8-sig"))
        protocol = replace(protocol, protocol="given")
    exams = splits.select(exams, protocol)
    if config.limit is not None:
        exams = splits.limit_films(exams, config.limit)
    return _in_shard_order(splits.assign(exams, protocol, config.seed), config.seed)


def _in_shard_order(exams: pa.Table, seed: int) -> pa.Table:
    """Order exams by split, then by a hash of seed and id, so that each shard is a random sample of its split."""
    keys = zip(exams["split"].to_pylist(), exams["image_id"].to_pylist(), strict=True)
    ranked = [(SPLITS.index(split), lake.fingerprint(seed, image_id), image_id) for split, image_id in keys]
    return exams.take(sorted(range(len(ranked)), key=ranked.__getitem__))


def _decode_jobs(exams: pa.Table, sizes: Mapping[str, int], config: Config) -> list[DecodeJob]:
    """Cut each split's exams into runs of at most `images_per_shard`.

    A shard's name is its split, a hash of its images, and a hash of everything that decides their pixels. Shards are
    read in the order of names, so images come before settings: the order stays when a setting is renamed or added.
    """
    rows = exams.to_pylist()
    inputs = [contents(exam, sizes) for exam in rows]
    size, jobs, first = config.compute.images_per_shard, [], 0
    counts = Counter(exams["split"].to_pylist())
    for split in SPLITS:
        end = first + counts[split]
        for start in range(first, end, size):
            run = slice(start, min(start + size, end))
            ids = lake.fingerprint([exam["image_id"] for exam in rows[run]])
            settings = lake.fingerprint(schema.TABLES, inputs[run], config.images)
            read = sum(_bytes(exam, sizes) for exam in rows[run])
            name = f"{split}-{ids}-{settings}"
            jobs.append(DecodeJob(shard=name, first=start, units=run.stop - start, bytes_read=read))
        first = end
    return jobs


def _decode_shard(job: DecodeJob, exams: pa.Table, images: ImageConfig, out: str) -> Done:
    """Decode some images and write them as one shard; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    rows: list[Row] = []
    faults: list[Quarantined] = []
    room_NHW = np.empty((job.units, images.height, images.width), np.uint16)
    for exam in exams.slice(job.first, job.units).to_pylist():
        try:
            decoded = decode.load_image(exam["path"], images)
        except DecodeError as error:
            faults.append(quarantine.left_out(exam["image_id"], exam["path"], error.reason))
            continue
        lesions, outline_faults = _outlines(exam, decoded)
        faults += outline_faults
        room_NHW[len(rows)] = decoded.pixels
        rows.append(
            {name: exam.get(name) for name in schema.images(1, 1).names if name != "pixels"}
            | {name: exam[name] or getattr(decoded.identity, name) for name in ("laterality", "view")}
            | {"source_height": decoded.fit.source_height, "source_width": decoded.fit.source_width, "lesions": lesions}
            | {"vendor": decoded.identity.vendor}
        )
    pixels_NHW = room_NHW[: len(rows)]
    shards.write_entry(out, job.shard, _entry(job, rows, pixels_NHW, faults))
    shards.write(shards.shard_url(out, job.shard), rows, pixels_NHW, schema.images(*pixels_NHW.shape[1:]))
    return Done(units=job.units, bad=job.units - len(rows), counts={"bytes_read": job.bytes_read})


def _entry(job: DecodeJob, rows: list[Row], pixels_NHW: NDArray[np.uint16], faults: list[Quarantined]) -> DecodedEntry:
    return DecodedEntry(
        split=job.shard.partition("-")[0],
        images=len(rows),
        malignant=sum(row["label"] == schema.MALIGNANT for row in rows),
        patients=tuple(sorted({row["patient_id"] for row in rows})),
        grey_sum=int(pixels_NHW.sum(dtype=np.uint64)),
        pixels=pixels_NHW.size,
        histogram=tuple(_histogram(pixels_NHW).tolist()),
        pixel_hashes={row["image_id"]: _hash(pixels_HW) for row, pixels_HW in zip(rows, pixels_NHW, strict=True)},
        outlines_missing=sum(lesion["mask_png"] is None for row in rows for lesion in row["lesions"]),
        quarantine=tuple(faults),
    )


def _bytes(exam: Row, sizes: Mapping[str, int]) -> int:
    """Return the size of an exam's image and masks [B]; missing files count 0."""
    masks = (path for lesion in exam["lesions"] for path in lesion["mask_paths"])
    return sum(sizes.get(path, 0) for path in (exam["path"], *masks))


def _histogram(pixels: Iterable[NDArray[np.uint16]]) -> NDArray[np.int64]:
    """Count pixels by grey value, in 256 bins of equal width."""
    counts = np.zeros(256, np.int64)
    for pixels_HW in pixels:
        counts += cv2.calcHist([pixels_HW], [0], None, [256], [0, FULL + 1]).ravel().astype(np.int64)
    return counts


def _hash(pixels_HW: NDArray[np.uint16]) -> str:
    return hashlib.blake2b(pixels_HW.tobytes(), digest_size=16).hexdigest()


def _duplicates(exams: pa.Table, ledger: Sequence[DecodedEntry]) -> list[Quarantined]:
    """Return a row, not fatal, for each image that has the same pixels as another film.

    Raises:
        SplitError: the two are in different splits.
    """
    by_id = {exam["image_id"]: exam for exam in exams.drop_columns(["lesions"]).to_pylist()}
    by_hash: dict[str, Row] = {}
    rows = []
    for entry in ledger:
        for image_id, pixel_hash in entry.pixel_hashes.items():
            exam = by_id[image_id]
            first = by_hash.setdefault(pixel_hash, exam)
            if first["film_id"] == exam["film_id"]:  # two series of one film
                continue
            if first["split"] != exam["split"]:
                raise SplitError(
                    f"{image_id} in {exam['split']} shows the same pixels as {first['image_id']} in {first['split']}, "
                    "a leak; leave one of them out of the source, or give both one patient"
                )
            reason = f"shows the same pixels as {first['image_id']}; both are used"
            rows.append(quarantine.flawed(image_id, exam["path"], reason))
    return rows


def _outlines(exam: Row, decoded: decode.Decoded) -> tuple[list[Row], list[Quarantined]]:
    """Return the lesions of an image with their reduced outlines, and the faults of outlines."""
    lesions, faults = [], []
    for lesion in exam["lesions"]:
        mask_png = None
        try:
            outline = _outline(lesion, decoded)
            mask_png = outlines.encode_mask(decoded.fit.apply_mask(outline.mask))
            fault = outline.note
        except DecodeError as error:
            fault = error.reason
        if fault:
            path = (lesion["mask_paths"] or [exam["path"]])[0]
            faults.append(quarantine.flawed(exam["image_id"], path, f"{lesion['lesion_id']}: {fault}", "mask"))
        lesions.append({name: lesion[name] for name in ("lesion_id", "kind", "pathology")} | {"mask_png": mask_png})
    return lesions, faults


def _outline(lesion: Row, decoded: decode.Decoded) -> outlines.Outline:
    height, width = decoded.fit.source_height, decoded.fit.source_width
    if lesion["outline"]:
        return outlines.draw_outline(lesion["outline"], height, width, from_bottom=lesion["from_bottom"])
    return outlines.load_mask(lesion["mask_paths"], height, width)


def _facts(listing: Listing, ledger: Sequence[DecodedEntry], duplicates: Sequence[Quarantined]) -> ImagesFacts:
    """Add up the ledger."""
    by_split = {split: [entry for entry in ledger if entry.split == split] for split in SPLITS}
    pixels = sum(entry.pixels for entry in by_split["train"])
    faults = [row for entry in ledger for row in entry.quarantine]
    missed = sorted([row.image_id, row.stage, row.fatal] for row in faults)
    return ImagesFacts(
        images={split: sum(entry.images for entry in entries) for split, entries in by_split.items()},
        malignant={split: sum(entry.malignant for entry in entries) for split, entries in by_split.items()},
        patients={
            split: len({patient for entry in entries for patient in entry.patients})
            for split, entries in by_split.items()
        },
        mean_grey=sum(entry.grey_sum for entry in by_split["train"]) / pixels * 255 / FULL if pixels else None,
        histogram=np.sum([_histogram([]), *(np.array(entry.histogram) for entry in ledger)], axis=0).tolist(),
        quarantined=sum(row.fatal for row in (*listing.problems, *faults)),
        outlines_missing=sum(entry.outlines_missing for entry in ledger),
        duplicates=len(duplicates),
        left_out=lake.fingerprint(missed) if missed else None,
        source=listing.counts,
    )
