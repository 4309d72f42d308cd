"""SHA-256 digests as `sha256:<64 hex digits>`: the one spelling used in files, messages and the database."""

import hashlib
import re
from collections.abc import Iterable
from typing import BinaryIO

CHUNK = 1024 * 1024
_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether `text` is a digest in the canonical spelling (lower case, algorithm named)."""
    return _PATTERN.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """The 64 hex digits of a canonical digest. Raises ValueError for anything else."""
    if not is_digest(digest):
        raise ValueError(f"not a digest: {digest[:80]!r}; expected sha256: and 64 hex digits")
    return digest.removeprefix("sha256:")


def of_bytes(data: bytes) -> str:
    """The digest of bytes held in memory."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def of_stream(stream: BinaryIO) -> str:
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
