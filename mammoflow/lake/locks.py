"""One writer at a time for a folder of the lake, on any filesystem. No Ray.

A lock is a file that names its holder, who renews it every few seconds. pyarrow's filesystems have no common way to
create a file only if it does not exist, nor to replace a dead holder's file in one step. So a claimant writes its own
name, waits a moment and reads the file again: the last writer's name stands, and all claimants see the same one. Should
two writers meet all the same, they write the same bytes to the same names (data/ingest/shards.py), so a lock saves work
rather than data.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mammoflow.errors import LakeError
from mammoflow.lake import files, stores

FILE = "lock.json"
BEAT = 10.0
"""Time between two heartbeats [s]."""
STALE = 60.0
"""Silence after which a holder on another machine counts as dead [s]."""

_SETTLE = {True: 0.2, False: 2.0}  # seconds, local or not: longer than from a claimant's reading to its writing
_POLL = 1.0
_CLOCK = 2.0  # seconds by which two readings of a process's start may differ
_SAY_EVERY = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a lock."""

    token: str
    """Random, different for each claim."""
    place: str
    """Machine and process namespace that `pid` belongs to."""
    host: str
    pid: int
    born: float
    """When the process started [s since 1970], since a pid may be reused."""
    job: str
    """Name of the script."""
    since: str
    """When it took the lock (UTC)."""
    beat: int = 0
    """Heartbeats so far."""

    def __str__(self) -> str:
        """Describe it for people."""
        return f"{self.job} (process {self.pid} on {self.host}, since {self.since})"


@contextmanager
def hold(folder: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder; wait while another live process holds it.

    A holder on this machine is dead once its process is gone; one elsewhere, once it has been silent for STALE seconds
    by this process's own clock.

    Args:
        folder: path or URL; it need not exist yet.
        say: called with a line when it waits, and when it takes over a dead holder's lock.

    Raises:
        LakeError: the folder can't be written.
    """
    url = files.join(folder, FILE)
    mine = _claim(url, say)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(url, mine, stop), daemon=True, name="mammoflow-lock")
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        if _same(_read(url), mine):
            files.remove(url)


def holder(folder: str) -> Holder | None:
    """Return the holder of a folder's lock, dead or alive, or None."""
    return _read(files.join(folder, FILE))


def _claim(url: str, say: Callable[[str], None]) -> Holder:
    """Wait until the lock is free or its holder dead, and take it."""
    seen: tuple[str, int] | None = None  # the holder's last heartbeat, seen at `heard`
    heard = last_line = -_SAY_EVERY
    while True:
        current, now = _read(url), time.monotonic()
        if current is not None and (current.token, current.beat) != seen:
            seen, heard = (current.token, current.beat), now
        if current is None or gone(current) or now - heard > STALE:
            if current is not None:
                say(f"  its lock is taken over from {current}, which is dead")
            mine = _myself()
            files.write_json(url, asdict(mine))
            time.sleep(_SETTLE[not stores.is_url(url)])
            if _same(_read(url), mine):
                return mine
            continue
        if now - last_line >= _SAY_EVERY:
            last_line = now
            say(f"  waiting for {current}, which is building it; it is taken over after {STALE:.0f} s without a beat")
        time.sleep(_POLL)


def _beat(url: str, mine: Holder, stop: threading.Event) -> None:
    """Renew a lock until told to stop, or until another process took it over."""
    beat = 0
    while not stop.wait(BEAT):
        try:
            if not _same(_read(url), mine):
                return
            beat += 1
            files.write_json(url, {**asdict(mine), "beat": beat})
        except LakeError:
            continue  # the store is away for a moment; if it stays away, the work itself fails


def _read(url: str) -> Holder | None:
    try:
        return Holder(**files.read_json(url)) if files.exists(url) else None
    except LakeError:  # removed in between
        return None
    except (json.JSONDecodeError, TypeError) as error:
        raise LakeError(f"{url} is not a mammoflow lock file ({error}); remove it if no job is running") from error


def _same(current: Holder | None, mine: Holder) -> bool:
    return current is not None and current.token == mine.token


def _myself() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        place=_place(),
        host=socket.gethostname(),
        pid=os.getpid(),
        born=psutil.Process().create_time(),
        job=Path(sys.argv[0]).name or "python",
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def gone(holder: Holder) -> bool:
    """Tell whether a holder's process has ended; False if it can't be seen from here."""
    if holder.place != _place():
        return False
    try:
        process = psutil.Process(holder.pid)
        return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - holder.born) > _CLOCK)
    except psutil.NoSuchProcess:
        return True


def _place() -> str:
    """Name the machine, its boot and the pid namespace, where the kernel tells; containers share only the boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
