"""Blobs that are damaged after they were verified are noticed: by what their files look like often, by reading them now
and then. A damaged blob is deleted, so that it is missing, said to be, and sent again."""

import asyncio
import errno
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from io import FileIO

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.errors import Conflict
from agent_daemon.store import Store

LOOK_SECONDS = 15.0
"""From one look at all files to the next."""
SCRUB_SECONDS = 7 * 86400.0
"""After so long a blob is read again, changed or not."""
SCRUB_RATE = 16 * 1024 * 1024
"""Bytes a second at which that is done, while no request is being answered."""
_CHUNK = 1024 * 1024
_PATIENCE = 20.0
_log = logging.getLogger(__name__)


class Integrity:
    """`busy` says whether requests are being answered; `found` is awaited when damage was found."""

    def __init__(
        self,
        store: Store,
        busy: Callable[[], bool],
        found: Callable[[], Awaitable[None]],
        *,
        rate: int = SCRUB_RATE,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._store = store
        self._busy = busy
        self._found = found
        self._rate = rate
        self._look_seconds = look_seconds
        self._told = store.damages

    async def settle(self, release: DeviceRelease) -> None:
        """Returns when no blob of a release is in doubt: those that changed have been read again, and the damaged ones
        are gone. Raises Conflict when that takes longer than a caller would wait; it goes on meanwhile."""
        doubtful = [blob.digest for blob in release.blobs() if self._store.changed(blob.digest)]
        if not doubtful:
            return
        reading = asyncio.create_task(self._read_again(doubtful))
        done, _ = await asyncio.wait({reading}, timeout=_PATIENCE)
        if not done:
            raise Conflict(
                f"{len(doubtful)} files of {release.label} have changed on the device and are being read again",
                "try again when that is done; it takes seconds for each GiB",
            )
        await reading

    async def watch(self) -> None:
        """Looks at all files now and then, until cancelled."""
        while True:
            digests = await asyncio.to_thread(self._store.digests)
            changed = [digest for digest in digests if self._store.changed(digest)]
            if changed:
                await self._read_again(changed)
            await self._tell()
            await asyncio.sleep(self._look_seconds)

    async def scrub(self) -> None:
        """Reads all blobs again, one after another, each when its time has come, until cancelled."""
        while True:
            for digest in await asyncio.to_thread(self._due):
                await self._scrub_one(digest)
            await asyncio.sleep(self._look_seconds)

    def _due(self) -> list[str]:
        """What was not read for longest comes first. A time in the future is none: the clock was set back."""
        now = time.time()
        ages = {digest: now - self._store.noted_at(digest) for digest in self._store.digests()}
        due = [digest for digest, age in ages.items() if not 0 <= age < SCRUB_SECONDS]
        return sorted(due, key=lambda digest: -ages[digest])

    async def _scrub_one(self, digest: str) -> None:
        state = hashlib.sha256()
        try:
            with self._store.path(digest).open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                while size := await asyncio.to_thread(_hash_some, file, state):
                    await asyncio.sleep(size / self._rate)
                    while self._busy():  # noqa: ASYNC110 (it may be busy again before an event would be seen)
                        await asyncio.sleep(1.0)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read: %s", digest, error.strerror)
            if error.errno != errno.EIO:
                return
            content = None
        else:
            content = f"sha256:{state.hexdigest()}"
        await asyncio.to_thread(self._store.confirm, digest, content, before)
        await self._tell()

    async def _read_again(self, digests: list[str]) -> None:
        for digest in digests:
            try:
                await asyncio.to_thread(self._store.sound, digest)
            except OSError as error:
                _log.warning("%s cannot be read: %s", digest, error.strerror)
        await self._tell()

    async def _tell(self) -> None:
        if self._store.damages > self._told:
            self._told = self._store.damages
            for digest in self._store.damaged:
                _log.error(
                    "%s was damaged on this device's disk: it is deleted, and has to be sent again", digest
                )
            await self._found()


def _hash_some(file: FileIO, state: "hashlib._Hash") -> int:
    """Reads and hashes the next bytes; how many."""
    data = file.read(_CHUNK)
    state.update(data)
    return len(data)
