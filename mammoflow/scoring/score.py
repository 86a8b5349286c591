"""Score new images with a registered model: scores, heatmaps and DICOM from one Ray Data pipeline. Never trains.

CPU tasks decode files by the code path of training; a pool of actors, each with the model loaded once, scores them.
A shard is a few images; its rows appear whole or not at all, so a rerun does what is missing. An unreadable file
becomes a row with the reason, not a crash. No patient identity is passed on.

Shape letters: N images of a shard, H W rows and columns of the reduced image [px], K members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data
import torch
from tyro.conf import arg

from mammoflow import lake
from mammoflow.cluster import interrupts, nodes
from mammoflow.config.fields import require
from mammoflow.data import decode, image_files
from mammoflow.data.dicom import reader
from mammoflow.data.ingest.shards import Progress, Say
from mammoflow.ensemble import profile as profiles
from mammoflow.ensemble.prediction import FILMS
from mammoflow.errors import DecodeError
from mammoflow.models import devices
from mammoflow.registry.registry import Registered, Registry
from mammoflow.rendering import pictures
from mammoflow.scoring import dicom_outputs, score_files, score_tables
from mammoflow.scoring.dicom_outputs import Finding
from mammoflow.scoring.score_files import File, Heatmaps, Outputs

HEATMAPS, DICOM = "heatmaps", "dicom"
"""Folders of PNG and of DICOM files below that of the scores."""

_DECODING_BYTES = 2**30
"""Memory request of a decoding task; 0.65 GiB was measured on films of 13 million pixels. The request also keeps Ray
Data from fusing decoding into the model's actors, as it does with operators of equal requests."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringCompute:
    """CPUs, GPUs and limits of a scoring job; the names are those of `config.ComputeConfig`."""

    gpu: bool = False
    """Give each process that holds the model a GPU."""
    cpus_per_worker: int = 1
    """Threads of such a process."""
    max_bad: Annotated[float, arg(aliases=["--max-bad"])] = 0.02
    """Largest share of images that may fail before the job ends non-zero [0-1]."""
    retry_quarantined: Annotated[bool, arg(aliases=["--retry-quarantined"])] = False
    """Score files again that failed earlier."""
    deadline: Annotated[float | None, arg(aliases=["--deadline"])] = None
    """Hours after which the job ends; the same command continues."""

    def __post_init__(self) -> None:
        """Check ranges."""
        cpus, share, hours = self.cpus_per_worker, self.max_bad, self.deadline
        require(cpus >= 1, "compute.cpus_per_worker", cpus, "at least 1", "raise it")
        require(0 <= share <= 1, "compute.max_bad", share, "between 0 and 1", "it is a share")
        require(hours is None or hours > 0, "compute.deadline", hours, "above 0 hours", "or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be scored, by whom, to where."""

    model: Registered
    """The registered version."""
    tracking_uri: str
    """Its registry."""
    out: str
    """Folder or URL to write."""
    outputs: Outputs
    """What to write."""
    salt: str
    """Salt of patient hashes."""
    compute: ScoringCompute
    """CPUs and GPUs of each process that holds the model; whether failed files are tried again."""
    actors: int | None = None
    """Processes that hold the model; None: one per GPU with `compute.gpu`, else one per CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The tables of a folder of scores."""

    images: pa.Table
    """A row per file, sorted by path (`score_tables.images`)."""
    breasts: pa.Table
    """A row per breast."""
    patients: pa.Table
    """A row per patient."""


def score(request: Request, files: Sequence[File], say: Say = print) -> Scored:
    """Score image files with a registered model, and write images.parquet, breasts.parquet, patients.parquet.

    Args:
        request: model, outputs and resources.
        files: from `score_files.find`.
        say: receives progress lines.

    Raises:
        ConfigError: `out` holds scores of another model or of other outputs.
        TrackingError: the registry does not answer.
        LakeError: `out` can't be written.
    """
    begun = score_files.begin(request.out, request.outputs)
    schema = score_tables.images(request.model.ensemble.names)
    held = score_files.rows(request.out, schema, ["path", "size", "modified", "error"])
    undone = score_files.left(files, held, again=request.compute.retry_quarantined)
    progress = Progress("images scored", say)
    progress.start(len(files), len(files) - len(undone))
    if undone:
        _run(request, begun, score_files.shards_of(undone), progress)
    return _write(request, score_files.newest(score_files.rows(request.out, schema)))


def _write(request: Request, images: pa.Table) -> Scored:
    ensemble = request.model.ensemble
    breasts, patients = (score_tables.grouped(images, what, ensemble) for what in ("breasts", "patients"))
    for name, table in (("images", images), ("breasts", breasts), ("patients", patients)):
        lake.write_table(lake.join(request.out, f"{name}.parquet"), table)
    return Scored(images=images, breasts=breasts, patients=patients)


def _run(request: Request, begun: datetime, shards: Sequence[Row], progress: Progress) -> None:
    """Decode and score shards; the actor that scores a shard writes it."""
    compute = request.compute
    actors = request.actors or nodes.room({"GPU" if compute.gpu else "CPU": 1})
    todo = ray.data.from_arrow(pa.Table.from_pylist(list(shards))).repartition(len(shards))
    decoded = todo.map_batches(
        partial(_decode, model=request.model, salt=request.salt),
        batch_size=1,
        num_cpus=1,
        memory=_DECODING_BYTES,
    )
    scored = decoded.map_batches(
        _Scorer,
        fn_constructor_args=(request, begun),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(actors, len(shards)))),
        num_cpus=_actor_cpus(actors),
        num_gpus=1 if compute.gpu else None,
    )
    for row in scored.iter_rows():
        interrupts.check_terminated()
        progress.add(int(row["images"]), int(row["bad"]))


def _actor_cpus(actors: int) -> float:
    """Return the CPUs to reserve per actor so that at least one is left for decoding."""
    return max(0.0, min(1.0, (nodes.room({"CPU": 1}) - 1) / actors))


def _decode(batch: Mapping[str, Any], model: Registered, salt: str) -> dict[str, Any]:
    """Decode the files of one shard and compare them with the training images; runs in a CPU task.

    The image of an unreadable file is black; its row has the reason.
    """
    files, images = [File(**file) for file in batch["files"][0]], model.images
    pixels_NHW = np.zeros((len(files), images.height, images.width), np.uint16)
    about = []
    for index, file in enumerate(files):
        row: Row = dict.fromkeys(("patient_id", "laterality", "view", "vendor"))
        row |= {"path": file.path, "key": file.key, "size": file.size, "modified": file.modified, "error": ""}
        row |= {"dicom": False, "warnings": []}
        try:
            data = image_files.fetch(file.path)
            image = decode.decode_bytes(data, images)
            pixels_NHW[index] = image.pixels
            identity, row["dicom"] = image.identity, reader.is_dicom(data)
            row |= {"laterality": identity.laterality, "view": identity.view, "vendor": identity.vendor}
            row["patient_id"] = identity.patient_id
            if row["dicom"] and not identity.patient_id:
                row["patient_id"] = reader.patient_key(data, salt)
            row["warnings"] = profiles.warnings(model.profile, image.pixels, identity.vendor)
        except DecodeError as error:
            row["error"] = error.reason
        about.append(row)
    return {"shard": batch["shard"], "about": [about], "pixels": pixels_NHW[None]}


class _Scorer:
    """Holds the model in an actor; scores a shard and writes its outputs."""

    def __init__(self, request: Request, begun: datetime) -> None:
        torch.set_num_threads(request.compute.cpus_per_worker)
        self._request, self._begun = request, begun
        predictor = Registry(request.tracking_uri).version(request.model.uri).load()
        self._model = predictor.to(devices.find(request.compute.gpu))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        about, pixels_NHW = [dict(row) for row in batch["about"][0]], np.asarray(batch["pixels"][0], np.uint16)
        good_N = np.array([row["error"] == "" for row in about])
        dicom_N = [row.pop("dicom") for row in about]
        members_NK = self._model.score(_filled(pixels_NHW))[: len(about)]
        for row in about:
            row |= {"heatmap": None, "report": None, "warnings": list(row["warnings"])}
        scored = score_tables.image_rows(about, members_NK, self._model.ensemble, self._request.outputs.model)
        rows = scored.to_pylist()
        drawn = self._pictures(rows, pixels_NHW)
        if self._request.outputs.dicom:
            for n in np.flatnonzero(good_N & dicom_N):
                self._report(rows[n], drawn.get(int(n)))
        table = pa.Table.from_pylist(rows, schema=scored.schema)
        lake.write_table(score_files.shard_url(self._request.out, str(batch["shard"][0])), table)
        return {"images": np.array([len(about)]), "bad": np.array([int((~good_N).sum())])}

    def _pictures(self, rows: Sequence[Row], pixels_NHW: npt.NDArray[np.uint16]) -> dict[int, pictures.Bgr]:
        """Write and return the requested heatmaps, fainter for lower scores, and name them in the rows."""
        chosen = [n for n, row in enumerate(rows) if _is_drawn(row, self._request.outputs.heatmaps)]
        maps_Nuv = self._model.evidence(_filled(pixels_NHW[chosen]))[: len(chosen)] if chosen else ()
        drawn = {}
        for n, evidence_uv in zip(chosen, maps_Nuv, strict=True):
            row = rows[n]
            faded_uv = evidence_uv * np.float32(row["score"])
            drawn[n] = pictures.overlay(pixels_NHW[n], faded_uv, score_tables.caption(row), self._mark)
            row["heatmap"] = self._write(HEATMAPS, f"{row['key']}.png", pictures.png(drawn[n]))
        return drawn

    def _report(self, row: Row, picture: pictures.Bgr | None) -> None:
        """Write the Structured Report of a DICOM file, with its heatmap if any, and name it in the row."""
        finding, capture = self._finding(row), None
        try:
            source = reader.read_header(row["path"])
            if picture is not None:
                rgb_HW3 = np.ascontiguousarray(picture[..., ::-1])
                capture = dicom_outputs.secondary_capture(source, rgb_HW3, finding, self._begun)
                self._write(DICOM, f"{row['key']}-sc.dcm", dicom_outputs.to_bytes(capture))
            report = dicom_outputs.structured_report(source, finding, self._begun, capture)
        except DecodeError as error:
            row["warnings"] = [*row["warnings"], f"no report: {error.reason}"]
            return
        row["report"] = self._write(DICOM, f"{row['key']}-sr.dcm", dicom_outputs.to_bytes(report))

    def _finding(self, row: Row) -> Finding:
        return Finding(
            probability=row["probability"],
            score=row["score"],
            malignant=row["malignant"],
            members=row["members"],
            patient_id=row["patient_id"],
            laterality=row["laterality"],
            cutoff=self._model.ensemble.cutoff,
            model=self._request.outputs.model,
            mark=self._mark,
        )

    def _write(self, folder: str, name: str, data: bytes) -> str:
        """Write a file below the folder of scores and return its relative path."""
        lake.write_bytes(lake.join(self._request.out, folder, name), data)
        return f"{folder}/{name}"

    @property
    def _mark(self) -> str:
        return score_tables.PHANTOM_MARK if self._request.model.card.phantoms else ""


def _filled(pixels_NHW: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Pad the last batch with black images.

    Convolutions round differently for other batch sizes; with full batches an image scores the same bits in any shard.
    """
    return np.pad(pixels_NHW, ((0, -len(pixels_NHW) % FILMS), (0, 0), (0, 0)))


def _is_drawn(row: Row, wanted: Heatmaps) -> bool:
    return wanted != "none" and not row["error"] and (wanted == "all" or bool(row["malignant"]))
