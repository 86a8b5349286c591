"""What ingest made, at a glance: films with outlined lesions and the frames of their patches. No Ray.

Shape letters: H W rows and columns of an image [px].
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mammoflow import lake
from mammoflow.lake import Artefact
from mammoflow.lake.schema import SPLITS, pixels_of
from mammoflow.rendering import pictures

FILE = "contact_sheet.jpg"
_FILMS, _COLUMNS = 24, 6
_ABOUT = ["image_id", "split", "label", "lesions", "pixels"]


def write(images: Artefact, patches: Artefact, side: int, mark: str) -> str:
    """Draw the first films of each split into the patches' folder and return where the picture lies.

    Args:
        images: the films.
        patches: cut from them.
        side: P, side of a patch [px].
        mark: kind of data, written below; may be empty.

    Raises:
        LakeError: no permission, or the disk is full.
    """
    firsts = {split: shard for split in SPLITS if (shard := next(lake.iter_shards(images, split), None))}
    films = []
    for split, shard in firsts.items():
        rows = lake.read_table(shard, _ABOUT).slice(0, -(-_FILMS // len(firsts)))
        films += _framed(rows, _frames(lake.iter_shards(patches, split), rows["image_id"], side))
    out = patches.file(FILE)
    lake.write_bytes(out, pictures.contact_sheet(films, _COLUMNS, mark))
    return out


def _frames(shards: Iterable[str], image_ids: pa.ChunkedArray, side: int) -> dict[str, list[pictures.Frame]]:
    """Return image_id -> frames of its patches."""
    found: dict[str, list[pictures.Frame]] = {}
    for shard in shards:
        cut = lake.read_table(shard, ["image_id", "label", "row", "column"])
        for patch in cut.filter(pc.is_in(cut["image_id"], image_ids.combine_chunks())).to_pylist():
            frame = pictures.Frame(row=patch["row"], column=patch["column"], side=side, background=patch["label"] == 0)
            found.setdefault(patch["image_id"], []).append(frame)
    return found


def _framed(rows: pa.Table, frames: dict[str, list[pictures.Frame]]) -> list[pictures.Framed]:
    return [
        pictures.Framed(
            pixels=pixels_HW,
            lesions=pictures.lesions_of(row),
            frames=frames.get(row["image_id"], []),
            caption=f"{row['image_id']}  {('benign', 'malignant')[row['label']]}, {row['split']}",
        )
        for row, pixels_HW in zip(rows.drop_columns("pixels").to_pylist(), pixels_of(rows), strict=True)
    ]
