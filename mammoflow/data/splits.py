"""Assign patients to train, val and test, stratified on cancer; refuse leaks. No Ray, no files, no pixels.

Functions take and return tables of schema.EXAMS; results do not depend on the order of rows.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import train_test_split

from mammoflow import lake
from mammoflow.config import SplitConfig
from mammoflow.errors import SplitError
from mammoflow.lake import Artefact
from mammoflow.lake.schema import MALIGNANT, SPLITS

INBREAST_TEST = 0.30
"""Share of patients in test under protocol `70-30` [0-1]. Source: paper, 2.2."""

PUBLISHED = "splits.csv"
"""File of an images artefact: the split of each patient (`manifest`)."""

_MANIFEST = ("patient_id", "split")


def same_data(images: Artefact) -> dict[str, str]:
    """Return what two runs must share for their validation scores to be comparable: images and splits.

    Args:
        images: a finished images artefact.

    Raises:
        LakeError: it lacks its splits.
    """
    splits = lake.fingerprint(lake.read_bytes(images.file(PUBLISHED)).hex())
    return {"images": images.fingerprint, "splits": splits}


def select(exams: pa.Table, splits: SplitConfig) -> pa.Table:
    """Keep the images that a protocol uses.

    paper: all but the official test part; all of a release without parts.
    70-30: all.
    official: all, but patients of both parts only in train.
    given: those with a split in the source.

    Raises:
        SplitError: no image is left.
    """
    if splits.protocol == "70-30":
        used = exams
        remedy = "the source holds no usable image; check its metadata"
    elif splits.protocol == "paper":
        used = exams.filter(pc.fill_null(pc.not_equal(exams["part"], "test"), True))
        remedy = "the source holds only an official test part; use --splits.protocol official"
    elif splits.protocol == "given":
        used = exams.filter(pc.is_in(exams["part"], value_set=pa.array(SPLITS)))
        remedy = "no image has a split in the source; fill the column `split`, or use --splits.protocol paper"
    else:
        train = pc.equal(exams["part"], "train")
        both = pc.is_in(exams["patient_id"], value_set=exams.filter(train)["patient_id"].combine_chunks())
        used = exams.filter(pc.or_(train, pc.and_(pc.equal(exams["part"], "test"), pc.invert(both))))
        remedy = "the release has no official parts; use --splits.protocol paper"
    if not used.num_rows:
        raise SplitError(f"protocol {splits.protocol!r} leaves none of the {exams.num_rows} images: {remedy}")
    return used


def manifest(exams: pa.Table) -> str:
    """Return each patient's split as sorted CSV, `patient_id,split`; `with_manifest` reads it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_MANIFEST)
    writer.writerows(sorted({*_pairs(exams, *_MANIFEST)}))
    return out.getvalue()


def with_manifest(exams: pa.Table, text: str) -> pa.Table:
    """Return the exams with a manifest's splits in the column `part`, for protocol `given`.

    Raises:
        SplitError: a column is missing, a split is unknown, a patient has two splits, or no patient is in the exams.
    """
    reader = csv.DictReader(io.StringIO(text))
    if missing := [name for name in _MANIFEST if name not in (reader.fieldnames or ())]:
        raise SplitError(f"the manifest has no column {', '.join(missing)}; write it as {','.join(_MANIFEST)}")
    split_of: dict[str, str] = {}
    for row in reader:
        patient, split = row["patient_id"], row["split"]
        if split not in SPLITS:
            raise SplitError(f"manifest, line {reader.line_num}: split is {split!r}, but must be one of {SPLITS}")
        if split_of.setdefault(patient, split) != split:
            raise SplitError(
                f"manifest, line {reader.line_num}: {patient} is in {split_of[patient]} and {split}; keep one"
            )
    parts = [split_of.get(patient) for patient in exams["patient_id"].to_pylist()]
    if not any(parts):
        raise SplitError(
            f"none of the manifest's {len(split_of)} patients is in the source; is it from another release?"
        )
    index = exams.schema.get_field_index("part")
    return exams.set_column(index, exams.schema.field(index), pa.array(parts, pa.string()))


def limit_films(exams: pa.Table, films: int) -> pa.Table:
    """Keep the first whole patients until `films` films are reached, taking turns between strata.

    A stratum is the release's part and whether any film of the patient shows cancer, so that even a small sample has
    both classes in every split. The last patient may exceed the limit by a few films.
    """
    strata: dict[tuple[str, bool], list[str]] = defaultdict(list)
    pairs = {(patient, part or "") for patient, part in _pairs(exams, "patient_id", "part")}
    parts = dict(sorted(pairs))  # the last wins: `train` for a patient in both parts
    for patient, cancer in sorted(_cancer_by_patient(exams).items()):
        strata[parts[patient], cancer].append(patient)
    in_turn = [
        patient for turn in zip_longest(*(strata[stratum] for stratum in sorted(strata))) for patient in turn if patient
    ]
    films_of: dict[str, set[str]] = defaultdict(set)
    for patient, film in _pairs(exams, "patient_id", "film_id"):
        films_of[patient].add(film)
    sample: list[str] = []
    count = 0
    for patient in in_turn:
        if count >= films:
            break
        sample.append(patient)
        count += len(films_of[patient])
    return exams.filter(pc.is_in(exams["patient_id"], value_set=pa.array(sample, pa.string())))


def assign(exams: pa.Table, splits: SplitConfig, seed: int) -> pa.Table:
    """Return the images that the protocol uses, with `split` filled.

    paper: a share `splits.test` of the patients is test.
    70-30: 30% of the patients are test.
    official: the release's test part is test; a source with nothing else is all test, for evaluation only.
    given: the source's own splits.

    Except under `given`, a share `splits.val` of the other patients is validation, so models are never selected on the
    data they are reported on. Patients are stratified on having any malignant film. With `splits.patients`, only that
    many patients outside test are used. The result depends on the set of patients and the seed alone.

    Raises:
        SplitError: a class has too few patients to split, or as in `check`.

    Source: paper, 2.1 (85-15, then 10% of the training patients, stratified on cancer), 2.2 (70-30; the paper selected
    and reported on the same 30%).
    """
    used = select(exams, splits)
    if splits.protocol == "given":
        index = used.schema.get_field_index("split")
        result = used.set_column(index, used.schema.field(index), used["part"])
        check(result)
        return result
    cancer = _cancer_by_patient(used)
    if splits.protocol == "official":
        in_test = pc.equal(used["part"], "test")
        test = set(used.filter(in_test)["patient_id"].to_pylist())
    else:
        test = _draw(cancer, INBREAST_TEST if splits.protocol == "70-30" else splits.test, "test", seed)
    rest = {patient: has for patient, has in cancer.items() if patient not in test}
    if splits.patients is not None:
        rest = _first(rest, splits.patients, seed)
        used = used.filter(pc.is_in(used["patient_id"], value_set=pa.array(sorted(test.union(rest)), pa.string())))
    val = _draw(rest, splits.val, "val", seed) if rest else set()
    split = ["test" if p in test else "val" if p in val else "train" for p in used["patient_id"].to_pylist()]
    index = used.schema.get_field_index("split")
    result = used.set_column(index, used.schema.field(index), pa.array(split, pa.string()))
    check(result)
    return result


def check(exams: pa.Table) -> None:
    """Refuse splits that leak, or lack a class.

    Raises:
        SplitError: a patient or film is in two splits, or a split lacks one of the labels. Train and val may both be
            empty, in a source for evaluation only.
    """
    for column in ("patient_id", "film_id"):
        split_of: dict[str, str] = {}
        for key, split in _pairs(exams, column, "split"):
            first = split_of.setdefault(key, split)
            if first != split:
                raise SplitError(
                    f"{column} {key} is in {first} and in {split}, a leak; give all images of a patient one split"
                )
    counts = {split: [0, 0] for split in SPLITS}
    for split, label in _pairs(exams, "split", "label"):
        counts[split][label == MALIGNANT] += 1
    test_only = not any(counts["train"]) and not any(counts["val"])
    for split, (benign, malignant) in counts.items():
        if (not benign or not malignant) and not (test_only and split != "test"):
            raise SplitError(
                f"split {split} has {benign} benign and {malignant} malignant images, but needs at least one of each "
                f"({_show(counts)}); use more patients (a larger --limit, or no limit) or other shares in --splits"
            )


def _show(counts: dict[str, list[int]]) -> str:
    return "; ".join(
        f"{split}: {benign} benign, {malignant} malignant" for split, (benign, malignant) in counts.items()
    )


def _pairs(exams: pa.Table, first: str, second: str) -> Iterator[tuple[Any, Any]]:
    return zip(exams[first].to_pylist(), exams[second].to_pylist(), strict=True)


def _cancer_by_patient(exams: pa.Table) -> dict[str, bool]:
    """Return patient -> whether any image is malignant."""
    cancer: dict[str, bool] = {}
    for patient, label in _pairs(exams, "patient_id", "label"):
        cancer[patient] = cancer.get(patient, False) or label == MALIGNANT
    return cancer


def _first(cancer: dict[str, bool], count: int, seed: int) -> dict[str, bool]:
    """Return the first `count` patients of a random order that keeps the class ratio: smaller samples are nested."""
    if count > len(cancer):
        raise SplitError(
            f"splits.patients is {count}, but only {len(cancer)} patients are not in test; lower it, or set None"
        )
    rng = np.random.default_rng(int(lake.fingerprint(seed, "splits", "patients"), 16))
    places: dict[str, float] = {}
    for kind in (False, True):
        of_kind = sorted(patient for patient, has in cancer.items() if has == kind)
        places |= {patient: (2 * n + 1) / len(of_kind) for n, patient in enumerate(rng.permutation(of_kind).tolist())}
    ranked = sorted(places, key=lambda patient: (places[patient], patient))
    return {patient: cancer[patient] for patient in ranked[:count]}


def _draw(cancer: dict[str, bool], share: float, split: str, seed: int) -> set[str]:
    """Draw a share of the patients, stratified on cancer, and independent of the order of rows."""
    patients = sorted(cancer)
    strata = [cancer[patient] for patient in patients]
    state = int(lake.fingerprint(seed, "splits", split)[:8], 16)
    try:
        _, drawn = train_test_split(patients, test_size=share, stratify=strata, random_state=state)
    except ValueError as error:
        raise SplitError(
            f"can't draw {share:.0%} of {len(patients)} patients ({sum(strata)} with cancer) for {split}: it and the "
            "rest each need a patient with cancer and one without; use more patients (a larger --limit or "
            "--splits.patients, or neither) or another share in --splits"
        ) from error
    return set(drawn)
