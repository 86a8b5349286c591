"""A storm of damaged files: each ends in the right image or in a DecodeError, soon, and in little memory."""

from io import BytesIO
from pathlib import Path

import damage
import encoded
import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.tag import Tag

from mammoflow.config import ImageConfig
from mammoflow.data.dicom import reader
from mammoflow.errors import DecodeError

MEMORY = 2**29
PIXEL_GROUPS = (0x0028, 0x7FE0)
SAYS_NOTHING_OF_PIXELS = sorted(tag for tag in DicomDictionary if tag >> 16 not in (*PIXEL_GROUPS, 0, 2, 0xFFFE))


def test_damaged_files_end_in_the_right_image_or_a_decode_error(tmp_path: Path):
    found = damage.storm(0, 320, tmp_path)
    assert found.wrong == []
    assert found.verdicts.total() == 320
    assert found.verdicts["image"] >= 40
    assert found.verdicts["refused"] >= 160
    assert found.peak < MEMORY
    assert found.slowest < 5


def test_a_process_that_ends_is_found_by_the_seed(tmp_path: Path):
    """The storm itself: a folder that can't be written ends the process at each file."""
    (tmp_path / "damaged.dcm").mkdir()
    found = damage.storm(0, 2, tmp_path)
    assert [line.partition(":")[0] for line in found.wrong] == ["seed 0", "seed 1"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(SAYS_NOTHING_OF_PIXELS), st.binary(max_size=40), max_size=6),
    st.sampled_from(["LO", "PN", "DS", "IS", "UI", "SQ", "UN", "DA", "AT", "FD", "US"]),
)
def test_garbage_in_tags_that_say_nothing_of_pixels_leaves_the_image_or_refuses_it(garbage, vr):
    tags = pydicom.dcmread(BytesIO(encoded.EVERY["raw, 16 bits"].data))
    for tag, value in garbage.items():
        if vr != "SQ":
            tags[tag] = pydicom.dataelem.RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)
    try:
        pixels = reader.read(encoded.saved(tags), ImageConfig()).pixels
    except (DecodeError, *WRITING) as error:
        assert not isinstance(error, DecodeError) or error.reason  # noqa: PT017
    else:
        assert np.array_equal(pixels, encoded.FILM)


WRITING = (ValueError, TypeError, AttributeError, OverflowError, NotImplementedError)
"""What pydicom raises where it can't write such an element."""
