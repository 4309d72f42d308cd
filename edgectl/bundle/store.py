"""Finished bundles by digest, and an index from what went into one to what came out. Standard library only."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgectl.bundle import manifest
from edgectl.bundle.cache import cache_root
from edgectl.bundle.manifest import Bundle, BundleManifest
from edgectl.errors import EdgectlError

_SCRATCH = ".making-"
_ABANDONED = 24 * 3600
"""Seconds after which a folder of work is one that a killed process left behind."""


def folder() -> Path:
    return cache_root() / "bundles"


def find(key: str) -> Bundle | None:
    """The bundle that was made from these inputs, if it is still there in full."""
    try:
        entry = json.loads(_entry(key).read_text())
        kept = Bundle(
            path=folder() / entry["file"],
            digest=entry["digest"],
            size=entry["size"],
            manifest=manifest.parse(json.dumps(entry["manifest"])),
        )
        return kept if kept.path.stat().st_size == kept.size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(key: str, archive: Path, digest: str, size: int, described: BundleManifest) -> Bundle:
    """Move a finished archive in. Whoever makes the same at the same time writes the same bytes."""
    name = f"{digest.removeprefix('sha256:')}.tar.gz"
    kept = Bundle(folder() / name, digest, size, described)
    archive.replace(kept.path)
    entry = {"file": name, "digest": digest, "size": size, "manifest": described.document()}
    _entry(key).parent.mkdir(exist_ok=True)
    fresh = archive.with_suffix(".entry")
    fresh.write_text(json.dumps(entry))
    fresh.replace(_entry(key))
    return kept


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder to work in, on the file system of the finished bundles. Raises EdgectlError when it fills up."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        _clear()
        work = Path(tempfile.mkdtemp(dir=folder(), prefix=_SCRATCH))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise EdgectlError(
            f"{folder()}: the bundle could not be written: {error.strerror or error}",
            "a bundle takes up to 300 MiB while it is made; EDGECTL_CACHE_DIR names another place",
        ) from None


def copy_to(bundle: Bundle, output: Path) -> None:
    """A copy of the archive as `output`, there in full or not at all. Raises EdgectlError."""
    fresh = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(bundle.path, fresh)
        fresh.replace(output)
    except OSError as error:
        raise EdgectlError(
            f"{output}: cannot be written: {error.strerror or error}", "name another file with --output"
        ) from None
    finally:
        fresh.unlink(missing_ok=True)


def _clear() -> None:
    for old in folder().glob(f"{_SCRATCH}*"):
        # Another process may finish its work, or clear, at the same time.
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old, ignore_errors=True)


def _entry(key: str) -> Path:
    return folder() / "index" / f"{key}.json"
