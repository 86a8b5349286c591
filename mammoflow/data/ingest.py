"""The stages that bring phantoms, decoded images and patches into the lake, by Ray Data. No training, no models.

Each stage cuts its work into shards named by their content (shards.py). One task does a whole shard: read, decode,
reduce, write; what crosses the object store is a row that says how much was done.

Shape letters: N rows of a shard; H, W image rows, columns [px]; P patch side [px].
"""

import hashlib
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mammoflow import lake, schema
from mammoflow.config import Config, ImageConfig, PatchConfig, PhantomConfig
from mammoflow.data import decode, outlines, patches, releases, shards, splits
from mammoflow.data.dicom_files import FULL
from mammoflow.data.phantom import release
from mammoflow.data.releases.listing import problem
from mammoflow.data.shards import Row, Say
from mammoflow.errors import DecodeError, PatchError, SplitError
from mammoflow.lake import Artefact
from mammoflow.schema import SPLITS


def draw_phantoms(config: Config, out: Artefact, say: Say = print) -> Row:
    """Draw the phantom release into `<out>/release`, in CBIS-DDSM's layout.

    Args:
        config: phantoms, seed and shard size; a shard is a quarter as many patients as images.
        out: the artefact; what it holds already is kept.
        say: takes progress lines.

    Returns:
        The stage's summary: {"patients", "files", "bytes"}.

    Raises:
        LakeError: the lake can't be written.
    """
    plan = release.plan(config.phantoms, config.seed)
    count = max(1, config.compute.images_per_shard // 4)  # a patient has 2 to 3 films
    jobs = [
        {
            "shard": f"patients-{lake.fingerprint(first, count)}",
            "first": first,
            "units": len(plan[first : first + count]),
        }
        for first in range(0, len(plan), count)
    ]
    common = {"plan": plan, "phantoms": config.phantoms, "seed": config.seed, "out": out.url}
    # Drawn files are overwritten by the same bytes, so the ledger entry, written last, marks a shard as done.
    ledger = shards.complete(_draw_shard, jobs, common, out, "ledger", shards.Progress("patients drawn", say))
    rows: dict[str, list[Row]] = {}
    for entry in ledger:
        for name, some in entry["rows"].items():
            rows.setdefault(name, []).extend(some)
    for name, data in release.metadata(rows).items():
        lake.write_bytes(out.file("release", name), data)
    return {key: sum(entry[key] for entry in ledger) for key in ("patients", "files", "bytes")}


def decode_images(config: Config, source: str, out: Artefact, say: Say = print) -> Row:
    """List a release, assign splits, and decode its films and outlines into shards of `schema.images`.

    Writes exams.parquet (the images used, with their split), splits.csv, shards/, and quarantine.parquet: an image
    that can't be decoded is a fatal row there and in no shard; a lesion without a usable outline is a row, and a null
    in its image.

    Args:
        config: data set, limit, splits, image size, seed and shard size.
        source: folder or URL of the release.
        out: the artefact; what it holds already is kept.
        say: takes progress lines.

    Returns:
        The stage's summary: {"images", "malignant", "patients": {split: n}, "mean_grey": of the training images
        [0-255], or None where there are none, "quarantined": images left out, "outlines_missing": lesions,
        "duplicates": images with the pixels of another film, "source": what the release's metadata counts}.

    Raises:
        SourceError: the source is not that release.
        SplitError: the images can't be split, or the same pixels are in two splits.
        LakeError: the lake can't be written.
    """
    listing = releases.read(config.dataset, source)
    exams = _split(listing.exams, config)
    lake.write_table(out.file("exams.parquet"), exams)
    lake.write_bytes(out.file("splits.csv"), splits.manifest(exams).encode())
    jobs = _decode_jobs(exams, config)
    common = {"exams": exams, "images": config.images, "out": out.url}
    ledger = shards.complete(_decode_shard, jobs, common, out, "shards", shards.Progress("images decoded", say))
    twins = _twins(exams, ledger)
    quarantine = [*listing.problems, *(row for entry in ledger for row in entry["quarantine"]), *twins]
    _write_quarantine(out, quarantine)
    return _image_summary(ledger, quarantine) | {"duplicates": len(twins), "source": listing.counts}


def cut_patches(config: Config, images: Artefact, out: Artefact, say: Say = print) -> Row:
    """Cut labelled patches out of decoded images into shards of `schema.patches`, rows shuffled within each.

    Args:
        config: the patch set and the seed.
        images: complete artefact of `decode_images`; each of its shards gives one of patches.
        out: the artefact; what it holds already is kept.
        say: takes progress lines.

    Returns:
        The stage's summary: {"patches": {split: {class: n}}, "below_min", "unverified": patches so flagged,
        "quarantined": images that gave none}.

    Raises:
        ConfigError: a lesion's class is not in the class list.
        LakeError: the lake can't be read or written.
    """
    jobs = []
    for url in lake.iter_shards(images):
        stem = url.rpartition("/")[2].removesuffix(".parquet")
        name = f"{stem.partition('-')[0]}-{lake.fingerprint(stem, config.patches, config.seed)}"
        jobs.append({"shard": name, "images": url, "units": shards.count_rows(url)})
    common = {"config": config.patches, "seed": config.seed, "out": out.url}
    ledger = shards.complete(_cut_shard, jobs, common, out, "shards", shards.Progress("images cut", say))
    quarantine = [row for entry in ledger for row in entry["quarantine"]]
    _write_quarantine(out, quarantine)
    counts = {split: dict.fromkeys(config.patches.classes, 0) for split in SPLITS}
    for entry in ledger:
        for name, n in entry["patches"].items():
            counts[entry["split"]][name] += n
    flags = {flag: sum(entry[flag] for entry in ledger) for flag in ("below_min", "unverified")}
    return {"patches": counts, "quarantined": len(quarantine)} | flags


def _draw_shard(job: Row, plan: tuple[release.Patient, ...], phantoms: PhantomConfig, seed: int, out: str) -> Row:
    """Draw some patients; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    entry: Row = {"patients": job["units"], "files": 0, "bytes": 0, "rows": {}}
    for patient in plan[job["first"] : job["first"] + job["units"]]:
        drawn = release.draw(patient, phantoms, seed)
        for path, data in drawn.files:
            lake.write_bytes(lake.join(out, "release", path), data)
            entry["files"] += 1
            entry["bytes"] += len(data)
        for name, some in drawn.rows.items():
            entry["rows"].setdefault(name, []).extend(some)
    lake.write_json(shards.ledger_url(out, job["shard"]), entry)
    return {"units": job["units"], "bad": 0}


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


def _decode_jobs(exams: pa.Table, config: Config) -> list[Row]:
    """Cut each split's exams into runs of at most `images_per_shard`."""
    ids, size, jobs, first = exams["image_id"].to_pylist(), config.compute.images_per_shard, [], 0
    counts = Counter(exams["split"].to_pylist())
    for split in SPLITS:
        end = first + counts[split]
        for start in range(first, end, size):
            run = ids[start : min(start + size, end)]
            mark = lake.fingerprint(run, config.images)
            jobs.append({"shard": f"{split}-{mark}", "first": start, "units": len(run)})
        first = end
    return jobs


def _decode_shard(job: Row, exams: pa.Table, images: ImageConfig, out: str) -> Row:
    """Decode some images and write them as one shard; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    rows, pixels, quarantine = [], [], []
    for exam in exams.slice(job["first"], job["units"]).to_pylist():
        try:
            decoded = decode.load_image(exam["path"], images)
        except DecodeError as error:
            quarantine.append(problem(exam["image_id"], exam["path"], "decode", str(error), fatal=True))
            continue
        lesions, faults = _outlines(exam, decoded)
        quarantine += faults
        rows.append(
            {name: exam.get(name) for name in schema.images(1, 1).names if name != "pixels"}
            | {"source_height": decoded.source_height, "source_width": decoded.source_width, "lesions": lesions}
        )
        pixels.append(decoded.pixels)
    pixels_NHW = np.stack(pixels) if pixels else np.empty((0, images.height, images.width), np.uint16)
    entry = {
        "split": job["shard"].partition("-")[0],
        "images": len(rows),
        "malignant": sum(row["label"] == schema.MALIGNANT for row in rows),
        "patients": sorted({row["patient_id"] for row in rows}),
        "grey_sum": int(pixels_NHW.sum(dtype=np.uint64)),
        "pixels": pixels_NHW.size,
        "pixel_hashes": {row["image_id"]: _hash(one) for row, one in zip(rows, pixels, strict=True)},
        "outlines_missing": sum(lesion["mask_png"] is None for row in rows for lesion in row["lesions"]),
        "quarantine": quarantine,
    }
    lake.write_json(shards.ledger_url(out, job["shard"]), entry)
    shards.write(shards.shard_url(out, job["shard"]), rows, pixels_NHW, schema.images(*pixels_NHW.shape[1:]))
    return {"units": job["units"], "bad": job["units"] - len(rows)}


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


def _cut_shard(job: Row, config: PatchConfig, seed: int, out: str) -> Row:
    """Cut the patches of one shard of images and write them shuffled; runs in a Ray Data task."""
    cv2.setNumThreads(1)  # the task has one core
    rows, pixels, quarantine = [], [], []
    for image, pixels_HW in shards.read_images(job["images"]):
        rng = np.random.default_rng(int(lake.fingerprint(seed, image["image_id"], "patches"), 16))
        try:
            chosen = patches.cut(pixels_HW, [_lesion(row) for row in image["lesions"]], config, rng)
        except PatchError as error:
            quarantine.append(problem(image["image_id"], job["images"], "patches", str(error), fatal=True))
            continue
        rows += _patch_rows(image, chosen)
        pixels += [pixels_HW[p.row : p.row + config.side, p.column : p.column + config.side].copy() for p in chosen]
    order = np.random.default_rng(int(lake.fingerprint(seed, job["shard"], "shuffle"), 16)).permutation(len(rows))
    rows = [rows[i] for i in order]
    shape = (0, config.side, config.side)
    pixels_NPP = np.stack([pixels[i] for i in order]) if rows else np.empty(shape, np.uint16)
    entry = {
        "split": job["shard"].partition("-")[0],
        "patches": Counter(config.classes[row["label"]] for row in rows),
        "below_min": sum(row["below_min"] for row in rows),
        "unverified": sum(row["unverified"] for row in rows),
        "quarantine": quarantine,
    }
    lake.write_json(shards.ledger_url(out, job["shard"]), entry)
    shards.write(shards.shard_url(out, job["shard"]), rows, pixels_NPP, schema.patches(config.side))
    return {"units": job["units"], "bad": len(quarantine)}


def _lesion(row: Row) -> patches.Lesion:
    mask = outlines.decode_mask(row["mask_png"]) if row["mask_png"] else None
    return patches.Lesion(lesion_id=row["lesion_id"], kind=row["kind"], pathology=row["pathology"], mask=mask)


def _patch_rows(image: Row, chosen: list[patches.Patch]) -> list[Row]:
    """Return the rows of one image's patches, their pixels left out; numbered within each lesion."""
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


def _write_quarantine(out: Artefact, rows: list[Row]) -> None:
    lake.write_table(out.file("quarantine.parquet"), pa.Table.from_pylist(rows, schema=schema.QUARANTINE))


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
    summary["quarantined"] = sum(row["fatal"] for row in quarantine)
    summary["outlines_missing"] = sum(entry["outlines_missing"] for entry in ledger)
    return summary
