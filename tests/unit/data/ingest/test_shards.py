"""What crosses Ray Data, tried without Ray: jobs, results, errors and ledger entries keep their types."""

import pickle
from pathlib import Path

import pytest

from mammoflow import lake
from mammoflow.data import quarantine
from mammoflow.data.ingest import shards
from mammoflow.data.ingest.patches import CutEntry, CutJob
from mammoflow.data.ingest.shards import LEDGER, SHARDS, Done
from mammoflow.errors import DecodeError, LakeError, ModelError
from mammoflow.lake import Artefact

JOB = CutJob(shard="train-a-b", images="s3://x/train-a.parquet", units=3)


def once(work, out: Path, marks: str = SHARDS) -> object:
    row = shards._once({"job": pickle.dumps(JOB)}, work, str(out), marks)
    return pickle.loads(row["result"])


def test_a_task_gets_its_job_and_its_result_comes_back(tmp_path):
    seen = []
    assert once(lambda job: seen.append(job) or Done(units=job.units, counts={"patches": 7}), tmp_path) == Done(
        units=3, counts={"patches": 7}
    )
    assert seen == [JOB]


@pytest.mark.parametrize(
    "error", [DecodeError("in colour", "a.dcm"), ModelError("loss is nan", "a model"), LakeError("can't list x")]
)
def test_an_error_of_ours_comes_back_whole_and_any_other_is_left_to_ray(tmp_path, error):
    def fail(_):
        raise error

    result = once(fail, tmp_path)
    assert type(result) is type(error)
    assert (str(result), vars(result)) == (str(error), vars(error))
    with pytest.raises(ZeroDivisionError):
        once(lambda _: 1 / 0, tmp_path)


@pytest.mark.parametrize(("marks", "url"), [(SHARDS, shards.shard_url), (LEDGER, shards.ledger_url)])
def test_a_task_that_ray_repeats_after_its_mark_was_written_does_nothing(tmp_path, marks, url):
    lake.write_bytes(url(str(tmp_path), JOB.shard), b"done")
    assert once(lambda _: pytest.fail("worked twice"), tmp_path, marks) == Done(units=3)


def test_a_ledger_entry_is_read_as_it_was_written_and_tells_what_is_flawed(tmp_path):
    out = Artefact("patches", "a", "b", str(tmp_path / "patches" / "a-b"))
    bad = quarantine.left_out("image", "s3://x/train-a.parquet", "smaller than a patch", "patches")
    entry = CutEntry(split="train", patches={"mass": 2}, below_min=1, unverified=0, mined=0, quarantine=(bad,))
    shards.write_entry(out.url, "train-a-b", entry)
    lake.write_bytes(shards.shard_url(out.url, "train-a-b"), b"rows")
    assert shards.read_entry(out.url, "train-a-b", CutEntry) == entry
    assert shards.reopen(out) == 1
    assert shards.missing([JOB], out, SHARDS) == [JOB]
    lake.write_bytes(shards.ledger_url(out.url, "train-a-b"), b"[]")
    with pytest.raises(LakeError, match="holds no CutEntry"):
        shards.read_entry(out.url, "train-a-b", CutEntry)
