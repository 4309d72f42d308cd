"""Blobs by digest: received in pieces, resumed after any interruption, in place only when verified.

    blobs/<2 hex>/<64 hex>    complete, verified, read-only
    partial/<64 hex>          what has arrived so far of a blob
    views/<64 hex>/<name>     hard links under their own names, for an artifact split into several files

Plain blocking code; a caller in asyncio uses `to_thread`. Several processes may share a root.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact
from agent_daemon.errors import BlobsMissing, Conflict, DigestMismatch, NoSpace, UsageProblem

EMPTY = digests.of_bytes(b"")
RESERVE = 64 * 1024 * 1024
"""Bytes of the disk that blobs leave free, for the journal, the spool and the rest of the machine."""

_HEX = re.compile(r"[0-9a-f]{64}")
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class PrunePlan:
    """What `prune` would delete, and the bytes on disk that it would free."""

    blobs: tuple[str, ...] = ()
    partials: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    """Names of folders under views/."""
    bytes: int = 0


class Store:
    """The blobs under one root folder. Digests are canonical (`sha256:…`); sizes and offsets are bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._partials = root / "partial"
        self._views = root / "views"
        for folder in (self._blobs, self._partials, self._views):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises UsageProblem for text that is not a digest."""
        name = _hex(digest)
        return self._blobs / name[:2] / name

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here. It was verified when it arrived; see `verify`."""
        return self.path(digest).is_file()

    def offset(self, digest: str) -> int:
        """Bytes held of a blob that has not arrived completely; 0 when there are none."""
        try:
            return self._partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def verify(self, digest: str) -> bool:
        """Whether the blob is here and still has its digest. Reads all of it; deletes nothing."""
        try:
            with self.path(digest).open("rb") as file:
                return digests.of_stream(file) == digest
        except FileNotFoundError:
            return False

    def open_partial(self, digest: str, size: int, offset: int) -> "Partial":
        """Begins or resumes receiving a blob of `size` bytes at `offset`; what is held is hashed first.

        Raises Conflict when `offset` is not what is held, when somebody else is writing this blob, or when it
        is complete already; NoSpace when the rest would not leave `RESERVE` free; DigestMismatch for the
        digest of an empty file, or when more is held than the blob has (that is then deleted); UsageProblem
        for text that is not a digest.
        """
        path = self._partial_path(digest)
        if digest == EMPTY or size < 1:
            raise DigestMismatch(f"{digest} with a size of {size} is refused: an empty file is never a model")
        descriptor = _claim(path, digest)
        partial = Partial(digest, size, path, self.path(digest), descriptor)
        try:
            partial._resume(offset)
        except BaseException:
            partial.close()
            raise
        return partial

    def discard(self, digest: str) -> None:
        """Deletes a blob that `verify` found damaged, and the views with it, so that it can be sent again."""
        path = self.path(digest)
        with suppress(FileNotFoundError):
            damaged = _identity(path)
            for view in self._view_folders():
                if any(_identity(file) == damaged for file in view.iterdir()):
                    shutil.rmtree(view)
            path.unlink()

    # -- models ------------------------------------------------------------------------------------------

    def model_path(self, artifact: Artifact) -> Path:
        """The file to load an artifact from: the first of its parts, beside the others where it is split
        (llama.cpp finds them by name). Raises BlobsMissing naming the digests that are not here."""
        missing = [file.digest for file in artifact.files if not self.has(file.digest)]
        if missing:
            raise BlobsMissing(f"{artifact.ref} is not complete on this device: missing {', '.join(missing)}")
        if len(artifact.files) == 1:
            return self.path(artifact.files[0].digest)
        view = self._views / _hex(artifact.digest)
        view.mkdir(exist_ok=True)
        for file in artifact.files:
            _link(self.path(file.digest), view / file.name)
        return view / artifact.files[0].name

    # -- pruning -----------------------------------------------------------------------------------------

    def digests(self) -> tuple[str, ...]:
        """Digests of all complete blobs, sorted."""
        return tuple(
            sorted(_digest_of(path) for path in self._blobs.glob("*/*") if _HEX.fullmatch(path.name))
        )

    def prune_plan(self, keep: frozenset[str]) -> PrunePlan:
        """What is here beyond the digests in `keep`; a split artifact's view goes with any of its blobs.
        Deletes nothing, and never counts files that are not the store's own."""
        blobs = {_digest_of(path): path for path in self._blobs.glob("*/*") if _HEX.fullmatch(path.name)}
        partials = {_digest_of(path): path for path in self._partials.iterdir() if _HEX.fullmatch(path.name)}
        surplus_blobs = sorted(blobs.keys() - keep)
        surplus_partials = sorted(partials.keys() - keep)
        kept = {_identity(path) for digest, path in blobs.items() if digest in keep}
        views = [
            view.name
            for view in self._view_folders()
            if not all(_identity(file) in kept for file in view.iterdir())
        ]
        return PrunePlan(
            blobs=tuple(surplus_blobs),
            partials=tuple(surplus_partials),
            views=tuple(sorted(views)),
            bytes=sum(_on_disk(blobs[digest]) for digest in surplus_blobs)
            + sum(_on_disk(partials[digest]) for digest in surplus_partials),
        )

    def prune(self, plan: PrunePlan) -> None:
        """Deletes what the plan names. What is gone already is fine, and a blob that is being received right
        now stays. A model in use keeps its memory: the kernel frees the bytes when the last user is done."""
        for name in plan.views:
            shutil.rmtree(self._views / name, ignore_errors=True)
        for digest in plan.blobs:
            self.path(digest).unlink(missing_ok=True)
        for digest in plan.partials:
            path = self._partial_path(digest)
            if path.exists():
                with suppress(Conflict):
                    descriptor = _claim(path, digest)
                    try:
                        path.unlink()
                    finally:
                        os.close(descriptor)

    def _partial_path(self, digest: str) -> Path:
        return self._partials / _hex(digest)

    def _view_folders(self) -> list[Path]:
        return [path for path in self._views.iterdir() if _HEX.fullmatch(path.name) and path.is_dir()]


class Partial:
    """One blob on its way in, for one thread at a time. Leaving it as a context keeps what has arrived."""

    def __init__(self, digest: str, size: int, path: Path, target: Path, descriptor: int) -> None:
        self.digest = digest
        self.size = size
        self._path = path
        self._target = target
        self._descriptor = descriptor
        self._offset = 0
        self._hash = hashlib.sha256()

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
        with self._space():
            while rest:
                written = os.write(self._descriptor, rest)
                self._hash.update(rest[:written])
                self._offset += written
                rest = rest[written:]

    def finish(self) -> Path:
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
        with self._space():
            os.fsync(self._descriptor)
        self._target.parent.mkdir(exist_ok=True)
        self._path.rename(self._target)
        # Not before: a crash in between would leave a partial that nobody could resume.
        os.fchmod(self._descriptor, 0o444)
        for folder in (self._target.parent, self._target.parent.parent, self._path.parent):
            _sync_folder(folder)
        self._release()
        return self._target

    def close(self) -> None:
        """Stops, keeping what has arrived for a later `open_partial`. Nothing happens the second time."""
        if self._descriptor >= 0:
            # Not to lose hours of transfer to a power cut right after it. Failing at it loses only that.
            with suppress(OSError):
                os.fsync(self._descriptor)
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, offset: int) -> None:
        if self._target.is_file():
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
        needed, free = self.size - held, self._free()
        if needed > max(free - RESERVE, 0):
            raise self._no_space(needed, free)
        while chunk := os.read(self._descriptor, min(digests.CHUNK, held - self._offset)):
            self._hash.update(chunk)
            self._offset += len(chunk)

    @contextmanager
    def _space(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _OUT_OF_SPACE:
                raise
            raise self._no_space(self.size - self._offset, self._free()) from error

    def _no_space(self, needed: int, free: int) -> NoSpace:
        return NoSpace(
            f"{self.digest} needs {needed} more bytes and {free} are free at {self._path.parent.parent}, "
            f"of which {RESERVE} stay free",
            hint="Free disk space on the device, or prune releases that it no longer needs.",
        )

    def _free(self) -> int:
        return shutil.disk_usage(self._path.parent).free

    def _delete(self) -> None:
        self._path.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        """Closing gives up the claim too, whichever way this process ends."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _claim(path: Path, digest: str) -> int:
    """Opens a partial for this writer alone, creating it. Raises Conflict when another one has it.

    The kernel's lock ends with its holder, so no crash leaves a stale one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other writer may have finished or deleted it between the two calls above.
        ours = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except BaseException:
        os.close(descriptor)
        raise
    if not ours:
        os.close(descriptor)
        raise Conflict(f"{digest} is being received already; wait for that, or ask again what is held")
    return descriptor


def _link(blob: Path, name: Path) -> None:
    """Makes `name` a hard link of `blob`, also where an older attempt left something else under it."""
    with suppress(FileExistsError):
        name.hardlink_to(blob)
        return
    if not name.samefile(blob):
        name.unlink()
        name.hardlink_to(blob)


def _hex(digest: str) -> str:
    try:
        return digests.hex_of(digest)
    except ValueError as error:
        raise UsageProblem(f"{error}") from error


def _digest_of(path: Path) -> str:
    return f"sha256:{path.name}"


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _on_disk(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
