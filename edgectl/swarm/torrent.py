"""The torrent of one blob for one site. What is in the blob is hashed once, whatever number of sites it goes to."""

import base64
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import libtorrent as lt

from agent_daemon.contract import digest as digests
from agent_daemon.contract.swarm import SECRET_BYTES, SECRET_KEY, piece_length
from edgectl.errors import EdgectlError


@dataclass(frozen=True)
class Torrent:
    """`content` is a torrent's file, and as secret as its info-hash."""

    digest: str
    size: int
    content: bytes

    @property
    def text(self) -> str:
        """As it is sent to a device."""
        return base64.b64encode(self.content).decode()

    def __repr__(self) -> str:
        return f"Torrent({self.digest}, {self.size} bytes)"


def make(path: Path, digest: str, size: int) -> Torrent:
    """A torrent with a secret of its own. Raises EdgectlError when the file cannot be read or has another size."""
    try:
        path = path.resolve(strict=True)
        found = path.stat()
    except OSError as error:
        raise EdgectlError(f"{path}: cannot be read: {error.strerror or error}") from None
    if found.st_size != size:
        raise EdgectlError(
            f"{path} has {found.st_size} bytes, and the blob {digest} has {size}",
            "the file has changed since the plan was made: make the plan again",
        )
    hashed = _hashed(str(path), digests.hex_of(digest), size, found.st_mtime_ns)
    info = {**hashed["info"], SECRET_KEY: secrets.token_bytes(SECRET_BYTES)}
    return Torrent(digest, size, lt.bencode({**hashed, "info": info}))


@lru_cache(maxsize=8)
def _hashed(path: str, name: str, size: int, _changed_at: int) -> dict[str, Any]:
    """The torrent without a secret. It lives only inside this process: nobody may take part by it."""
    place = Path(path)
    files = [lt.create_file_entry(place.name, size)]
    made = lt.create_torrent(files, piece_length(size), flags=lt.create_torrent.v2_only)
    try:
        lt.set_piece_hashes(made, str(place.parent))
    except RuntimeError as error:
        raise EdgectlError(f"{place}: cannot be read: {error}") from None
    generated: Any = made.generate()
    info = generated[b"info"]
    (entry,) = info[b"file tree"].values()
    # By its digest, whatever the file is called here.
    hashed: dict[str, Any] = {
        "info": {
            b"file tree": {name.encode(): entry},
            b"meta version": 2,
            b"name": name.encode(),
            b"piece length": info[b"piece length"],
            b"private": 1,
        },
        "piece layers": generated[b"piece layers"],
    }
    return hashed
