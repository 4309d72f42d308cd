"""A clock that can be set while a process runs: builds the library that shows it. See settable_clock.c."""

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "settable_clock" / "settable_clock.c"
LIBRARY = "libsettable-clock.so"


@functools.cache
def library() -> Path:
    """The built library; built once per source text, outside the checkout, by `cc`."""
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"edgectl-settable-clock-{os.getuid()}-{version}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / LIBRARY
    if not built.exists():
        fresh = folder / f"{LIBRARY}.{os.getpid()}"
        flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, "-o", str(fresh), str(SOURCE)], check=True)
        fresh.replace(built)
    return built


def environment(library_path: str, clock: str) -> dict[str, str]:
    """What a process must have in its environment: the library and the file with the seconds, as it finds them."""
    return {"LD_PRELOAD": library_path, "SETTABLE_CLOCK": clock}
