"""What each lab on this machine owns, written down where the next lab finds it.

A lab holds a lock on `/run/edgectl-lab/ID.json` while its process lives. The kernel lets go of the lock when the
process dies, however it dies, so a record without a lock is a lab that nobody cleans up any more: whoever starts
the next one does. Everything a lab owns has a name that follows from its id: network namespaces, control groups,
one folder. Mounts need no cleaning: each machine's are in a mount namespace that ends with it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tests.lab import cgroups, host

RECORDS = Path("/run/edgectl-lab")
STANDING = "standing"
"""The id of the lab that `make lab-up` leaves running: its process ends, its machines go on."""


def name_of(lab_id: str) -> str:
    """What the namespaces and control groups of a lab begin with."""
    return f"edgectl-lab-{lab_id}"


class Ownership:
    """A lab's lock and record. Raises host.LabError when another process has a lab of this id."""

    def __init__(self, lab_id: str, folder: Path) -> None:
        RECORDS.mkdir(mode=0o700, exist_ok=True)
        self._path = RECORDS / f"{lab_id}.json"
        taken = _locked(self._path, create=True)
        if taken is None:
            raise host.LabError(f"a lab called {lab_id} is being made or used by another process")
        self._file = taken
        if self._file.read():
            self._file.close()
            raise host.LabError(f"a lab called {lab_id} stands already: end it with `make lab-down`")
        json.dump({"id": lab_id, "folder": str(folder)}, self._file)
        self._file.flush()

    def leave(self) -> None:
        """Lets go of the lock and keeps the record: the lab stands without its process."""
        self._file.close()

    def end(self) -> None:
        """Removes everything that the lab owns, then the record."""
        _clean(self._file)
        self._path.unlink()
        self._file.close()


def sweep() -> list[str]:
    """Cleans up after labs whose process is gone, and says which. A standing lab with a machine that still runs
    is left alone."""
    swept = []
    for path in sorted(RECORDS.glob("*.json")):
        with _trying(path) as record:
            if record is None or (path.stem == STANDING and cgroups.processes(name_of(STANDING))):
                continue
            _clean(record)
            path.unlink()
            swept.append(path.stem)
    return swept


def tear_down(lab_id: str) -> bool:
    """Removes a lab that stands without its process; False when there is none."""
    path = RECORDS / f"{lab_id}.json"
    if not path.exists():
        return False
    with _trying(path) as record:
        if record is None:
            raise host.LabError(f"the lab called {lab_id} is in use by another process")
        _clean(record)
        path.unlink()
    return True


def network_namespaces(lab_id: str) -> list[str]:
    """The named network namespaces of a lab that exist now."""
    own = name_of(lab_id)
    folder = Path("/run/netns")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(name for name in names if name == own or name.startswith(f"{own}-"))


@contextmanager
def _trying(path: Path) -> Iterator[TextIO | None]:
    record = _locked(path, create=False)
    try:
        yield record
    finally:
        if record is not None:
            record.close()


def _locked(path: Path, *, create: bool) -> TextIO | None:
    """The record's file with its lock held, None when someone else holds it or it is gone."""
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600), "r+")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # Someone may have removed the record between opening and locking: then this lock is on nothing.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def _clean(file: TextIO) -> None:
    file.seek(0)
    text = file.read()
    if not text:
        # Its process died between making the file and writing it: it owns nothing yet.
        return
    record = json.loads(text)
    cgroups.remove(name_of(record["id"]))
    for namespace in network_namespaces(record["id"]):
        host.run(["ip", "netns", "delete", namespace])
    shutil.rmtree(record["folder"], ignore_errors=True)
