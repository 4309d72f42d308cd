"""GET /v1/blobs/{digest}: a device fetches a file of a release of its own, from the byte that it lacks.

A bounded number of files go out at the same time, one to each device, and all together no faster than a rate. What a
device gets is what the artifact's file held when it was checked; the device verifies it all the same.
"""

import asyncio
import os
import random
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.errors import InventoryError
from edgectl.hub import refusals
from edgectl.hub.journal import Journal
from edgectl.hub.refusals import Refusal
from edgectl.hub.sources import SourceMissing, Sources
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import TokenOwner
from edgectl.transport.pace import Pace

MOST_FILES = 16
"""That go out at the same time."""
_LARGEST_CHUNK, _SMALLEST_CHUNK = 256 * 1024, 4 * 1024
_PATIENCE = 60.0
"""Seconds in which a device has to take one chunk."""
_WAIT_FOR_SOURCE = 8.0
"""Seconds that a request waits for a file that the hub is fetching."""
_COME_BACK = (5, 20)
"""Seconds after which a device is asked to come again, not all at the same moment."""
_TROUBLE = 60
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?", re.ASCII)

Authority = Callable[[Request], Awaitable[TokenOwner]]
Message = dict[str, object]


class _Stopped(Exception):
    """The hub stops while it waits to be allowed to send."""


@dataclass(frozen=True)
class _Part:
    """What is sent of a file: `size` is the whole, `start` and `end` (exclusive) are bytes."""

    size: int
    start: int
    end: int
    whole: bool


class Files:
    """`owner` says whose token a request shows, or raises Refusal. `rate` is in bytes a second, for all together."""

    def __init__(
        self,
        repository: Repository,
        owner: Authority,
        journal: Journal,
        sources: Sources,
        rate: int | None = None,
        most: int = MOST_FILES,
    ) -> None:
        self._repository = repository
        self._owner = owner
        self._journal = journal
        self._sources = sources
        self._most = most
        self._stopping = threading.Event()
        self._pace = Pace(rate, pause=self._pause)
        self._chunk = max(_SMALLEST_CHUNK, min(_LARGEST_CHUNK, rate // most if rate else _LARGEST_CHUNK))
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="hub-files")
        self._reading = ThreadPoolExecutor(most, thread_name_prefix="hub-reading")
        self._going: dict[str, _Sending] = {}
        # Spreads load over time; nothing secret depends on it.
        self._chance = random.Random()  # noqa: S311

    def close(self) -> None:
        """Ends what is being sent; the devices go on from there."""
        self._stopping.set()
        self._sources.close()
        self._looking.shutdown(cancel_futures=True)
        self._reading.shutdown(cancel_futures=True)

    async def blob(self, request: Request) -> Response:
        device = None
        try:
            device = (await self._owner(request)).device
            return await self._open(request, device)
        except Refusal as refusal:
            refusal.device = device
            refusal.asked = "a request for a file"
            raise

    async def _open(self, request: Request, device: str) -> Response:
        digest = request.path_params["digest"]
        if not digests.is_digest(digest):
            raise refusals.no_such_blob()
        artifact, file = await self._entitled(device, digest)
        part = _part(request.headers.get("range"), file.size)
        earlier = self._going.pop(device, None)
        if earlier is not None:
            # It has lost that connection, or it would not ask again.
            earlier.end()
        self._refuse_when_full()
        doubt = "no-cache" in request.headers.get("cache-control", "")
        try:
            path = await self._sources.path(artifact, digest, _WAIT_FOR_SOURCE, doubt=doubt)
            descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except TimeoutError:
            raise refusals.being_fetched(self._later()) from None
        except (SourceMissing, OSError) as error:
            why = error.message if isinstance(error, SourceMissing) else f"{file.name}: {error.strerror}"
            raise refusals.no_source(_TROUBLE + self._later(), why) from None
        try:
            # Others may have come while this one waited.
            self._refuse_when_full()
        except Refusal:
            os.close(descriptor)
            raise
        sending = _Sending(self, device, descriptor, digest, part)
        self._going[device] = sending
        self._journal.handing_out(device, file.name, part.start)
        return sending

    async def _entitled(self, device: str, digest: str) -> tuple[Artifact, BlobRef]:
        run = asyncio.get_running_loop().run_in_executor
        try:
            artifact = await run(self._looking, self._repository.artifact_with, device, digest)
        except InventoryError as error:
            raise refusals.inventory_trouble(_TROUBLE, error.message) from None
        if artifact is None:
            raise refusals.no_such_blob()
        return artifact, next(file for file in artifact.files if file.digest == digest)

    def _refuse_when_full(self) -> None:
        if len(self._going) >= self._most:
            raise refusals.many_files(self._later())

    def _later(self) -> int:
        return self._chance.randint(*_COME_BACK)

    # -- for what is being sent --------------------------------------------------------------------------

    async def read(self, descriptor: int, offset: int, end: int) -> bytes:
        """The next bytes of a file, at the moment when they may be sent."""
        run = asyncio.get_running_loop().run_in_executor
        return await run(self._reading, self._read, descriptor, offset, min(self._chunk, end - offset))

    def _read(self, descriptor: int, offset: int, size: int) -> bytes:
        self._pace.take(size)
        return os.pread(descriptor, size, offset)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def gone(self, sending: "_Sending") -> None:
        if self._going.get(sending.device) is sending:
            del self._going[sending.device]


class _Sending(Response):
    """A part of a file on its way out. An answer that is cut short closes its connection."""

    def __init__(self, files: Files, device: str, descriptor: int, digest: str, part: _Part) -> None:
        super().__init__(status_code=200 if part.whole else 206, media_type="application/octet-stream")
        self.device = device
        self._files = files
        self._descriptor = descriptor
        self._part = part
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self.headers["content-length"] = str(part.end - part.start)
        self.headers["etag"] = f'"{digest}"'
        self.headers["accept-ranges"] = "bytes"
        if not part.whole:
            self.headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{part.size}"

    def end(self) -> None:
        """Sends no more of it."""
        self._over = True
        if self._task is not None:
            self._task.cancel()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._over:
                return
            self._task = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            await asyncio.wait((self._task, leaving), return_when=asyncio.FIRST_COMPLETED)
            for task in (self._task, leaving):
                task.cancel()
            await asyncio.gather(self._task, leaving, return_exceptions=True)
        finally:
            self._files.gone(self)
            # A read that is still under way in its thread is one that nobody looks at any more.
            os.close(self._descriptor)

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        offset = self._part.start
        while offset < self._part.end:
            chunk = await self._files.read(self._descriptor, offset, self._part.end)
            if not chunk:
                return
            offset += len(chunk)
            async with asyncio.timeout(_PATIENCE):
                more = offset < self._part.end
                await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(header: str | None, size: int) -> _Part:
    """What a Range header asks for of a file; without one, or with one of another form, the whole. Raises Refusal."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return _Part(size, 0, size, whole=True)
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if not 0 <= start < end:
        raise refusals.no_such_part(size)
    return _Part(size, start, end, whole=False)
