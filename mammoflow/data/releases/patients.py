"""Patient ids for releases without their own: salted hashes of DICOM patient ids. No Ray, no pixels.

Without the salt, a hash can't be traced to a patient, not even by hashing every id of a hospital.
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

_READERS = 16  # threads: reading headers waits for the disk or the store


def no_salt() -> str:
    """Stand in for a salt that should not be needed.

    Raises:
        SourceError: always.
    """
    raise SourceError("some images have no patient id, and no salt is set to hash their DICOM ids; fill `patient_id`")


def fill(listing: Listing, salt: Callable[[], str]) -> Listing:
    """Give every image without a patient id the salted hash of its DICOM file's.

    Args:
        listing: from an adapter; `patient_id` may be null.
        salt: returns the salt; called only if it is needed.

    Returns:
        The listing; images whose patient is unknown move to its problems.
    """
    unknown = listing.exams.filter(pc.is_null(listing.exams["patient_id"])).select(["image_id", "path"]).to_pylist()
    if not unknown:
        return listing
    secret = salt()

    def key(path: str) -> str | DecodeError:
        """Return the patient of a file, or the reason why it is unknown."""
        try:
            return reader.read_patient_key(path, secret)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        keys = dict(zip((row["image_id"] for row in unknown), pool.map(key, (r["path"] for r in unknown)), strict=True))
    failed = {image_id: error for image_id, error in keys.items() if isinstance(error, DecodeError)}
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
