"""A blob on its way in: claimed by one writer, resumed at the byte, verified, and then in its place.

Imports little: `edgectl-agent receive` starts once for every blob that is sent. Places are texts for that reason.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time

from agent_daemon.contract import digest as digests
from agent_daemon.errors import Conflict, DigestMismatch, NoSpace, UsageProblem
from agent_daemon.hashing import HashBeside, feed
from agent_daemon.writeback import WriteBack

# Not from typing, see `contract.digest`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Self

EMPTY = "sha256:" + hashlib.sha256().hexdigest()
RESERVE = 64 * 1024 * 1024
"""Bytes of the disk that blobs leave free, for the journal, the spool and the rest of the machine."""
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Places:
    """Where the blobs under one root folder are, as `store` describes it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.blobs = os.path.join(root, "blobs")
        self.partials = os.path.join(root, "partial")
        self.views = os.path.join(root, "views")
        self.noted = os.path.join(root, "noted")

    def make(self) -> None:
        """The folders, where they are not there yet."""
        for folder in (self.blobs, self.partials, self.views, self.noted):
            os.makedirs(folder, exist_ok=True)

    def blob(self, digest: str) -> str:
        """Raises UsageProblem for text that is not a digest; so does `partial`."""
        name = hex_of(digest)
        return os.path.join(self.blobs, name[:2], name)

    def partial(self, digest: str) -> str:
        return os.path.join(self.partials, hex_of(digest))

    def note(self, digest: str) -> str:
        return os.path.join(self.noted, hex_of(digest))


def hex_of(digest: str) -> str:
    """The 64 digits. Raises UsageProblem for text that is not a digest."""
    try:
        return digests.hex_of(digest)
    except ValueError as error:
        raise UsageProblem(f"{error}") from error


def free_bytes(folder: str) -> int:
    """What the file system of a folder has left for whoever is not root."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Partial:
    """One blob on its way in, for one thread at a time. Leaving it as a context keeps what has arrived.

    A chunk that was written is hashed in a thread beside: see `HashBeside` for how long it must stay as it is.
    """

    def __init__(self, digest: str, size: int, places: Places, descriptor: int) -> None:
        self.digest = digest
        self.size = size
        self._places = places
        self._path = places.partial(digest)
        self._target = places.blob(digest)
        self._descriptor = descriptor
        self._offset = 0
        self._hash = HashBeside()
        self._writeback = WriteBack(descriptor)

    @property
    def offset(self) -> int:
        """Bytes held so far."""
        return self._offset

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Appends bytes. Raises DigestMismatch when they exceed the size (the partial is then deleted), and
        NoSpace when the disk is full: what fitted is kept, and counted in `offset`."""
        if self._offset + len(chunk) > self.size:
            self._delete()
            raise DigestMismatch(
                f"{self.digest} was announced with {self.size} bytes and more were sent "
                f"({self._offset + len(chunk)} so far); what had arrived is deleted"
            )
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except OSError as error:
                self._raise_space(error)
            self._hash.update(rest[:written])
            self._offset += written
            self._writeback.wrote(written)
            rest = rest[written:]

    def finish(self) -> str:
        """Verifies size and digest and puts the blob in its place, durably; closes this writer.

        Raises DigestMismatch naming what was expected and what came (the partial is then deleted), NoSpace.
        """
        got = f"sha256:{self._hash.hexdigest()}"
        if self._offset != self.size or got != self.digest:
            self._delete()
            raise DigestMismatch(
                f"expected {self.digest} of {self.size} bytes and got {got} of {self._offset} bytes; "
                "what had arrived is deleted",
                hint="Send it again; if that fails the same way, the file at its source has changed.",
            )
        try:
            self._writeback.close()
            os.fsync(self._descriptor)
        except OSError as error:
            self._raise_space(error)
        folder = os.path.dirname(self._target)
        os.makedirs(folder, exist_ok=True)
        note(self._places, self.digest, os.fstat(self._descriptor))
        os.rename(self._path, self._target)
        # Not before: a crash in between would leave a partial that nobody could resume.
        os.fchmod(self._descriptor, 0o444)
        for changed in (folder, self._places.blobs, self._places.partials):
            _sync_folder(changed)
        self._release()
        return self._target

    def close(self) -> None:
        """Stops, keeping what has arrived for a later `open_partial`. Nothing happens the second time."""
        if self._descriptor >= 0:
            # Not to lose hours of transfer to a power cut right after it. Failing at it loses only that.
            try:
                self._writeback.close()
                os.fsync(self._descriptor)
            except OSError:
                pass
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume(self, offset: int) -> None:
        """Takes up what is held; see `open_partial`."""
        if os.path.isfile(self._target):
            self._delete()
            raise Conflict(f"{self.digest} is here already; nothing has to be sent")
        held = os.fstat(self._descriptor).st_size
        if held > self.size:
            self._delete()
            raise DigestMismatch(
                f"{held} bytes were held of {self.digest}, which has {self.size}; they are deleted: send all"
            )
        if offset != held:
            raise Conflict(
                f"{held} bytes of {self.digest} are held and the sender starts at {offset}; send from {held}"
            )
        needed, free = self.size - held, free_bytes(self._places.partials)
        if needed > max(free - RESERVE, 0):
            raise self._no_space(needed, free)
        self._offset = feed(self._descriptor, held, self._hash)

    def _raise_space(self, error: OSError) -> NoReturn:
        """As what it means for the blob, where the disk is full."""
        if error.errno not in _OUT_OF_SPACE:
            raise error
        raise self._no_space(self.size - self._offset, free_bytes(self._places.partials)) from error

    def _no_space(self, needed: int, free: int) -> NoSpace:
        return NoSpace(
            f"{self.digest} needs {needed} more bytes and {free} are free at {self._places.root}, "
            f"of which {RESERVE} stay free",
            hint="Free disk space on the device, or prune releases that it no longer needs: edgectl prune NAME",
        )

    def _delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._release()

    def _release(self) -> None:
        """Closing gives up the claim too, whichever way this process ends."""
        self._hash.close()
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._writeback.close()
            os.close(self._descriptor)
            self._descriptor = -1


def open_partial(places: Places, digest: str, size: int, offset: int) -> Partial:
    """Begins or resumes receiving a blob of `size` bytes at `offset`; what is held is hashed first.

    Raises Conflict when `offset` is not what is held, when somebody else is writing this blob, or when it
    is complete already; NoSpace when the rest would not leave `RESERVE` free; DigestMismatch for the
    digest of an empty file, or when more is held than the blob has (that is then deleted); UsageProblem
    for text that is not a digest.
    """
    path = places.partial(digest)
    if digest == EMPTY or size < 1:
        raise DigestMismatch(f"{digest} with a size of {size} is refused: an empty file is never a model")
    partial = Partial(digest, size, places, claim(path, digest))
    try:
        partial.resume(offset)
    except BaseException:
        partial.close()
        raise
    return partial


def claim(path: str, digest: str) -> int:
    """Opens a partial for this writer alone, creating it. Raises Conflict when another one has it.

    The kernel's lock ends with its holder, so no crash leaves a stale one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other writer may have finished or deleted it between the two calls above.
        ours = os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except BaseException:
        os.close(descriptor)
        raise
    if not ours:
        os.close(descriptor)
        raise Conflict(f"{digest} is being received already; wait for that, or ask again what is held")
    return descriptor


def note(places: Places, digest: str, verified: os.stat_result) -> None:
    """Keeps what a blob's file looked like when its digest was seen to be right, which is now. Not synced: a note that
    a power cut took only costs reading the blob once more."""
    path = places.note(digest)
    # Nor does a full disk keep a blob from being used.
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{look_of(verified)} {int(time.time())}\n".encode())
        finally:
            os.close(descriptor)
        os.rename(f"{path}.new", path)


def look_of(found: os.stat_result) -> str:
    """What changes when a file's content does: its size, when it was written, and whether it is another file."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
