"""New images -> scores with a registered model, as one Ray Data pipeline. Needs ray; no training code.

Files are decoded in CPU tasks, by the same code path as in training, and scored by a pool of actors that load the
model once each. A file that can't be used is a row with its reason, never a crash. No patient identity is passed on.

Shape letters: N files of a block, H W rows and columns of the reduced image [px], K members.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import ray
import ray.data
import torch

from mammoflow import lake
from mammoflow.config import ComputeConfig, ImageConfig
from mammoflow.data import decode
from mammoflow.errors import DecodeError, SourceError
from mammoflow.results import registered_model
from mammoflow.results.ensemble import decide

SUFFIXES = (".dcm", ".dicom", ".png", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg")
"""Files of a folder that are taken for images; files without a suffix are too where they are DICOM."""

_BATCH = 8
_DECODING_BYTES = 2**30
"""Memory of a decoding task; 0.65 GiB were measured on films of 13 million pixels. The request also keeps decoding in
tasks of its own: Ray Data would fuse it into the model's actors where both ask for the same."""
Columns = Mapping[str, npt.NDArray[Any]]


def score(model_uri: str, tracking_uri: str, images: str | Sequence[str], out: str, compute: ComputeConfig) -> pa.Table:
    """Score image files with a registered model and write the table.

    Args:
        model_uri: models:/<name>@<alias> or models:/<name>/<version>.
        tracking_uri: of the registry.
        images: a folder or URL, read with all folders below it, one file, or a list of files.
        out: path or URL of the Parquet file to write.
        compute: `workers` actors hold the model, each with a GPU where it asks for GPUs.

    Returns:
        What was written, see `schema`; one row a file, sorted by path.

    Raises:
        SourceError: nothing there to score.
        TrackingError: no such model.
        LakeError: `out` can't be written.
    """
    paths = find_files(images)
    model = registered_model.describe(tracking_uri, model_uri)
    rows = ray.data.from_arrow(pa.table({"path": paths})).repartition(min(len(paths), _blocks(len(paths))))
    decoded = rows.map_batches(
        partial(_decode, images=model.images), batch_size=_BATCH, num_cpus=1, memory=_DECODING_BYTES
    )
    scored = decoded.map_batches(
        _Scorer,
        fn_constructor_args=(tracking_uri, model.uri, compute),
        batch_size=_BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=compute.workers),
        num_cpus=_actor_cpus(compute),
        num_gpus=1 if compute.gpu else None,
    )
    table = _table(list(scored.iter_rows()), model)
    lake.write_table(out, table)
    return table


def schema(members: Sequence[str]) -> pa.Schema:
    """Return the schema of a scores file of an ensemble with these members."""
    return pa.schema(
        [
            ("path", pa.string()),
            ("score", pa.float64()),  # the members' mean [0-1]; null where the file can't be used
            ("probability", pa.float64()),  # of malignant, the calibrated score [0-1]; null likewise
            ("malignant", pa.bool_()),  # decision at the ensemble's cut-off; null likewise
            ("members", pa.struct([(name, pa.float64()) for name in members])),  # flip-averaged, by candidate name
            ("model", pa.string()),  # <name>/<version> in the registry
            ("laterality", pa.string()),  # L | R; null where the file doesn't say
            ("view", pa.string()),  # CC | MLO | ...; null likewise
            ("error", pa.string()),  # empty where all went well
        ]
    )


def find_files(images: str | Sequence[str]) -> list[str]:
    """Return the image files of a folder and all below it, of one file, or of a list, sorted, each once.

    Raises:
        SourceError: nothing there, or no image among it.
    """
    if not isinstance(images, str):
        if not images:
            raise SourceError("the list of images is empty; name at least one file")
        return sorted({*images})
    fs, path = lake.filesystem(images)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.NotFound:
        raise SourceError(f"{images} is not there; give a folder or URL of images")
    if kind == pafs.FileType.File:
        return [images]
    infos = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    files = [info.path for info in infos if info.is_file and _is_image(fs, info)]
    if not files:
        raise SourceError(
            f"{images} holds no file that ends in {', '.join(SUFFIXES)} and no DICOM file without an ending"
        )
    root = images.rstrip("/")
    return sorted(root + file[len(path.rstrip("/")) :] for file in files)


def _is_image(fs: pafs.FileSystem, info: pafs.FileInfo) -> bool:
    if info.base_name.startswith(".") or info.base_name == "DICOMDIR":
        return False
    if info.extension:
        return f".{info.extension.lower()}" in SUFFIXES
    with fs.open_input_file(info.path) as stream:
        return bytes(stream.read(132)[128:]) == b"DICM"


def _blocks(files: int) -> int:
    """Return into how many blocks the files go: several for each CPU, so that no CPU waits for a slow block."""
    return max(1, min(-(-files // _BATCH), int(4 * ray.cluster_resources().get("CPU", 1))))


def _actor_cpus(compute: ComputeConfig) -> float:
    """Return the CPUs to reserve for an actor: on a small machine fewer than asked for, so that one CPU can decode."""
    spare = float(ray.cluster_resources().get("CPU", 1)) - 1
    return max(0.0, min(float(compute.cpus_per_worker), spare))


def _decode(batch: Columns, images: ImageConfig) -> dict[str, Any]:
    """Decode a batch of files; runs in a CPU task. Images that can't be used are black and have their reason."""
    pixels_NHW = np.zeros((len(batch["path"]), images.height, images.width), np.uint16)
    tags: dict[str, list[str]] = {"laterality": [], "view": [], "error": []}
    for index, path in enumerate(batch["path"]):
        laterality, view, reason = None, None, ""
        try:
            image = decode.load_image(str(path), images)
            pixels_NHW[index] = image.pixels
            laterality, view = image.identity.laterality, image.identity.view
        except DecodeError as error:
            reason = str(error)
        tags["laterality"].append(laterality or "")
        tags["view"].append(view or "")
        tags["error"].append(reason)
    return {"path": batch["path"], "pixels": pixels_NHW, **{name: np.array(values) for name, values in tags.items()}}


class _Scorer:
    """Holds the model in an actor and scores batches with it."""

    def __init__(self, tracking_uri: str, uri: str, compute: ComputeConfig) -> None:
        torch.set_num_threads(compute.cpus_per_worker)
        self._model = registered_model.load(tracking_uri, uri).to("cuda" if compute.gpu else "cpu")

    def __call__(self, batch: Columns) -> dict[str, Any]:
        good_N = batch["error"] == ""
        members_NK = np.full((len(good_N), len(self._model.ensemble.members)), np.nan)
        if good_N.any():
            members_NK[good_N] = self._model.score(batch["pixels"][good_N])
        return {name: batch[name] for name in ("path", "laterality", "view", "error")} | {"members": members_NK}


def _table(rows: Sequence[Mapping[str, Any]], model: registered_model.Registered) -> pa.Table:
    """Return the scores file of these rows."""
    names = model.ensemble.names
    members_NK = np.array([row["members"] for row in rows])
    score_N, probability_N, malignant_N = decide(members_NK, model.ensemble)
    bad_N = np.array([row["error"] != "" for row in rows])
    members = [pa.array(column, mask=bad_N) for column in members_NK.T]
    columns = [
        [row["path"] for row in rows],
        pa.array(score_N, mask=bad_N),
        pa.array(probability_N, mask=bad_N),
        pa.array(malignant_N, mask=bad_N),
        pa.StructArray.from_arrays(members, list(names), mask=pa.array(bad_N)),
        [f"{model.name}/{model.version}"] * len(rows),
        [row["laterality"] or None for row in rows],
        [row["view"] or None for row in rows],
        [row["error"] for row in rows],
    ]
    return pa.table(dict(zip(schema(names).names, columns, strict=True))).cast(schema(names)).sort_by("path")
