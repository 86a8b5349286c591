"""What a stranger can reach, read or plant: sockets, tokens, secrets, files that want to do more than be read."""

import io
import ipaddress
import os
import pickle
import plistlib
import socket
import stat
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from killing import MARK
from ray_head import BIN, ROOT, Cluster

from mammoflow.data.releases import inbreast, listing
from mammoflow.errors import SourceError, TrainingError
from mammoflow.lake import Lake
from mammoflow.models import backbones, weights


def listening(mark: str) -> set[tuple[str, str]]:
    """Return address and program of every socket on which a process of a run waits for others."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) != mark:
                continue
            for connection in process.net_connections("inet"):
                waits = connection.status == psutil.CONN_LISTEN or (
                    connection.type == socket.SOCK_DGRAM and not connection.raddr
                )
                if waits:
                    found.add((connection.laddr.ip, process.name()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_a_job_on_a_laptop_listens_to_this_machine_alone(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    words = [sys.executable, "jobs/ingest.py", "smoke", "--lake", str(tmp_path)]
    seen: set[tuple[str, str]] = set()
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL) as job:
        while job.poll() is None:
            seen |= listening(mark)
            time.sleep(0.3)
    assert job.returncode == 0
    assert seen, "Ray's own servers"
    outside = {(ip, name) for ip, name in seen if not ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback}
    assert outside == set()


def test_a_cluster_takes_jobs_with_its_token_alone(cluster: Cluster) -> None:
    for change in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "a-wrong-one-" + "0" * 40}):
        words = [BIN / "ray", "job", "submit", "--", "python", "-c", "print(6 * 7)"]
        done = subprocess.run(
            words, env={**cluster.env, **change}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
        assert "42" not in done.stdout


def test_secrets_of_the_lake_are_for_its_owner(tmp_path: Path) -> None:
    Lake(str(tmp_path)).salt()
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    evil = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Planted(planted)}, evil)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Planted(planted)))
    for file in (evil, tmp_path / "plain.pth"):
        with pytest.raises(TrainingError, match=file.name):
            weights.check(backbones.find("resnet10_narrow"), str(file))
    assert not planted.exists()


def sheet(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", content)
    return packed.getvalue()


def test_a_table_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "INbreast.xls").write_bytes(sheet(b" " * (200 * 2**20)))
    with pytest.raises(SourceError, match="would unpack to 200 MiB, but tables of at most 64 are read"):
        listing.read_sheet(listing.scan(str(tmp_path)), "INbreast.xls", ["x"])


def test_outlines_whose_entities_grow_without_end_are_refused() -> None:
    grown = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a0 "ha">{grown}]><plist><string>&a11;</string></plist>'
    with pytest.raises(plistlib.InvalidFileException):
        plistlib.loads(text.encode())
    assert inbreast.plistlib is plistlib, "outlines are read by it"
