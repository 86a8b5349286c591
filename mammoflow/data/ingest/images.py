"""Decoding a release into the lake's images, by Ray Data: the stage `images`.

Shape letters: N rows of a shard; H, W image rows, columns [px].
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mammoflow import lake
from mammoflow.config import Config, ImageConfig
from mammoflow.data import decode, outlines, releases, splits
from mammoflow.data.dicom.reader import FULL
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.shards import Row, Say
from mammoflow.data.releases import patients
from mammoflow.data.releases.listing import contents, problem
from mammoflow.errors import DecodeError, SplitError
from mammoflow.lake import Artefact, schema
from mammoflow.lake.schema import SPLITS


def decode_images(
    config: Config, source: str, out: Artefact, say: Say = print, salt: Callable[[], str] = patients.no_salt
) -> Row:
    """List a release, assign splits, and decode its films and outlines into shards of `schema.images`.

    Writes exams.parquet (the images used, with their split), splits.csv, shards/, and quarantine.parquet: an image
    that can't be decoded is a fatal row there and in no shard; a lesion without a usable outline is a row, and a null
    in its image.

    Args:
        config: data set, limit, splits, image size, seed and shard size.
        source: folder or URL of the release.
        out: the artefact; what it holds already is kept, what its siblings hold is copied.
        say: takes progress lines.
        salt: of patients' hashes, where the release has no keys of its own.

    Returns:
        The stage's summary: {"images", "malignant", "patients": {split: n}, "mean_grey": of the training images
        [0-255], or None where there are none, "histogram": pixels of all images in 256 bins of grey, "quarantined":
        images left out, "outlines_missing": lesions, "duplicates": images with the pixels of another film, "left_out":
        a fingerprint of what could not be used, or None, "source": what the release's metadata counts}.

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
    common = {"exams": exams, "images": config.images, "out": out.url}
    ledger = shards.complete(_decode_shard, jobs, common, out, "shards", shards.Progress("images decoded", say))
    twins = _twins(exams, ledger)
    quarantine = [*listing.problems, *(row for entry in ledger for row in entry["quarantine"]), *twins]
    shards.write_quarantine(out, quarantine)
    return _image_summary(ledger, quarantine) | {"duplicates": len(twins), "source": listing.counts}


def _split(exams: pa.Table, config: Config) -> pa.Table:
    """Keep the exams that the protocol and the limit leave, assign splits, and order them as shards do."""
    protocol = config.splits
    if protocol.manifest:
        exams = splits.with_manifest(exams, lake.read_bytes(protocol.manifest).decode("utf-8-sig"))
        protocol = replace(protocol, protocol="given")
    exams = splits.select(exams, protocol)
    if config.limit is not None:
        exams = splits.limit_films(exams, config.limit)
    return _in_shard_order(splits.assign(exams, protocol, config.seed), config.seed)


def _in_shard_order(exams: pa.Table, seed: int) -> pa.Table:
    """Order exams by split, then at random by seed and id: a shard is a fair sample, whatever order they came in."""
    keys = zip(exams["split"].to_pylist(), exams["image_id"].to_pylist(), strict=True)
    ranked = [(SPLITS.index(split), lake.fingerprint(seed, image_id), image_id) for split, image_id in keys]
    return exams.take(sorted(range(len(ranked)), key=ranked.__getitem__))


def _decode_jobs(exams: pa.Table, sizes: Mapping[str, int], config: Config) -> list[Row]:
    """Cut each split's exams into runs of at most `images_per_shard`.

    A shard is named by its split, its images, and all that decides what they become. Shards are read in the order of
    their names, so the images come first in them: the order does not change when a setting is renamed or added.
    """
    listed = exams.to_pylist()
    held = [contents(exam, sizes) for exam in listed]
    size, jobs, first = config.compute.images_per_shard, [], 0
    counts = Counter(exams["split"].to_pylist())
    for split in SPLITS:
        end = first + counts[split]
        for start in range(first, end, size):
            run = held[start : min(start + size, end)]
            read = sum(_bytes(exam, sizes) for exam in listed[start : start + len(run)])
            ids = lake.fingerprint([exam["image_id"] for exam in listed[start : start + len(run)]])
            mark = lake.fingerprint(schema.TABLES, run, config.images)
            jobs.append({"shard": f"{split}-{ids}-{mark}", "first": start, "units": len(run), "bytes_read": read})
        first = end
    return jobs


def _decode_shard(job: Row, exams: pa.Table, images: ImageConfig, out: str) -> Row:
    """Decode some images and write them as one shard; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    rows: list[Row] = []
    quarantine: list[Row] = []
    room_NHW = np.empty((job["units"], images.height, images.width), np.uint16)
    for exam in exams.slice(job["first"], job["units"]).to_pylist():
        try:
            decoded = decode.load_image(exam["path"], images)
        except DecodeError as error:
            quarantine.append(problem(exam["image_id"], exam["path"], "decode", str(error), fatal=True))
            continue
        lesions, faults = _outlines(exam, decoded)
        quarantine += faults
        room_NHW[len(rows)] = decoded.pixels
        rows.append(
            {name: exam.get(name) for name in schema.images(1, 1).names if name != "pixels"}
            | {name: exam[name] or getattr(decoded.identity, name) for name in ("laterality", "view")}
            | {"source_height": decoded.source_height, "source_width": decoded.source_width, "lesions": lesions}
            | {"vendor": decoded.identity.vendor}
        )
    pixels_NHW = room_NHW[: len(rows)]
    entry = {
        "split": job["shard"].partition("-")[0],
        "images": len(rows),
        "malignant": sum(row["label"] == schema.MALIGNANT for row in rows),
        "patients": sorted({row["patient_id"] for row in rows}),
        "grey_sum": int(pixels_NHW.sum(dtype=np.uint64)),
        "pixels": pixels_NHW.size,
        "histogram": _histogram(pixels_NHW).tolist(),
        "pixel_hashes": {row["image_id"]: _hash(one) for row, one in zip(rows, pixels_NHW, strict=True)},
        "outlines_missing": sum(lesion["mask_png"] is None for row in rows for lesion in row["lesions"]),
        "quarantine": quarantine,
    }
    lake.write_json(shards.ledger_url(out, job["shard"]), entry)
    shards.write(shards.shard_url(out, job["shard"]), rows, pixels_NHW, schema.images(*pixels_NHW.shape[1:]))
    return {"units": job["units"], "bad": job["units"] - len(rows), "bytes_read": job["bytes_read"]}


def _bytes(exam: Row, sizes: Mapping[str, int]) -> int:
    """Return the size of an exam's image and outlines [B]; what is not there has none."""
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


def _twins(exams: pa.Table, ledger: list[Row]) -> list[Row]:
    """Return a row of quarantine, not fatal, for each image that shows the pixels of another film.

    Raises:
        SplitError: the two are in different splits.
    """
    about = {exam["image_id"]: exam for exam in exams.drop_columns(["lesions"]).to_pylist()}
    first: dict[str, Row] = {}
    rows = []
    for entry in ledger:
        for image_id, pixel_hash in entry["pixel_hashes"].items():
            exam = about[image_id]
            known = first.setdefault(pixel_hash, exam)
            if known["film_id"] == exam["film_id"]:  # two series of one film
                continue
            if known["split"] != exam["split"]:
                raise SplitError(
                    f"{image_id} in {exam['split']} shows the same pixels as {known['image_id']} in {known['split']}, "
                    "a leak; leave one of them out of the source, or give both one patient"
                )
            reason = f"shows the same pixels as {known['image_id']}; both are used"
            rows.append(problem(image_id, exam["path"], "decode", reason, fatal=False))
    return rows


def _outlines(exam: Row, decoded: decode.Decoded) -> tuple[list[Row], list[Row]]:
    """Return the lesions of an image with their reduced outlines, and what went wrong with some."""
    lesions, faults = [], []
    for lesion in exam["lesions"]:
        mask_png = None
        try:
            outline = _outline(lesion, decoded)
            mask_png = outlines.encode_mask(decoded.fit.apply_mask(outline.mask))
            fault = outline.note
        except DecodeError as error:
            fault = str(error)
        if fault:
            reason = f"{lesion['lesion_id']}: {fault}"
            faults.append(
                problem(exam["image_id"], (lesion["mask_paths"] or [exam["path"]])[0], "mask", reason, fatal=False)
            )
        lesions.append({name: lesion[name] for name in ("lesion_id", "kind", "pathology")} | {"mask_png": mask_png})
    return lesions, faults


def _outline(lesion: Row, decoded: decode.Decoded) -> outlines.Outline:
    height, width = decoded.source_height, decoded.source_width
    if lesion["outline"]:
        return outlines.draw_outline(lesion["outline"], height, width, from_bottom=lesion["from_bottom"])
    return outlines.load_mask(lesion["mask_paths"], height, width)


def _image_summary(ledger: list[Row], quarantine: list[Row]) -> Row:
    """Add up the ledger of the images by split."""
    summary: Row = {"images": {}, "malignant": {}, "patients": {}}
    for split in SPLITS:
        entries = [entry for entry in ledger if entry["split"] == split]
        summary["images"][split] = sum(entry["images"] for entry in entries)
        summary["malignant"][split] = sum(entry["malignant"] for entry in entries)
        summary["patients"][split] = len({patient for entry in entries for patient in entry["patients"]})
    train = [entry for entry in ledger if entry["split"] == "train"]
    pixels = sum(entry["pixels"] for entry in train)
    summary["mean_grey"] = sum(entry["grey_sum"] for entry in train) / pixels * 255 / FULL if pixels else None
    summary["histogram"] = np.sum([_histogram([]), *(entry["histogram"] for entry in ledger)], axis=0).tolist()
    summary["quarantined"] = sum(row["fatal"] for row in quarantine)
    missed = sorted([row["image_id"], row["stage"], row["fatal"]] for entry in ledger for row in entry["quarantine"])
    summary["left_out"] = lake.fingerprint(missed) if missed else None
    summary["outlines_missing"] = sum(entry["outlines_missing"] for entry in ledger)
    return summary
