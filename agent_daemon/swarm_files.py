"""The files of swarms, in a folder of their own in the store: `swarm/<64 hex>`, pieces in any order, gaps between them.

What was held of a blob before goes in, and what is right from its beginning comes back out, so that a blob may be sent
directly, by a swarm, and directly again. Into its place a blob comes by the store's own way only. Blocking code.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from agent_daemon.errors import Conflict, DigestMismatch, NoSpace
from agent_daemon.partial import RESERVE, Places, claim, free_bytes, hex_of, open_partial

_KEPT_SECONDS = 24 * 3600.0
"""For how long an interrupted swarm's pieces are of use to the next."""


class SwarmFiles:
    """Of the store under `root`. Digests are canonical; sizes are bytes."""

    def __init__(self, root: Path) -> None:
        self._places = Places(str(root))
        self.folder = root / "swarm"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Raises UsageProblem for text that is not a digest."""
        return self.folder / hex_of(digest)

    def prepare(self, digest: str, size: int) -> bool:
        """Makes the file ready to be filled; True when the whole blob is in the store, and the file a second name of
        it. Raises Conflict while the blob is being received directly, and NoSpace."""
        path = self.path(digest)
        with suppress(FileNotFoundError):
            blob = self._places.blob(digest)
            os.stat(blob)
            path.unlink(missing_ok=True)
            os.link(blob, path)
            return True
        held = self._take_over(digest, path)
        needed, free = size - held, free_bytes(str(self.folder))
        if needed > max(free - RESERVE, 0):
            raise NoSpace(
                f"{digest} needs {needed} more bytes and {free} are free at {self._places.root}, of which {RESERVE} stay"
                " free",
                "Free disk space on the device, or prune releases that it no longer needs: edgectl prune NAME",
            )
        return False

    def adopt(self, digest: str, size: int, *, last: bool = False) -> None:
        """Puts a whole file into the store: hashed, synced, renamed as if it had been sent. The file stays as a second
        name of the blob. Raises DigestMismatch (with `last` the file is then deleted), Conflict and NoSpace."""
        path = self.path(digest)
        partial = self._places.partial(digest)
        claimed = claim(partial, digest)
        try:
            second = path.with_suffix(".whole")
            second.unlink(missing_ok=True)
            os.link(path, second)
            os.replace(second, partial)
        finally:
            os.close(claimed)
        try:
            with open_partial(self._places, digest, size, size) as whole:
                whole.finish()
        except DigestMismatch:
            if last:
                path.unlink(missing_ok=True)
            raise

    def hand_back(self, digest: str, prefix: int) -> None:
        """Ends a swarm's file. The first `prefix` bytes of it, if they are more than the store has, are what a direct
        sender goes on from."""
        path = self.path(digest)
        if self._whole(digest) or prefix <= 0:
            path.unlink(missing_ok=True)
            return
        partial = self._places.partial(digest)
        with suppress(Conflict, FileNotFoundError):
            claimed = claim(partial, digest)
            try:
                if os.fstat(claimed).st_size < prefix:
                    os.truncate(path, prefix)
                    os.replace(path, partial)
                elif os.fstat(claimed).st_size == 0:
                    os.unlink(partial)
            finally:
                os.close(claimed)
        path.unlink(missing_ok=True)

    def sweep(self, *, now: float | None = None) -> None:
        """Deletes what no swarm will go on from: files of blobs that have arrived, and old ones."""
        oldest = (time.time() if now is None else now) - _KEPT_SECONDS
        for path in self.folder.iterdir():
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.stat().st_mtime < oldest or self._whole(f"sha256:{path.name[:64]}"):
                    path.unlink()

    def _take_over(self, digest: str, path: Path) -> int:
        """What is held of the blob, in bytes on the disk, after it has become the swarm's."""
        partial = self._places.partial(digest)
        claimed = claim(partial, digest)
        try:
            there = path.stat().st_blocks * 512 if path.exists() else 0
            size = os.fstat(claimed).st_size
            if size > there:
                os.replace(partial, path)
                return size
            os.unlink(partial)
            return there
        finally:
            os.close(claimed)

    def _whole(self, digest: str) -> bool:
        return os.path.isfile(self._places.blob(digest))
