"""Workers that still read a file which the store has given up: its blob was damaged, deleted, and sent again.

A worker maps its weights; a file that is deleted stays alive for it, damage included.
"""

from pathlib import Path

_PROC = Path("/proc")


def reads_deleted(pid: int, store: Path, proc: Path = _PROC) -> bool:
    """Whether a process has a file below `store` mapped that is deleted or about to be. False where nobody can say."""
    root = str(store.resolve())
    try:
        lines = (proc / str(pid) / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return False
    # address, permissions, offset, device, inode, and then a path, which may have spaces.
    paths = (fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6)
    below = (path for path in paths if path.startswith(root + "/"))
    return any(path.endswith(" (deleted)") or path.startswith(f"{root}/going/") for path in below)
