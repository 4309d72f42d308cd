"""Where the engine of a bundle comes from: the wheel that was named, an index, or compiled here. Once each."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from edgectl.bundle import engine_wheel, libraries, pins, wheel
from edgectl.bundle.cache import cache_root
from edgectl.bundle.request import BundleRequest


def obtain(request: BundleRequest, progress: engine_wheel.Progress) -> wheel.EngineWheel:
    """The wheel for a request, looked into. Raises UsageError for one that does not fit, else EdgectlError."""
    return wheel.inspect(_path(request, progress), request.python_version, request.arch)


def _path(request: BundleRequest, progress: engine_wheel.Progress) -> Path:
    if request.engine_wheel:
        return request.engine_wheel
    if request.engine_index:
        return _fetched(request, request.engine_index, progress)
    return engine_wheel.obtain("portable", progress)


def _fetched(request: BundleRequest, index: str, progress: engine_wheel.Progress) -> Path:
    version = pins.engine_version()
    key = hashlib.sha256("\n".join((index, request.python, request.arch)).encode()).hexdigest()[:16]
    target = cache_root() / "engine" / f"{version}-index-{key}"
    if kept := sorted(target.glob("*.whl")):
        return kept[0]
    progress(f"fetching {pins.ENGINE} {version} for {request.backend}", 0, 1)
    target.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target, prefix=".fetching-"))
    try:
        fetched = libraries.fetch_engine(request.python, request.arch, index, scratch)
        return fetched.replace(target / fetched.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
