"""Blobs by digest: received in pieces, resumed after any interruption, in place only when verified.

    blobs/<2 hex>/<64 hex>    complete, verified, read-only
    partial/<64 hex>          what has arrived so far of a blob, see `partial`
    views/<64 hex>/<name>     hard links under their own names, for an artifact split into several files
    noted/<64 hex>            what a blob's file looked like when it was last verified, and when that was
    going/                    what was pruned and is not deleted yet: out of sight at once, however large it is

Plain blocking code; a caller in asyncio uses `to_thread`. Several processes may share a root.
"""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact
from agent_daemon.errors import BlobsMissing, Conflict
from agent_daemon.partial import Partial, Places, claim, free_bytes, hex_of, look_of, note, open_partial

_MOMENT = 10.0
"""Seconds without a byte after which a transfer no longer counts as going on."""


@dataclass(frozen=True)
class Contents:
    """What is here, whole and in part, with the bytes that it takes."""

    blobs: Mapping[str, int]
    partials: Mapping[str, int]


class Store:
    """The blobs under one root folder. Digests are canonical (`sha256:…`); sizes and offsets are bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._places = Places(str(root))
        self._places.make()
        self._blobs = Path(self._places.blobs)
        self._partials = Path(self._places.partials)
        self._views = Path(self._places.views)
        self._going = root / "going"
        self._going.mkdir(exist_ok=True)
        self._swarm = root / "swarm"
        self._reading = threading.Lock()
        self._damaged: set[str] = set()
        self.damages = 0
        """How often a damaged blob was found."""
        self._looks: dict[str, str] = {}
        """As what is noted, for when the disk is too full for notes."""

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises UsageProblem for text that is not a digest."""
        return Path(self._places.blob(digest))

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here. It was verified when it arrived; see `verify`."""
        return self.path(digest).is_file()

    def offset(self, digest: str) -> int:
        """Bytes held of a blob that has not arrived completely; 0 when there are none."""
        try:
            return self._partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def free(self) -> int:
        """Bytes that the file system of the blobs has left for this user; some of them stay free, see `RESERVE`."""
        return free_bytes(self._places.partials)

    def receiving(self, digest: str) -> bool:
        """Whether somebody is writing this blob right now."""
        path = self._partial_path(digest)
        if not path.exists():
            return False
        try:
            os.close(claim(str(path), digest))
        except Conflict:
            return True
        return False

    def arriving(self) -> bool:
        """Whether bytes of some blob have come within the last moments."""
        recent = time.time() - _MOMENT
        with suppress(FileNotFoundError):
            return any(path.stat().st_mtime >= recent for path in self._partials.iterdir())
        return False

    def verify(self, digest: str) -> bool:
        """Whether the blob is here and still has its digest. Reads all of it; deletes nothing."""
        try:
            with self.path(digest).open("rb") as file:
                return digests.of_stream(file) == digest
        except FileNotFoundError:
            return False

    def open_partial(self, digest: str, size: int, offset: int) -> Partial:
        """Begins or resumes receiving a blob, see `partial.open_partial`."""
        return open_partial(self._places, digest, size, offset)

    def discard(self, digest: str) -> None:
        """Deletes a damaged blob, and the views with it, so that it can be sent again."""
        self.set_aside((digest,), ())
        self.empty()

    # -- integrity ---------------------------------------------------------------------------------------

    def changed(self, digest: str) -> bool:
        """Whether a blob's file is another one, or was written to, since it was verified. False where it is not
        here, or nobody noted how it was. Costs next to nothing."""
        noted = self._noted(digest)
        try:
            look = look_of(self.path(digest).stat())
        except FileNotFoundError:
            return False
        return noted is not None and look not in (noted[0], self._looks.get(digest))

    def noted_at(self, digest: str) -> float:
        """When a blob was last read and found right, in seconds since the epoch; 0 where that is not known."""
        noted = self._noted(digest)
        return noted[1] if noted else 0.0

    def sound(self, digest: str) -> bool:
        """Whether the blob is here and has not been damaged. One that changed is read again, all of it: damaged, it is
        deleted, so that it is missing and sent again. Raises OSError when it cannot be read for another reason."""
        if not self.has(digest):
            return False
        if not self.changed(digest):
            return True
        with self._reading:
            # Somebody else may have read it meanwhile.
            if not self.changed(digest):
                return self.has(digest)
            try:
                with self.path(digest).open("rb", buffering=0) as file:
                    before = os.fstat(file.fileno())
                    return self.confirm(digest, _content(file), before)
            except FileNotFoundError:
                return False

    def confirm(self, digest: str, content: str | None, before: os.stat_result) -> bool:
        """Takes note of the digest that a blob's content turned out to have, and what its file looked like `before` it
        was read; None: the disk is broken there. Deletes a damaged blob, unless it is another file by now. Whether
        the blob is here and sound."""
        if content == digest:
            self._looks[digest] = look_of(before)
            note(self._places, digest, before)
        elif _identity(self.path(digest)) == (before.st_dev, before.st_ino):
            self._damaged.add(digest)
            self.damages += 1
            self.discard(digest)
        return self.has(digest)

    @property
    def damaged(self) -> tuple[str, ...]:
        """Blobs that were found damaged, as long as they are not here again. Sorted."""
        return tuple(sorted(digest for digest in tuple(self._damaged) if not self.has(digest)))

    def _noted(self, digest: str) -> tuple[str, float] | None:
        try:
            with open(self._places.note(digest)) as file:
                look, _, at = file.read().rpartition(" ")
            return look, float(at)
        except (FileNotFoundError, ValueError):
            return None

    # -- models ------------------------------------------------------------------------------------------

    def model_path(self, artifact: Artifact) -> Path:
        """The file to load an artifact from: the first of its parts, beside the others where it is split
        (llama.cpp finds them by name). Raises BlobsMissing naming the digests that are not here or damaged."""
        missing = [file.digest for file in artifact.files if not self.sound(file.digest)]
        if missing:
            raise BlobsMissing(f"{artifact.ref} is not complete on this device: missing {', '.join(missing)}")
        if len(artifact.files) == 1:
            return self.path(artifact.files[0].digest)
        view = self._views / hex_of(artifact.digest)
        view.mkdir(exist_ok=True)
        for file in artifact.files:
            _link(self.path(file.digest), view / file.name)
        return view / artifact.files[0].name

    # -- pruning -----------------------------------------------------------------------------------------

    def digests(self) -> tuple[str, ...]:
        """Digests of all complete blobs, sorted."""
        return tuple(
            sorted(_digest_of(path) for path in self._blobs.glob("*/*") if digests.is_hex(path.name))
        )

    def contents(self) -> Contents:
        """What is here. Never counts files that are not the store's own."""
        return Contents(
            {_digest_of(path): _size(path) for path in self._blobs.glob("*/*") if digests.is_hex(path.name)},
            {_digest_of(path): _size(path) for path in self._partials.iterdir() if digests.is_hex(path.name)},
        )

    def set_aside(self, blobs: Iterable[str], partials: Iterable[str]) -> None:
        """Takes blobs, partial ones, and the views of either out of sight, to be deleted by `empty`. What is gone
        already is fine, and a blob that is being received right now stays. A model in use keeps its memory: the kernel
        frees the bytes when the last user is done."""
        going = {
            path: identity for path in map(self.path, blobs) if (identity := _identity(path)) is not None
        }
        for view in self._view_folders():
            if any(_identity(file) in going.values() for file in view.iterdir()):
                view.rename(self._aside(view))
        for path in going:
            second = self._swarm / path.name
            if _identity(second) == going[path]:
                second.unlink(missing_ok=True)
            Path(self._places.note(_digest_of(path))).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                path.rename(self._aside(path))
        for digest in partials:
            path = self._partial_path(digest)
            if path.exists():
                with suppress(Conflict):
                    descriptor = claim(str(path), digest)
                    try:
                        path.rename(self._aside(path))
                    finally:
                        os.close(descriptor)

    def empty(self) -> None:
        """Deletes what was set aside, also by an agent before this one. Takes time where it is large."""
        for path in self._going.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _aside(self, path: Path) -> Path:
        return self._going / f"{path.name}.{time.monotonic_ns()}"

    def _partial_path(self, digest: str) -> Path:
        return Path(self._places.partial(digest))

    def _view_folders(self) -> list[Path]:
        return [path for path in self._views.iterdir() if digests.is_hex(path.name) and path.is_dir()]


def _link(blob: Path, name: Path) -> None:
    """Makes `name` a hard link of `blob`, also where an older attempt left something else under it."""
    with suppress(FileExistsError):
        name.hardlink_to(blob)
        return
    if not name.samefile(blob):
        name.unlink()
        name.hardlink_to(blob)


def _digest_of(path: Path) -> str:
    return f"sha256:{path.name}"


def _content(file: FileIO) -> str | None:
    try:
        return digests.of_stream(file)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
