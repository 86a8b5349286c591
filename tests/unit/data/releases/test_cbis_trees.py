"""Every tree in which CBIS-DDSM comes gives the same exams, pixels and outlines as the classic one."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from drawn import drawn_release
from small_dicom import write

from mammoflow.config import ImageConfig, PhantomConfig
from mammoflow.data import decode, outlines, releases
from mammoflow.data.releases.cbis_trees import CROP, FILM, MASK

Move = Callable[[str, pydicom.Dataset], str]
IMAGES = ImageConfig(height=256, width=192)


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classic")
    config = PhantomConfig(patients=6, height=320, width=240, two_series=0.5, compressed=0)
    files, csvs = drawn_release(config, 3)
    for path, data in (files | csvs).items():
        write(root / path, data)
    return root


def nbia(path: str, tags: pydicom.Dataset) -> str:
    case, study, series, name = path.split("/")
    return f"{case}/07-20-2016-DDSM-{study[-5:]}/1-{tags.SeriesDescription}-{series[-5:]}/{name}"


def nbia_newer(path: str, tags: pydicom.Dataset) -> str:
    case, study, series, name = path.split("/")
    number = int(name.partition(".")[0]) + 1
    folder = f"manifest-1/CBIS-DDSM/{case}/07-20-2016-DDSM-NA-{study[-5:]}/1.000000-{tags.SeriesDescription}"
    return f"{folder}-{series[-5:]}/1-{number}.dcm"


def other_digits(path: str, tags: pydicom.Dataset) -> str:
    """As newer ones, but of a copy with UIDs of its own: only case and description are left."""
    return re.sub(r"-\d{5}/", "-00000/", nbia_newer(path, tags))


def no_uids(path: str, tags: pydicom.Dataset) -> str:
    case, _, _, name = path.split("/")
    return f"{case}/study/{tags.SeriesDescription}/{name}"


@pytest.mark.parametrize("move", [nbia, nbia_newer, other_digits, no_uids])
def test_trees_of_dicom(classic: Path, tmp_path: Path, move: Move) -> None:
    for path in classic.rglob("*.dcm"):
        tags = pydicom.dcmread(path, stop_before_pixels=True)
        new = tmp_path / move(str(path.relative_to(classic)), tags)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.hardlink_to(path)
    for path in classic.glob("*.csv"):
        (tmp_path / path.name).hardlink_to(path)
    assert releases.resolve(releases.AUTO, str(tmp_path)) == "cbis_ddsm"
    _same(classic, tmp_path, grey=0)


@pytest.mark.parametrize("by_uid", [True, False])
def test_the_jpeg_mirror(classic: Path, tmp_path: Path, by_uid: bool) -> None:
    infos = []
    for number, path in enumerate(sorted(classic.rglob("*.dcm"))):
        tags = pydicom.dcmread(path)
        folder = tags.SeriesInstanceUID if by_uid else f"{tags.SeriesInstanceUID}.9"
        name = f"jpeg/{folder}/1-{number}.jpg"
        pixels = tags.pixel_array
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), (pixels >> (pixels.itemsize * 8 - 8)).astype(np.uint8))
        infos.append((tags.PatientID, tags.SeriesDescription, f"CBIS-DDSM/{name}"))
    (tmp_path / "csv").mkdir()
    for path in classic.glob("*.csv"):
        (tmp_path / "csv" / path.name).hardlink_to(path)
    with (tmp_path / "csv" / "dicom_info.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("PatientID", "SeriesDescription", "image_path"), *infos])
    assert releases.resolve(releases.AUTO, str(tmp_path)) == "cbis_ddsm"
    _same(classic, tmp_path, grey=1500)  # 8 bits and JPEG's loss: 6 of 255 levels


def _same(classic: Path, moved: Path, grey: int) -> None:
    """The same exams but for their paths, films within `grey` of 65535, and outlines equal up to their rim."""
    before, after = (releases.read("cbis_ddsm", str(root)).exams.to_pylist() for root in (classic, moved))
    assert len(before) >= 12
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        films = [decode.load_image(exam.pop("path"), IMAGES) for exam in (one, other)]
        np.testing.assert_allclose(films[1].pixels, films[0].pixels.astype(int), atol=grey)
        size = films[0].fit.source_height, films[0].fit.source_width
        for lesions in zip(one["lesions"], other["lesions"], strict=True):
            masks = [outlines.load_mask(lesion.pop("mask_paths"), *size).mask for lesion in lesions]
            assert (masks[0] ^ masks[1]).sum() <= (0 if grey == 0 else 0.02 * masks[0].sum())
        assert one == other


def test_a_film_that_is_nowhere_keeps_the_csv_s_path(classic: Path, tmp_path: Path) -> None:
    for path in classic.glob("*.csv"):
        (tmp_path / path.name).hardlink_to(path)
    for exam in releases.read("cbis_ddsm", str(tmp_path)).exams.to_pylist():
        assert exam["path"].endswith("/000000.dcm")
        assert exam["image_id"] in exam["path"]


def test_descriptions_are_those_of_the_release(classic: Path) -> None:
    found = {pydicom.dcmread(path, stop_before_pixels=True).SeriesDescription for path in classic.rglob("*.dcm")}
    assert found == {FILM, MASK, CROP}
