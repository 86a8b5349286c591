"""INbreast, VinDr-Mammo, CMMD, RSNA-2022 and users' own folders: rows in, exams with labels and lesions out."""

import plistlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset
from small_dicom import breast, dicom, disc, write

from mammoflow import lake
from mammoflow.config import ImageConfig, PatchConfig, SplitConfig
from mammoflow.data import outlines, patches, releases, splits
from mammoflow.data.ingest import images, shards
from mammoflow.errors import DecodeError, SourceError, SplitError
from mammoflow.lake import Lake
from mammoflow.lake.schema import BENIGN, MALIGNANT

INBREAST = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
FILM = dicom(breast())


def by_id(source: Path, dataset: str = "auto") -> dict:
    return {exam["image_id"]: exam for exam in releases.read(dataset, str(source)).exams.to_pylist()}


def inbreast(
    root: Path, rows: list[tuple[str, str, str, str]], regions: dict[str, list[tuple[str, list[str]]]]
) -> None:
    """Rows of (file id, patient hash, view in the file's name, BI-RADS), and regions of (name, points) by file id."""
    lines = [INBREAST, *(f"removed;removed;R;{view};201001;{file};2;{birads}" for file, _, view, birads in rows)]
    write(root / "INbreast.csv", ("\r\n".join(lines) + "\r\n").encode())
    for file, patient, view, _ in rows:
        write(root / "AllDICOMs" / f"{file}_{patient}_MG_R_{view}_ANON.dcm", b"")
    for file, outlined in regions.items():
        found = [{"Name": name, "NumberOfPoints": len(points), "Point_px": points} for name, points in outlined]
        write(root / "AllXML" / f"{file}.xml", plistlib.dumps({"Images": [{"NumberOfROIs": 1, "ROIs": found}]}))


def test_inbreast_labels_outlines_and_markers(tmp_path):
    square = ["(10, 20)", "(30.5, 20)", "(30.5, 40)", "(10, 40)"]
    regions = {
        "20586908": [("Mass", square), ("Calcification", ["(5, 5)"]), ("Espiculated Region", square), ("", square)],
        "20586909": [("Cluster", square)],
    }
    rows = [
        ("20586908", "6c613a14b80a8591", "ML", "4a"),
        ("20586909", "6c613a14b80a8591", "CC", "2"),
        ("20586910", "aaaa", "CC", "3"),
        ("20586911", "bbbb", "FB", "6"),
    ]
    inbreast(tmp_path / "INbreast Release 1.0", rows, regions)
    exams = by_id(tmp_path)
    assert {name: exam["label"] for name, exam in exams.items()} == {"20586908": 1, "20586909": 0, "20586911": 1}
    exam = exams["20586908"]
    assert (exam["patient_id"], exam["laterality"], exam["view"], exam["density"]) == (
        "6c613a14b80a8591",
        "R",
        "MLO",
        2,
    )
    assert [(one["kind"], one["pathology"]) for one in exam["lesions"]] == [
        ("mass", "malignant"),
        ("mass", "malignant"),
        ("other", "malignant"),
    ], "a single point is a marker, no outline"
    assert exam["lesions"][0]["outline"][1] == [20.0, 30.5], "(row, column)"
    assert exams["20586909"]["lesions"][0]["pathology"] == "benign"
    assert exams["20586911"]["lesions"] == []


BIRADS = {"1": 67, "2": 220, "3": 23, "4a": 13, "4b": 8, "4c": 22, "5": 49, "6": 8}
"""Rows of the release's table by BI-RADS."""


def real_inbreast() -> list[tuple[str, str, str, str]]:
    """Rows like the release's: 410 films of 108 patients, 5 with BI-RADS 3 alone, one film without a density and
    one of view FB; which film is whose is made up: 50 patients with cancer, two films of it each, 53 without.
    """
    grades = [grade for grade, n in BIRADS.items() for _ in range(n)]
    patients = [f"{n:016x}" for n in range(108)]
    patients_of = {
        "4": patients[:50],
        "5": patients[:50],
        "6": patients[:50],
        "3": patients[-12:],
        "1": patients[:103],
        "2": patients[:103],
    }
    seen = Counter()
    rows = []
    for number, grade in enumerate(grades):
        kind = "cancer" if grade[0] in "456" else "3" if grade == "3" else "well"
        group = patients_of[grade[0]]
        rows.append((f"{20000000 + number}", group[seen[kind] % len(group)], ("CC", "ML")[number % 2], grade))
        seen[kind] += 1
    random.Random(0).shuffle(rows)
    return rows


def as_released(root: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Write rows with the release's blank density, and its view that only the table has."""
    inbreast(root, rows, {})
    table = root / "INbreast.csv"
    lines = table.read_bytes().decode().split("\r\n")
    lines[7] = lines[7].replace(";2;", ";;")
    lines[8] = lines[8].replace(";CC;", ";FB;").replace(";ML;", ";FB;")
    assert lines[7].count(";;") == lines[8].count(";FB;") == 1
    table.write_bytes("\r\n".join(lines).encode())


def test_inbreast_counts_are_the_papers(tmp_path):
    """410 rows: 23 of BI-RADS 3 left out, 287 negative and 100 positive, 103 patients: 72 and 31."""
    as_released(tmp_path / "INbreast Release 1.0", real_inbreast())
    listing = releases.read("auto", str(tmp_path))
    assert not listing.problems
    assert listing.counts == {"rows": 410, "BI-RADS 3, left out": 23, "images": 387, "patients": 103}
    exams = listing.exams
    assert Counter(exams["label"].to_pylist()) == {BENIGN: 287, MALIGNANT: 100}
    assert exams["density"].null_count == 1
    assert set(exams["view"].to_pylist()) == {"CC", "MLO"}
    split = splits.assign(exams, SplitConfig(protocol="70-30"), seed=0)
    assert split.num_rows == 387
    patients = {exam["patient_id"]: exam["split"] for exam in split.to_pylist()}
    counts = Counter(patients.values())
    assert counts == {"train": 64, "val": 8, "test": 31}, "72 and 31, of the 72 a tenth to choose models by"
    cancer = {exam["patient_id"] for exam in exams.to_pylist() if exam["label"]}
    assert len(cancer) == 50
    assert sum(patients[patient] == "test" for patient in cancer) == 15, "stratified"
    films = Counter(split["split"].to_pylist())
    assert films["test"] == pytest.approx(107, abs=20), "the paper's 280 and 107 films, up to the draw of patients"


def test_inbreast_as_excel_counts_the_same(tmp_path):
    rows = real_inbreast()
    inbreast(tmp_path, rows, {})
    table = pd.read_csv(tmp_path / "INbreast.csv", sep=";", dtype={"Bi-Rads": str})
    table[["Mass", "Micros", "Distortion", "Asymmetry"]] = None
    table.loc[::3, "Mass"] = "X"
    table.loc[len(table)] = {"Patient ID": "Mass", "Bi-Rads": "X"}
    table.loc[len(table)] = {"File Name": "total", "Bi-Rads": "410"}
    table.to_excel(tmp_path / "table.xlsx", index=False)  # no package writes xls any more
    (tmp_path / "table.xlsx").rename(tmp_path / "INbreast.xls")
    (tmp_path / "INbreast.csv").unlink()
    listing = releases.read("auto", str(tmp_path))
    assert not listing.problems
    assert listing.counts == {"rows": 410, "BI-RADS 3, left out": 23, "images": 387, "patients": 103}
    assert Counter(listing.exams["label"].to_pylist()) == {BENIGN: 287, MALIGNANT: 100}


def test_the_excel_table_of_inbreast_with_its_two_last_rows(tmp_path, monkeypatch):
    rows = [{"Laterality": "L", "View": "CC", "File Name": 22678622.0, "ACR": 1.0, "Bi-Rads": "5"}]
    rows += [dict.fromkeys(rows[0], None), {**dict.fromkeys(rows[0], None), "Bi-Rads": "total"}]
    write(tmp_path / "INbreast.xls", b"")
    pd.DataFrame(rows).to_excel(tmp_path / "table.xlsx", index=False)  # no package writes xls any more
    (tmp_path / "table.xlsx").rename(tmp_path / "INbreast.xls")
    write(tmp_path / "AllDICOMs" / "22678622_61b13c59bcba149d_MG_L_CC_ANON.dcm", b"")
    (exam,) = by_id(tmp_path).values()
    assert (exam["label"], exam["density"], exam["patient_id"]) == (1, 1, "61b13c59bcba149d")


def test_a_broken_inbreast_is_named(tmp_path):
    inbreast(tmp_path, [("1", "aa", "CC", "9"), ("2", "bb", "CC", "1")], {"2": [("Mass", ["10, 20"] * 3)]})
    with pytest.raises(SourceError, match=r"AllXML/2\.xml is not an INbreast outline file"):
        releases.read("inbreast", str(tmp_path))
    (tmp_path / "AllXML" / "2.xml").unlink()
    next(tmp_path.glob("AllDICOMs/2_*")).unlink()
    reasons = {row.image_id: row.reason for row in releases.read("inbreast", str(tmp_path)).problems}
    assert "BI-RADS is '9', but must be 1 to 6" in reasons["1"]
    assert "no DICOM file 2_*_ANON.dcm" in reasons["2"]


def test_vindr_boxes_parts_and_birads(tmp_path):
    breasts = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split\n"
    breasts += (
        "s1,x,a,L,CC,3518,2800,BI-RADS 4,DENSITY C,training\ns1,x,b,R,MLO,3518,2800,BI-RADS 3,DENSITY C,training\n"
    )
    breasts += "s2,x,c,R,MLO,3518,2800,BI-RADS 1,DENSITY A,test\n"
    findings = "image_id,finding_categories,finding_birads,xmin,ymin,xmax,ymax\n"
    findings += "a,\"['Mass', 'Skin Thickening']\",BI-RADS 4,10.5,20,110.5,220\n"
    findings += "a,['Suspicious Calcification'],BI-RADS 2,1,2,3,4\na,['Asymmetry'],,1,2,3,4\nc,['No Finding'],,,,,\n"
    write(tmp_path / "breast-level_annotations.csv", breasts.encode())
    write(tmp_path / "finding_annotations.csv", findings.encode())
    exams = by_id(tmp_path)
    assert {name: (exam["label"], exam["part"], exam["density"]) for name, exam in exams.items()} == {
        "a": (1, "train", 3),
        "c": (0, "test", 1),
    }
    assert exams["a"]["path"] == str(tmp_path / "images/s1/a.dicom")
    kinds = [(one["kind"], one["pathology"]) for one in exams["a"]["lesions"]]
    assert kinds == [("mass", "malignant"), ("calcification", "benign"), ("other", "malignant")]
    assert exams["a"]["lesions"][0]["outline"] == [[20, 10.5], [20, 110.5], [220, 110.5], [220, 10.5]]
    assert exams["c"]["lesions"] == []
    write(tmp_path / "finding_annotations.csv", findings.replace("10.5", "ten", 1).encode())
    with pytest.raises(SourceError, match=r"finding_annotations\.csv, line 2: .*'ten'"):
        releases.read("vindr", str(tmp_path))


def test_cmmd_takes_side_and_view_from_the_headers(tmp_path):
    table = pd.DataFrame(
        {"ID1": ["D1-0001", "D1-0002"], "LeftRight": ["L", "R"], "classification": ["Malignant", "Benign"]}
    )
    tmp_path.mkdir(exist_ok=True)
    table.to_excel(tmp_path / "CMMD_clinicaldata_revision.xlsx", index=False)
    for patient, side, code in (
        ("D1-0001", "L", "R-10242"),
        ("D1-0001", "R", "R-10226"),
        ("D1-0002", "R", "399368009"),
    ):
        view = Dataset()
        view.CodeValue = code
        data = dicom(breast(), ImageLaterality=side, ViewCodeSequence=[view])
        write(tmp_path / "CMMD" / patient / "07-18-2010-NA-NA-81491" / f"1.0-NA-{side}" / "1-1.dcm", data)
    write(tmp_path / "CMMD" / "D1-0002" / "s" / "t" / "1-2.dcm", FILM)
    listing = releases.read("auto", str(tmp_path))
    found = {(e["patient_id"], e["laterality"], e["view"], e["label"]) for e in listing.exams.to_pylist()}
    assert found == {("D1-0001", "L", "CC", 1), ("D1-0002", "R", "MLO", 0)}
    assert listing.counts["of a breast without a diagnosis, left out"] == 1
    (bad,) = listing.problems
    assert "names no side" in bad.reason


def test_rsna_labels_are_the_breasts(tmp_path):
    text = "site_id,patient_id,image_id,laterality,view,age,cancer,density\n2,10006,462822612,L,CC,61,0,B\n"
    text += "2,10006,1459541791,R,AT,61,1,\n2,10007,5,R,CC,61,maybe,A\n"
    write(tmp_path / "train.csv", text.encode())
    listing = releases.read("auto", str(tmp_path))
    rows = listing.exams.to_pylist()
    assert [(row["image_id"], row["view"], row["label"], row["density"]) for row in rows] == [
        ("1459541791", "AT", 1, None),
        ("462822612", "CC", 0, 2),
    ]
    assert rows[0]["path"] == str(tmp_path / "train_images/10006/1459541791.dcm")
    assert "column `cancer` is 'maybe'" in listing.problems[0].reason


IMAGES = "path,patient_id,laterality,view,label,split\n"
LESIONS = "path,kind,pathology,mask,xmin,ymin,xmax,ymax,x,y,radius,polygon,origin\n"


def own_folder(root: Path, lesions: list[str]) -> None:
    write(root / "images.csv", (IMAGES + "films/a.dcm,p1,left,cc,1,train\nfilms/b.dcm,p2,R,MLO,0,\n").encode())
    write(root / "lesions.csv", (LESIONS + "\n".join(lesions) + "\n").encode())
    for name in "ab":
        write(root / "films" / f"{name}.dcm", FILM)


def test_own_images_may_leave_side_and_view_to_their_files(tmp_path):
    write(tmp_path / "images.csv", b"path,patient_id,label,view\na.dcm,p1,1,\nb.dcm,p1,1,ML\n")
    for name in "ab":
        write(tmp_path / f"{name}.dcm", dicom(breast(), ImageLaterality="R", ViewPosition="MLO"))
    exams = releases.read("csv_folder", str(tmp_path)).exams
    assert [(row["laterality"], row["view"]) for row in exams.to_pylist()] == [(None, None), (None, "ML")]
    out = Lake(str(tmp_path / "lake")).artefact("images", "own")
    job = images.DecodeJob(shard="train-x", first=0, units=2, bytes_read=0)
    images._decode_shard(job, exams, ImageConfig(), out.url)
    rows = lake.read_table(shards.shard_url(out.url, "train-x")).to_pylist()
    assert [(row["laterality"], row["view"]) for row in rows] == [("R", "MLO"), ("R", "ML")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("films/a.dcm,mass,malignant,masks/a.dcm,,,,,,,,,", disc(240, 160, 100, 60, 20) > 0),
        ("films/a.dcm,mass,malignant,,40,80,79,119,,,,,", np.pad(np.ones((40, 40), bool), ((80, 120), (40, 80)))),
        ("films/a.dcm,mass,malignant,,,,,,60,100,20,,top-left", disc(240, 160, 100, 60, 20) > 0),
        ("films/a.dcm,mass,malignant,,,,,,60,139,20,,bottom-left", disc(240, 160, 100, 60, 20) > 0),
        (
            'films/a.dcm,mass,malignant,,,,,,,,,"40 80, 79 80, 79 119, 40 119",',
            np.pad(np.ones((40, 40), bool), ((80, 120), (40, 80))),
        ),
    ],
)
def test_lesions_of_own_images_as_masks_boxes_circles_and_polygons(tmp_path, row, expected):
    own_folder(tmp_path, [row])
    write(tmp_path / "masks" / "a.dcm", dicom(disc(240, 160, 100, 60, 20), 8))
    exams = by_id(tmp_path)
    assert (exams["films/a"]["laterality"], exams["films/a"]["view"], exams["films/a"]["part"]) == ("L", "CC", "train")
    assert exams["films/b"]["lesions"] == []
    (lesion,) = exams["films/a"]["lesions"]
    if lesion["outline"]:
        mask = outlines.draw_outline(lesion["outline"], 240, 160, from_bottom=lesion["from_bottom"]).mask
    else:
        mask = outlines.load_mask(lesion["mask_paths"], 240, 160).mask
    assert (mask & expected).sum() / (mask | expected).sum() > 0.93  # edges are drawn too


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("films/c.dcm,mass,benign,,1,2,3,4,,,,,", "image 'films/c.dcm' is not in images.csv"),
        ("films/a.dcm,tumour,benign,,1,2,3,4,,,,,", "column `kind` is 'tumour', but must be one of mass,"),
        ("films/a.dcm,mass,cancer,,1,2,3,4,,,,,", "column `pathology` is 'cancer'"),
        ("films/a.dcm,mass,benign,../x.png,,,,,,,,,", "column `mask` is '../x.png', but must be a relative path"),
        ("films/a.dcm,mass,benign,,1,2,3,,,,,,", "it has no mask, box, circle or polygon"),
        ("films/a.dcm,mass,benign,,1,2,3,four,,,,,", "could not convert string to float: 'four'"),
        ("films/a.dcm,mass,benign,,,,,,,,,1 2 3 4,", "column `polygon` holds 4 numbers"),
        ("films/a.dcm,mass,benign,,1,2,3,4,,,,,middle", "column `origin` is 'middle'"),
    ],
)
def test_a_lesion_that_cannot_be_read_is_named_with_its_line(tmp_path, row, reason):
    own_folder(tmp_path, [row])
    with pytest.raises(SourceError) as caught:
        releases.read("csv_folder", str(tmp_path))
    assert "lesions.csv, line 2" in str(caught.value)
    assert reason in str(caught.value)


def test_an_outline_past_the_edge_is_cut_off_and_one_outside_refused():
    outline = outlines.draw_outline([(-50, -50), (-50, 20), (30, 20), (30, -50)], 240, 160, from_bottom=False)
    assert outline.mask.sum() == 31 * 21
    assert outline.note is not None
    with pytest.raises(DecodeError, match="lie outside the film of 240x160"):
        outlines.draw_outline([(300, 10), (300, 20), (320, 20)], 240, 160, from_bottom=False)


def test_other_lesions_give_no_patch_and_keep_background_away():
    film = breast(seed=3)
    mass, other = disc(240, 160, 80, 40, 12) > 0, disc(240, 160, 150, 40, 30) > 0
    lesions = [
        patches.Lesion(lesion_id="m", kind="mass", pathology="benign", mask=mass),
        patches.Lesion(lesion_id="o", kind="other", pathology="malignant", mask=other),
    ]
    config = PatchConfig(side=32, per_lesion=20)
    cut = patches.cut(film, lesions, config, np.random.default_rng(0))
    assert [patch.lesion_id for patch in cut].count("m") == 20
    assert len(cut) == 40
    for patch in cut[20:]:
        window = (slice(patch.row, patch.row + 32), slice(patch.column, patch.column + 32))
        assert not other[window].any()


def test_given_splits_are_kept_and_images_without_one_left_out(tmp_path):
    rows = [f"f{n}.png,p{n},L,CC,{n % 2},{'train' if n < 4 else 'val' if n < 6 else 'test'}" for n in range(8)]
    write(tmp_path / "images.csv", (IMAGES + "\n".join([*rows, "f9.png,p9,L,CC,1,"]) + "\n").encode())
    exams = releases.read("auto", str(tmp_path)).exams
    given = splits.assign(exams, SplitConfig(protocol="given"), seed=0)
    assert [row["split"] for row in given.to_pylist()] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    leaking = (IMAGES + "\n".join([*rows, "f9.png,p0,L,CC,1,test"]) + "\n").encode()
    write(tmp_path / "images.csv", leaking)
    with pytest.raises(SplitError, match="patient_id p0 is in train and in test, a leak"):
        splits.assign(releases.read("auto", str(tmp_path)).exams, SplitConfig(protocol="given"), seed=0)


def test_a_folder_of_two_releases_wants_a_name(tmp_path):
    write(tmp_path / "images.csv", IMAGES.encode())
    write(tmp_path / "INbreast.csv", INBREAST.encode())
    with pytest.raises(SourceError, match="may be inbreast or csv_folder"):
        releases.resolve("auto", str(tmp_path))
    assert releases.resolve("inbreast", str(tmp_path)) == "inbreast"
