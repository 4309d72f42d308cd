"""Where the catalog remembers what it found out: losing it costs time only."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/edgectl`, whether or not it exists."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    root = Path(chosen) if chosen.startswith("/") else Path.home() / ".cache"
    return root / "edgectl"


def replace_text(target: Path, text: str) -> None:
    """Write a whole file at once, so that nobody reads half of it. A disk that refuses is no error here."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        Path(name).replace(target)
    except OSError:
        return
