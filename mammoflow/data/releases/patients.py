"""Patient keys where a release has none of its own: salted hashes of what DICOM says. No Ray, no pixels.

Without the salt nobody can tell whose hash it is, not even by hashing every id of a hospital.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.data.dicom import reader
from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import Listing
from mammoflow.errors import DecodeError, SourceError

_READERS = 16  # headers read at once: the wait is for the disk or the store


def no_salt() -> str:
    """Stand for a salt where none is to be needed.

    Raises:
        SourceError: always.
    """
    raise SourceError("some images have no patient id, and there is no salt to hash their files' with; fill the column")


def fill(listing: Listing, salt: Callable[[], str]) -> Listing:
    """Return a listing in which every image has a patient: those without one get the salted hash of their file's.

    Args:
        listing: as an adapter made it; `patient_id` may be null.
        salt: asked for only where it is needed.

    Returns:
        The listing; images whose patient can't be told are among its problems instead.
    """
    unknown = listing.exams.filter(pc.is_null(listing.exams["patient_id"])).select(["image_id", "path"]).to_pylist()
    if not unknown:
        return listing
    secret = salt()

    def key(path: str) -> str | DecodeError:
        """Return a file's patient, or why she can't be told."""
        try:
            return reader.read_patient_key(path, secret)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        keys = dict(zip((row["image_id"] for row in unknown), pool.map(key, (r["path"] for r in unknown)), strict=True))
    failed = {image_id: found for image_id, found in keys.items() if isinstance(found, DecodeError)}
    problems = [
        left_out(row["image_id"], row["path"], failed[row["image_id"]].reason)
        for row in unknown
        if row["image_id"] in failed
    ]
    exams = [
        {**exam, "patient_id": exam["patient_id"] or keys[exam["image_id"]]}
        for exam in listing.exams.to_pylist()
        if exam["image_id"] not in failed
    ]
    table = pa.Table.from_pylist(exams, schema=listing.exams.schema)
    counts = {**listing.counts, "images": len(exams), "patients": len({exam["patient_id"] for exam in exams})}
    return replace(listing, exams=table, problems=(*listing.problems, *problems), counts=counts)
