"""One writer at a time for a folder of the lake, on any filesystem. No Ray.

A lock is a file that says who holds it, renewed every few seconds. Stores have no common way to create a file only
where there is none, so a claimant writes its own name, waits a moment and looks whose name stands there: the last
one's, which the others then see too. Should two writers ever meet all the same, they write the same bytes to the same
names (data/shards.py), so a lock saves work rather than the data.
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

from mammoflow import lake
from mammoflow.errors import LakeError
from mammoflow.lake import stores

FILE = "lock.json"
BEAT = 10.0
"""Seconds between two signs of life of a holder."""
STALE = 60.0
"""A holder elsewhere that gives no sign of life for so many seconds is taken for dead."""

_SETTLE = {True: 0.2, False: 2.0}  # seconds, local or not: longer than a claimant takes from looking to writing
_POLL = 1.0
_CLOCK = 2.0  # seconds by which the start of one process may be read differently
_SAY_EVERY = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a lock."""

    token: str
    """Its claim: another one for each."""
    place: str
    """Machine and process namespace in which `pid` means something."""
    host: str
    pid: int
    born: float
    """When the process started [s since 1970]; a later process may have the same pid."""
    job: str
    """Name of the script."""
    since: str
    """When it took the lock (UTC)."""
    beat: int = 0
    """Signs of life so far."""

    def __str__(self) -> str:
        """Say who it is, for a person."""
        return f"{self.job} (process {self.pid} on {self.host}, since {self.since})"


@contextmanager
def hold(folder: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder; wait for as long as another process that lives does.

    A holder of this machine is dead where its process is gone; one elsewhere, where it gave no sign of life for STALE
    seconds, by this process's own clock.

    Args:
        folder: path or URL; it need not be there yet.
        say: told who is waited for, and when a dead holder's lock is taken over.

    Raises:
        LakeError: the folder can't be written.
    """
    url = lake.join(folder, FILE)
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
            lake.remove(url)


def holder(folder: str) -> Holder | None:
    """Return who holds the lock of a folder, dead or alive, or None."""
    return _read(lake.join(folder, FILE))


def _claim(url: str, say: Callable[[str], None]) -> Holder:
    """Wait until the lock is free or its holder dead, and take it."""
    seen: tuple[str, int] | None = None  # last sign of life of the holder, and when it was seen
    heard = said = -_SAY_EVERY
    while True:
        current, now = _read(url), time.monotonic()
        if current is not None and (current.token, current.beat) != seen:
            seen, heard = (current.token, current.beat), now
        if current is None or gone(current) or now - heard > STALE:
            if current is not None:
                say(f"  its lock is taken over from {current}, which is dead")
            mine = _myself()
            lake.write_json(url, asdict(mine))
            time.sleep(_SETTLE[not stores.is_url(url)])
            if _same(_read(url), mine):
                return mine
            continue
        if now - said >= _SAY_EVERY:
            said = now
            say(f"  waiting for {current}, which is building it; it is taken over after {STALE:.0f} s without a beat")
        time.sleep(_POLL)


def _beat(url: str, mine: Holder, stop: threading.Event) -> None:
    """Renew a lock until told to stop, or until another process has taken it over from one thought dead."""
    beat = 0
    while not stop.wait(BEAT):
        try:
            if not _same(_read(url), mine):
                return
            beat += 1
            lake.write_json(url, {**asdict(mine), "beat": beat})
        except LakeError:
            continue  # a store that is away for a moment; the work itself says so if it stays away


def _read(url: str) -> Holder | None:
    try:
        return Holder(**lake.read_json(url)) if lake.exists(url) else None
    except LakeError:  # removed between the two
        return None
    except (json.JSONDecodeError, TypeError) as error:
        raise LakeError(f"{url} is no lock of this mammoflow ({error}); remove it if no job is running") from error


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
    """Tell whether a holder's process is no more; False where that can't be known from here."""
    if holder.place != _place():
        return False
    try:
        process = psutil.Process(holder.pid)
        return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - holder.born) > _CLOCK)
    except psutil.NoSuchProcess:
        return True


def _place() -> str:
    """Name the machine's boot and the namespace of process ids, where the kernel tells; containers share the former."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
