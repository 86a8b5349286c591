"""A lake on a real S3 server: whole files or none, retries, one writer at a time, credentials that nobody reads."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import boto3
import pyarrow as pa
import pytest
from object_store import LARGE, ObjectStore, object_store, write_large

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import locks, stores

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def root(server: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    stores._s3.cache_clear()  # it keeps what the environment said
    yield f"s3://{server.bucket}/{request.node.name.partition('[')[0]}"
    stores._s3.cache_clear()


def test_files_and_tables_come_back(root: str) -> None:
    table = pa.table({"a": [1, 2, 3]})
    lake.write_table(lake.join(root, "t", "one.parquet"), table)
    lake.write_json(lake.join(root, "t", "x.json"), {"a": 1})
    large = os.urandom(20 * 2**20)  # several parts
    lake.write_bytes(lake.join(root, "large"), large)
    assert lake.read_table(lake.join(root, "t")).equals(table)
    assert lake.read_json(lake.join(root, "t", "x.json")) == {"a": 1}
    assert lake.read_bytes(lake.join(root, "large")) == large
    assert lake.list_folders(root) == [f"{root}/t"]
    assert lake.list_files(lake.join(root, "t"), ".json") == [f"{root}/t/x.json"]
    assert not lake.exists(lake.join(root, "nothing"))
    lake.remove(lake.join(root, "t"))
    assert not lake.exists(lake.join(root, "t"))


def test_a_browser_is_told_what_a_page_is(server: ObjectStore, root: str) -> None:
    kinds = {
        "index.html": "text/html",
        "run.js": "text/javascript",
        "1.jpg": "image/jpeg",
        "x": "application/octet-stream",
    }
    store = boto3.client("s3", endpoint_url=server.env["AWS_ENDPOINT_URL"])
    for name, kind in kinds.items():
        lake.write_bytes(lake.join(root, name), b"x")
        key = lake.join(root, name).removeprefix(f"s3://{server.bucket}/")
        assert store.head_object(Bucket=server.bucket, Key=key)["ContentType"] == kind


def test_a_writer_that_is_killed_leaves_nothing(root: str) -> None:
    """Its parts are there, but no object: the store shows one only when all of it has come."""
    context = multiprocessing.get_context("spawn")
    for wait in (0.1, 0.4, 0.8):
        begun = context.Event()
        url = lake.join(root, f"half-{wait}")
        process = context.Process(target=write_large, args=(url, begun))
        process.start()
        begun.wait(30)
        time.sleep(wait)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert not lake.exists(url) or len(lake.read_bytes(url)) == LARGE


def test_a_store_that_is_away_for_a_moment_is_waited_for(root: str, server: ObjectStore) -> None:
    server.pause()
    threading.Timer(8, server.resume).start()
    began = time.monotonic()
    lake.write_json(lake.join(root, "x.json"), {"a": 1})
    assert time.monotonic() - began > 5
    assert lake.read_json(lake.join(root, "x.json")) == {"a": 1}


def test_one_writer_at_a_time(root: str) -> None:
    order: list[str] = []

    def work(name: str) -> None:
        with locks.hold(lake.join(root, "artefact"), order.append):
            order.append(f"{name} in")
            time.sleep(1)
            order.append(f"{name} out")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    said = [line for line in order if line[2:] in ("in", "out")]
    assert said in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])


def test_a_wrong_secret_is_an_error_without_the_secret(
    server: ObjectStore, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-one-0123456789")
    stores._s3.cache_clear()
    for act in (lambda: lake.write_json(f"{root}/x.json", {}), lambda: lake.read_bytes(f"{root}/x.json")):
        with pytest.raises(LakeError, match=r"x\.json.*(SIGNATURE|ACCESS|Access)") as refused:
            act()
        assert "a-wrong-one" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://KEY:hidden-one@bucket/lake", "holds credentials"),
        ("s3://bucket/lake?endpoint_override=127.0.0.1:9000", "AWS_ENDPOINT_URL"),
        ("nosuch://bucket/lake", "can't be opened"),
    ],
)
def test_what_a_url_may_not_hold(url: str, says: str) -> None:
    with pytest.raises(LakeError, match=says) as refused:
        stores.filesystem(url)
    assert "hidden-one" not in str(refused.value)
    if says != "can't be opened":
        with pytest.raises(LakeError, match=says):
            lake.resolve_root(url)
