"""Patient ids for releases without their own: salted hashes of DICOM patient ids. No Ray, no pixels.

Without the salt, a hash can't be traced to a patient, not even by hashing every id of a hospital.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from mammoflow.data.dicom import reader
from mammoflow.data.quarantine import left_out
from mammoflow.data.releases.listing import Listing, read_headers
from mammoflow.errors import DecodeError, SourceError


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
    keys = read_headers([row["path"] for row in unknown], partial(reader.read_patient_key, salt=salt()))
    problems = [
        left_out(row["image_id"], row["path"], key.reason)
        for row in unknown
        if isinstance(key := keys[row["path"]], DecodeError)
    ]
    exams = [
        {**exam, "patient_id": patient}
        for exam in listing.exams.to_pylist()
        if isinstance(patient := exam["patient_id"] or keys[exam["path"]], str)
    ]
    table = pa.Table.from_pylist(exams, schema=listing.exams.schema)
    counts = {**listing.counts, "images": len(exams), "patients": len({exam["patient_id"] for exam in exams})}
    return replace(listing, exams=table, problems=(*listing.problems, *problems), counts=counts)
