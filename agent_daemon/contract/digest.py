"""SHA-256 digests as `sha256:<64 hex digits>`: the one spelling used in files, messages and the database."""

from __future__ import annotations

import hashlib

# Not from typing: a transfer begins when this is imported, and typing alone takes as long as all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import FileIO
    from typing import BinaryIO

CHUNK = 1024 * 1024
_PREFIX = "sha256:"


def is_hex(text: str) -> bool:
    """Whether `text` is the 64 hex digits of a digest, in lower case."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


def is_digest(text: str) -> bool:
    """Whether `text` is a digest in the canonical spelling (lower case, algorithm named)."""
    return text.startswith(_PREFIX) and is_hex(text[len(_PREFIX) :])


def hex_of(digest: str) -> str:
    """The 64 hex digits of a canonical digest. Raises ValueError for anything else."""
    if not is_digest(digest):
        raise ValueError(f"not a digest: {digest[:80]!r}; expected sha256: and 64 hex digits")
    return digest.removeprefix(_PREFIX)


def of_bytes(data: bytes) -> str:
    """The digest of bytes held in memory."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def of_stream(stream: BinaryIO | FileIO) -> str:
    """The digest of everything left in `stream`, read one chunk (1 MiB) at a time."""
    state = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        state.update(chunk)
    return f"sha256:{state.hexdigest()}"


def of_parts(digests: Iterable[str]) -> str:
    """One digest for an artifact of several files, from their digests in order."""
    return of_bytes("\n".join(digests).encode())


def short(digest: str) -> str:
    """The twelve hex digits that people read: enough to tell releases of one fleet apart."""
    return hex_of(digest)[:12]
