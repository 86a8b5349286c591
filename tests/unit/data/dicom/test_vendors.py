"""What DICOM calls a manufacturer becomes one of a fixed list of names, and nothing else."""

import pytest

from mammoflow.data.dicom import vendors


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("HOLOGIC, Inc.", "Hologic"),
        ("Lorad, A Hologic Company", "Hologic"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE_MEDICAL", "GE"),
        ("SIEMENS", "Siemens"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("Philips Medical Systems", "Philips"),
        ("Sectra Imtec AB", "Philips"),
        ("IMS s.r.l.", "IMS Giotto"),
        ("Planmed Oy", "Planmed"),
        ("EASTMAN KODAK COMPANY", "Carestream"),
        ("KONICA MINOLTA", "Konica Minolta"),
        ("lumisys", "Lumisys"),
        ("St George's Hospital", "other"),
        ("Timms Clinic, Roe^Jane", "other"),
        ("  ", None),
        ("\0", None),
        ("", None),
    ],
)
def test_a_text_becomes_a_name_of_the_list(said, name):
    assert vendors.recognise(said) == name
