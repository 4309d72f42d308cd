"""Where compiled engines and finished bundles are kept. Standard library only: setup runs it before anything else."""

import os
from pathlib import Path


def cache_root() -> Path:
    """`$EDGECTL_CACHE_DIR`, else `$XDG_CACHE_HOME/edgectl`, whether or not it exists."""
    chosen = os.environ.get("EDGECTL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgectl"
