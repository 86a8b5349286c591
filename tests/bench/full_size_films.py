"""A folder of full-size phantoms for benches: 3328x2560 px, 16 bits, outlines as masks, in a codec of choice.

A film takes two seconds to draw, so a few women are drawn and each film is kept in several exposures, every one a
woman of her own: other pixels, the same work. The layout is that of users' own folders.
"""

import csv
import functools
import io
import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammoflow.config import PhantomConfig
from mammoflow.data.phantom import cases, dicom, film
from mammoflow.data.phantom.cases import Film, Patient

HEIGHT, WIDTH = 3328, 2560
_EXPOSURES = 8


def write(folder: Path, images: int, codecs: tuple[str, ...], cores: int) -> dict[str, Path]:
    """Write `images` films below a folder of each codec's name and return these folders, each a source."""
    config = PhantomConfig(patients=max(4, -(-images // _EXPOSURES)), height=HEIGHT, width=WIDTH)
    films = [(patient, each) for patient in cases.plan(config, 0) for each in patient.films]
    films = films[: -(-images // _EXPOSURES)]
    draw = functools.partial(_draw, config=config, folder=folder, codecs=codecs)
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        drawn = pool.starmap(draw, films)
    rows = sorted((row for rows, _ in drawn for row in rows), key=lambda row: row["path"].partition("/")[2])[:images]
    kept = {row["path"] for row in rows}
    lesions = [row for _, rows in drawn for row in rows if row["path"] in kept]
    for codec in codecs:
        (folder / codec / "images.csv").write_text(_table(rows))
        (folder / codec / "lesions.csv").write_text(_table(lesions))
    return {codec: folder / codec for codec in codecs}


def _draw(
    patient: Patient, each: Film, config: PhantomConfig, folder: Path, codecs: tuple[str, ...]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Draw one film, write it in every exposure and codec, and return its rows of images.csv and of lesions.csv."""
    drawn = film.draw(each, patient, config, 0)
    images, lesions = [], []
    masks = {f"masks/{each.film_id}-{kind}-{number}.dcm": kind for kind, number in drawn.masks}
    for (name, _), mask_HW in zip(masks.items(), drawn.masks.values(), strict=True):
        for codec in codecs:
            _put(folder / codec / name, mask_HW.astype(np.uint8) * np.uint8(255), "rle")
    malignant = any(lesion.pathology == "MALIGNANT" for lesion in each.lesions)
    pathologies = {(one.kind, one.number): one.pathology for one in each.lesions}
    for exposure in range(_EXPOSURES):
        path = f"{exposure}/{each.film_id}.dcm"
        pixels_HW = (drawn.pixels * np.float32(1 - exposure / 64)).astype(np.uint16)
        for codec in codecs:
            _put(folder / codec / path, pixels_HW, codec)
        woman = f"{patient.patient_id}-{exposure}"
        about = {"patient_id": woman, "laterality": each.side[0], "view": each.view, "label": str(int(malignant))}
        images.append({"path": path, **about})
        for (name, kind), key in zip(masks.items(), drawn.masks, strict=True):
            pathology = "malignant" if pathologies[key] == "MALIGNANT" else "benign"
            lesions.append({"path": path, "kind": kind, "pathology": pathology, "mask": name})
    return images, lesions


def _put(path: Path, pixels_HW: NDArray[np.uint16] | NDArray[np.uint8], codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = dicom.Identity(
        patient="phantom", description="full", study="1.2.3", series="1.2.3.4", instance=dicom.uid(str(path))
    )
    path.write_bytes(dicom.encode(pixels_HW, codec, identity))


def _table(rows: list[dict[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
