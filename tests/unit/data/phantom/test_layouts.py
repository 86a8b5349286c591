"""Phantoms as INbreast and as a user's own folder: their readers find every film, label and outline, quirks and all."""

import csv
import io
import plistlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn import drawn_release
from small_dicom import write

from mammoflow.config import ImageConfig, PhantomConfig, SplitConfig
from mammoflow.data import image_files, outlines, releases, splits
from mammoflow.data.phantom import dicom, film, release
from mammoflow.data.phantom.layouts import LAYOUTS, csv_folder, inbreast
from mammoflow.data.phantom.marginals import MALIGNANT

SEED = 0
LAYOUT_NAMES = ("inbreast", "csv_folder")


def config(layout: str, **changes) -> PhantomConfig:
    return PhantomConfig(
        **{"layout": layout, "patients": 12, "height": 256, "width": 192, "compressed": 0.6, **changes}
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, tuple[Path, dict[str, bytes], dict[str, bytes]]]:
    """A release of each layout on disk, and its files and tables by path."""
    found = {}
    for layout in LAYOUT_NAMES:
        files, tables = drawn_release(config(layout, two_series=0.3), SEED)
        root = tmp_path_factory.mktemp(layout)
        for path, data in {**files, **tables}.items():
            write(root / path, data)
        found[layout] = root, files, tables
    return found


def films_of(layout: str, **changes) -> list:
    """Every patient with each film, as planned."""
    plan = release.plan(config(layout, two_series=0.3, **changes), SEED)
    return [(patient, each) for patient in plan for each in patient.films]


def is_malignant(each) -> bool:
    return any(lesion.pathology == MALIGNANT for lesion in each.lesions)


def table(tables: dict[str, bytes], name: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables[name].decode(), newline=""), delimiter=delimiter))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_says_how_many_films_its_patients_have(layout):
    films = [len(patient.films) for patient in release.plan(PhantomConfig(layout=layout, patients=400), SEED)]
    assert LAYOUTS[layout].films_per_patient == pytest.approx(np.mean(films), rel=0.05)


def test_every_published_release_says_how_many_films_it_has():
    assert [name for name, kind in releases.RELEASES.items() if kind.films is None] == ["csv_folder"]


def test_every_layout_has_a_reader_of_its_name_which_recognises_it(drawn):
    assert LAYOUTS.keys() <= releases.RELEASES.keys()
    for layout in LAYOUT_NAMES:
        assert releases.resolve("auto", str(drawn[layout][0])) == layout
        assert releases.resolve("auto", None, layout) == layout


def test_inbreast_phantoms_are_read_as_they_were_planned(drawn):
    root, files, _ = drawn["inbreast"]
    listing = releases.read("auto", str(root))
    assert not listing.problems
    films = films_of("inbreast")
    used = [each for _, each in films if inbreast.birads(each, SEED) != "3"]
    assert len(films) > len(used), "some films have BI-RADS 3"
    assert listing.counts["rows"] == len(films)
    assert listing.counts["BI-RADS 3, left out"] == len(films) - len(used)
    exams = listing.exams.to_pylist()
    assert Counter(exam["label"] for exam in exams) == Counter(int(is_malignant(each)) for each in used)
    assert 0 < sum(exam["label"] for exam in exams) < len(exams) / 2
    assert sum(len(exam["lesions"]) for exam in exams) == sum(len(each.lesions) for each in used)
    for exam in exams:
        assert Path(exam["path"]).is_file()
        assert {one["pathology"] for one in exam["lesions"]} <= {("benign", "malignant")[exam["label"]]}
    assert Counter(path.rpartition(".")[2] for path in files) == {
        "dcm": len(films),
        "xml": sum(bool(each.lesions) for _, each in films),
    }


def test_inbreast_phantoms_keep_the_release_s_quirks(drawn):
    root, files, tables = drawn["inbreast"]
    text = tables["INbreast Release 1.0/INbreast.csv"]
    assert text.startswith(b"Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads\r\n")
    rows = table(tables, "INbreast Release 1.0/INbreast.csv", ";")
    assert text.count(b"\r\n") == text.count(b"\n") == len(rows) + 1
    assert {(row["Patient ID"], row["Patient age"]) for row in rows} == {("removed", "removed")}
    assert Counter(row["ACR"] == "" for row in rows)[True] == 1
    assert Counter(row["View"] for row in rows)["FB"] == 1
    views = {exam["view"] for exam in releases.read("inbreast", str(root)).exams.to_pylist()}
    assert views == {"CC", "MLO"}, "the view stands in the name, as ML"
    regions = [
        region
        for path, data in files.items()
        if path.endswith(".xml")
        for region in plistlib.loads(data)["Images"][0]["ROIs"]
    ]
    markers = [region for region in regions if region["NumberOfPoints"] < 3]
    assert {region["NumberOfPoints"] for region in markers} == {1, 2}
    assert all(region["NumberOfPoints"] == len(region["Point_px"]) for region in regions)
    names = {region["Name"] for region in regions}
    assert {"Mass", "Cluster", "Calcifications"} <= names
    assert names & {"Spiculated Region", "Espiculated Region"}


def test_the_patient_of_an_inbreast_phantom_is_the_hash_in_its_name_alone(drawn):
    root, files, _ = drawn["inbreast"]
    exams = releases.read("inbreast", str(root)).exams.to_pylist()
    plan = release.plan(config("inbreast", two_series=0.3), SEED)
    assert len({exam["patient_id"] for exam in exams}) <= len(plan)
    names = [Path(path).name.split("_") for path in files if path.endswith(".dcm")]
    assert len({name[1] for name in names}) == len(plan)
    assert all(len(name[1]) == 16 for name in names)
    for path, data in files.items():
        if path.endswith(".dcm"):
            tags = pydicom.dcmread(io.BytesIO(data))
            assert (tags.PatientID, tags.BitsStored, tags.BitsAllocated) == ("removed", 14, 16)
            assert tags.ImageLaterality == Path(path).name.split("_")[3]
            assert tags.pixel_array.max() < 2**14


def test_own_folder_phantoms_are_read_as_they_were_planned(drawn):
    root, files, _ = drawn["csv_folder"]
    listing = releases.read("auto", str(root))
    assert not listing.problems
    films = {f"films/{each.film_id}": (patient, each) for patient, each in films_of("csv_folder")}
    exams = {exam["image_id"]: exam for exam in listing.exams.to_pylist()}
    assert exams.keys() == films.keys()
    named = set()
    for image_id, exam in exams.items():
        patient, each = films[image_id]
        assert (exam["patient_id"], exam["density"]) == (patient.patient_id, patient.density)
        assert (exam["laterality"], exam["view"]) == (each.side[0], each.view)
        assert exam["label"] == is_malignant(each)
        assert exam["part"] is None
        assert Counter((one["kind"], one["pathology"]) for one in exam["lesions"]) == Counter(
            (lesion.kind, "malignant" if lesion.pathology == MALIGNANT else "benign") for lesion in each.lesions
        )
        named |= {exam["path"], *(path for one in exam["lesions"] for path in one["mask_paths"])}
    assert named == {str(root / path) for path in files}, "every file is named, and every name has its file"


def test_own_folder_phantoms_come_in_every_format_and_every_kind_of_outline(drawn):
    root, files, tables = drawn["csv_folder"]
    stored = set()
    for path, data in files.items():
        if path.startswith("films/"):
            ending = path.rpartition(".")[2]
            raw = image_files.read(str(root / path), ImageConfig())
            bits = pydicom.dcmread(io.BytesIO(data)).BitsStored if ending == "dcm" else raw.pixels.itemsize * 8
            stored.add((ending, bits))
            assert raw.largest == 2**bits - 1
            assert 0.5 * raw.largest < raw.pixels.max() <= raw.largest
    assert stored == set(csv_folder.FORMATS)
    filled = Counter(
        (next(column for column in ("mask", "xmin", "x", "polygon") if row[column]), row["origin"])
        for row in table(tables, "lesions.csv")
    )
    assert filled.keys() == {("mask", ""), *((one, o) for one in ("xmin", "x", "polygon") for o in ("", "bottom-left"))}
    assert "split" not in table(tables, "images.csv")[0]


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_outlines_lie_where_the_lesions_were_drawn(drawn, layout):
    root, _, _ = drawn[layout]
    exams = releases.read(layout, str(root)).exams.to_pylist()
    by_place = {f"films/{each.film_id}": (patient, each) for patient, each in films_of(layout)}
    by_number = {
        str(20_000_000 + 4 * patient.number + patient.films.index(each)): (patient, each)
        for patient, each in films_of(layout)
    }
    compared = 0
    for exam in exams:
        patient, each = (by_place | by_number)[exam["image_id"]]
        masks = film.draw(each, patient, config(layout), SEED, digitised=False).masks
        for one in exam["lesions"]:
            if one["outline"]:
                found = outlines.draw_outline(one["outline"], 256, 192, from_bottom=one["from_bottom"]).mask
            else:
                found = outlines.load_mask(one["mask_paths"], 256, 192).mask
            truths = [mask for (kind, _), mask in masks.items() if one["kind"] in (kind, "other")]
            truth = max(truths, key=lambda mask: (found & mask).sum() / (found | mask).sum())
            rough = len(one["outline"]) in (4, 64)  # a box, a circle
            assert (found & truth).sum() / (found | truth).sum() > (0.3 if rough else 0.93)
            assert (found & truth).sum() > 0.97 * truth.sum()
            compared += 1
    assert compared > 20


def test_marginals_of_a_large_inbreast_are_about_the_release_s():
    plan = release.plan(config("inbreast", patients=1500, two_series=0.02), 0)
    films = [each for patient in plan for each in patient.films]
    assert len(films) / len(plan) == pytest.approx(410 / 115, rel=0.05)
    grades = Counter(inbreast.birads(each, 0) for each in films)
    for grade, n in {"1": 67, "2": 220, "3": 23, "4a": 13, "4b": 8, "4c": 22, "5": 49, "6": 8}.items():
        assert grades[grade] / len(films) == pytest.approx(n / 410, abs=0.035), grade
    assert sum(len(patient.films) == 4 for patient in plan) / len(plan) == pytest.approx(90 / 115, abs=0.05)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_patients_are_the_same_whoever_else_is_drawn_and_have_both_views(layout):
    few, many = (release.plan(config(layout, patients=patients), SEED) for patients in (6, 40))
    assert many[:6] == few
    for patient in many:
        assert {(each.side, each.view) for each in patient.films} in (
            {(side, view) for side in sides for view in ("CC", "MLO")}
            for sides in (["LEFT"], ["RIGHT"], ["LEFT", "RIGHT"])
        )
        assert any(each.lesions for each in patient.films)
    assert any(not each.lesions for patient in many for each in patient.films)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_tables_do_not_depend_on_the_order_of_rows(layout):
    few = config(layout, patients=3)
    rows = {}
    for patient in release.plan(few, 1):
        for each in release.draw(patient, few, 1):
            for name, some in each.rows.items():
                rows.setdefault(name, []).extend(some)
    turned = {name: some[::-1] for name, some in rows.items()}
    assert turned != rows
    assert release.metadata(rows, few) == release.metadata(turned, few)
    assert release.metadata({}, few).keys() == rows.keys()


def test_own_folder_phantoms_have_splits_where_patients_are_in_an_official_test_part(tmp_path):
    files, tables = drawn_release(config("csv_folder", patients=48, height=128, width=96, official_test=0.4), SEED)
    for path, data in {**files, **tables}.items():
        write(tmp_path / path, data)
    exams = splits.assign(releases.read("auto", str(tmp_path)).exams, SplitConfig(protocol="given"), SEED)
    patients = dict(zip(exams["patient_id"].to_pylist(), exams["split"].to_pylist(), strict=True))
    assert 0.2 * 48 < Counter(patients.values())["test"] < 0.6 * 48
    assert set(patients.values()) == {"train", "val", "test"}
    assert len(patients) == 48


@pytest.mark.parametrize("codec", dicom.SYNTAXES)
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_every_codec_keeps_fewer_bits_than_are_allocated(codec, bits):
    whole = np.random.default_rng(0).integers(0, 2**bits, (61, 47), np.uint16)
    identity = dicom.Identity(patient="x", description="", study="1.2", series="1.3", instance="1.4", digital=True)
    read = pydicom.dcmread(io.BytesIO(dicom.encode(whole, codec, identity, bits)))
    assert (read.BitsAllocated, read.BitsStored, read.HighBit) == (16, bits, bits - 1)
    assert read.SOPClassUID.name == "Digital Mammography X-Ray Image Storage - For Presentation"
    np.testing.assert_array_equal(read.pixel_array, whole)


def test_digital_mammograms_have_no_letters_borders_or_dust():
    few = config("inbreast", patients=6)
    for patient in release.plan(few, SEED):
        for each in patient.films:
            plain, marked = (film.draw(each, patient, few, SEED, digitised=yes).pixels for yes in (False, True))
            letters = np.s_[: 256 // 3, 96:] if each.side == "LEFT" else np.s_[: 256 // 3, :96]
            in_air = plain[letters] == 0
            assert in_air.mean() > 0.3
            assert (marked[letters][in_air] > 20000).any()
            assert (plain[:, -2:] if each.side == "LEFT" else plain[:, :2]).max() == 0
