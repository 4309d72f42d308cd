"""A tree of files as a tar.gz that depends on nothing but names and contents. Standard library only."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

LEVEL = 6
"""Of zlib: a bundle is packed once (4 s rather than 1.3) and sent to many devices (31 MB rather than 36)."""
LINKED_FROM = 4096
"""Bytes from which equal files become links: smaller ones save nothing."""
CHUNK = 1 << 20


def contents(tree: Path) -> dict[str, Path]:
    """Every file and folder below `tree` by its name in the archive, sorted."""
    return {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*"))}


def same(tree: Path) -> dict[str, str]:
    """Names of files -> name of the first file with the same content, for those that come after it."""
    first: dict[tuple[int, str], str] = {}
    links = {}
    for name, path in contents(tree).items():
        if path.is_file() and (size := path.stat().st_size) >= LINKED_FROM:
            with path.open("rb") as stream:
                key = size, hashlib.file_digest(stream, "sha256").hexdigest()
            if first.setdefault(key, name) != name:
                links[name] = first[key]
    return links


def write(
    tree: Path, links: dict[str, str], target: Path, progress: Callable[[int, int], None]
) -> tuple[str, int]:
    """Write the archive; its digest (`sha256:…`) and size in bytes. Progress is told bytes of `tree`.

    Sorted names, no times, root as the owner, and equal files stored once as hard links: the same tree gives
    the same bytes, wherever it lies and whoever packs it.
    """
    files = contents(tree)
    total = sum(path.stat().st_size for name, path in files.items() if path.is_file() and name not in links)
    done = 0
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed,
        # Small blocks from tarfile would each cost a call into zlib.
        io.BufferedWriter(packed, CHUNK) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, path in files.items():
            header = _header(name, path, links)
            if header.isreg():
                with path.open("rb") as content:
                    tar.addfile(header, content)
                done += header.size
                progress(done, total)
            else:
                tar.addfile(header)
    with target.open("rb") as stored:
        return f"sha256:{hashlib.file_digest(stored, 'sha256').hexdigest()}", target.stat().st_size


def _header(name: str, path: Path, links: dict[str, str]) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.uname = header.gname = "root"
    header.mode = 0o755 if path.is_dir() or name.startswith("bin/") else 0o644
    if path.is_dir():
        header.type = tarfile.DIRTYPE
    elif name in links:
        header.type = tarfile.LNKTYPE
        header.linkname = links[name]
    else:
        header.size = path.stat().st_size
    return header
