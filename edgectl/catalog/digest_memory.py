"""Digests of local files, computed once: a file that has not changed since is not read again.

A file is known again by path, size, modification time and inode. One that was modified a moment ago is hashed
but not remembered: it could change again within the clock's grain, unseen.
"""

import json
import time
from pathlib import Path

from agent_daemon.contract import digest as digests
from edgectl.catalog.artifacts import Progress, silent
from edgectl.catalog.cache_folder import cache_folder, replace_text
from edgectl.errors import CatalogError

_SETTLED_NS = 2_000_000_000
_MOST = 2000

Key = tuple[int, int, int]


def digest_of(path: Path, progress: Progress = silent, label: str | None = None) -> str:
    """The digest of a file's content, from memory where it has not changed. Raises CatalogError.

    `label` is the name that progress shows, the file's own unless given."""
    label = f"checking {label or path.name}"
    path = path.resolve()
    try:
        before = _key(path)
        entry = _load().get(str(path))
        if entry is not None and tuple(entry[:3]) == before and digests.is_digest(entry[3]):
            return entry[3]
        digest = _hash(path, before[0], progress, label)
        if _key(path) != before:
            raise CatalogError(
                f"{path}: changed while it was read", "wait until it is complete, then try again"
            )
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror or 'unknown error'}") from None
    if time.time_ns() - before[1] > _SETTLED_NS:
        remember(path, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Keep a digest that is known to be that of the file's present content."""
    path = path.resolve()
    entries = _load()
    entries.pop(str(path), None)
    entries[str(path)] = (*_key(path), digest)
    _store(dict(list(entries.items())[-_MOST:]))


def forget(path: Path) -> None:
    """Read the file's content when it is asked for next, whether or not it looks changed."""
    entries = _load()
    if entries.pop(str(path.resolve()), None) is not None:
        _store(entries)


def _key(path: Path) -> Key:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _hash(path: Path, total: int, progress: Progress, label: str) -> str:
    import hashlib

    state = hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while chunk := stream.read(digests.CHUNK):
            state.update(chunk)
            done += len(chunk)
            progress(label, done, total)
    return f"sha256:{state.hexdigest()}"


def _file() -> Path:
    return cache_folder() / "digests.json"


def _load() -> dict[str, tuple[int, int, int, str]]:
    try:
        content = json.loads(_file().read_bytes())
        return {
            path: (int(size), int(mtime), int(inode), str(digest))
            for path, (size, mtime, inode, digest) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        # A memory: whatever is wrong with it costs one more hash.
        return {}


def _store(entries: dict[str, tuple[int, int, int, str]]) -> None:
    replace_text(_file(), json.dumps(entries))
