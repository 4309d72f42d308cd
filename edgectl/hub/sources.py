"""Where the hub has the files that it hands out: found or fetched once for all who ask, and looked at again when they
change. For one event loop."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent_daemon.contract.release import Artifact
from edgectl import catalog
from edgectl.errors import CatalogError, EdgectlError

_AT_ONCE = 2
"""Artifacts that are fetched or checked side by side."""
_MEMORY_OF_FAILURE = 30.0
"""Seconds for which a failure is the answer for everybody: a fleet must not make the hub read a disk in circles."""
_DOUBT_AGAIN = 60.0
"""Seconds within which a file that was read whole is not read again because somebody doubts it."""

_log = logging.getLogger(__name__)
Fetch = Callable[[Artifact, catalog.Progress], tuple[Path, ...]]
Look = tuple[int, int, int]


class SourceMissing(EdgectlError):
    """The hub's copy of a file cannot be had, or is not what was pinned. For the hub's own log."""


class _Stopping(Exception):
    pass


@dataclass(frozen=True)
class _Known:
    path: Path
    look: Look
    checked: float


class Sources:
    """Paths of blobs by digest. `clock` is monotonic, in seconds."""

    def __init__(self, fetch: Fetch = catalog.fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._under_way: dict[str, asyncio.Task[dict[str, _Known]]] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._closing = threading.Event()

    def close(self) -> None:
        """Ends what is being fetched; it goes on from there another time."""
        self._closing.set()

    async def path(self, artifact: Artifact, digest: str, patience: float, *, doubt: bool = False) -> Path:
        """The file with this digest of an artifact, checked. `doubt`: what came from it was wrong, so it is read again.

        Raises TimeoutError when it is still being fetched after `patience` seconds, which goes on, and SourceMissing.
        """
        known = self._known.get(digest)
        if known is not None and doubt and self._clock() - known.checked > _DOUBT_AGAIN:
            await asyncio.to_thread(catalog.doubt, known.path)
            known = None
        if known is not None and await asyncio.to_thread(_look, known.path) == known.look:
            return known.path
        self._known.pop(digest, None)
        until, why = self._failed.get(artifact.digest, (0.0, ""))
        if self._clock() < until:
            raise SourceMissing(why)
        task = self._under_way.get(artifact.digest)
        if task is None:
            task = asyncio.create_task(self._bring(artifact))
            self._under_way[artifact.digest] = task
            task.add_done_callback(lambda ended: self._ended(artifact.digest, ended))
        async with asyncio.timeout(patience):
            found = await asyncio.shield(task)
        return found[digest].path

    def _ended(self, artifact: str, task: "asyncio.Task[dict[str, _Known]]") -> None:
        self._under_way.pop(artifact, None)
        if not task.cancelled():
            # Whoever waited has it; if nobody did, it is remembered.
            task.exception()

    async def _bring(self, artifact: Artifact) -> dict[str, _Known]:
        async with self._turn:
            try:
                found = await _in_thread(lambda: self._found(artifact))
            except EdgectlError as error:
                self._failed[artifact.digest] = (self._clock() + _MEMORY_OF_FAILURE, error.message)
                raise SourceMissing(error.message, error.hint) from None
        self._failed.pop(artifact.digest, None)
        self._known.update(found)
        return found

    def _found(self, artifact: Artifact) -> dict[str, _Known]:
        def progress(*_: object, **__: object) -> None:
            if self._closing.is_set():
                raise _Stopping

        paths = self._fetch(artifact, progress)
        found = {}
        for file, path in zip(artifact.files, paths, strict=True):
            look = _look(path)
            if look is None or look[0] != file.size:
                raise CatalogError(f"{path}: expected {file.size} bytes, it changed a moment ago")
            found[file.digest] = _Known(path, look, self._clock())
        return found


def _look(path: Path) -> Look | None:
    """What changes when a file's content is written; None when it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


async def _in_thread(work: Callable[[], dict[str, _Known]]) -> dict[str, _Known]:
    """In a thread that the end of the process does not wait for: a download may take hours."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[dict[str, _Known]] = loop.create_future()

    def settle(result: dict[str, _Known] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if result is not None:
            done.set_result(result)
        else:
            assert error is not None
            done.set_exception(error)

    def body() -> None:
        result: dict[str, _Known] | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except EdgectlError as error:
            failure = error
        except BaseException as error:  # noqa: BLE001
            # Only its kind: the text of an unforeseen error may hold anything.
            failure = SourceMissing(f"a file could not be fetched: {type(error).__name__}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=body, name="hub-fetching", daemon=True).start()
    return await done
