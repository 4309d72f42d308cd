"""A machine's disk: the base image seen through a layer that takes its changes.

The overlay is mounted in the mount namespace of whoever uses it and ends with that, so a lab that is killed
leaves no mount behind. Nor what systemd-nspawn notes about its machines: that goes to a tmpfs in the same place.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.host import LabError, run

_CANDIDATES = ("/var/tmp", "/tmp", "/dev/shm")
_MOUNT = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work" "$2/root" || exit 1
mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn || exit 1
cd "$2"; shift 2; exec "$@"
"""


def folder_for(lab_id: str) -> Path:
    """Where a lab of this id keeps its disks. Raises LabError where no file system can carry an overlay."""
    for place in _CANDIDATES:
        # An overlay's upper layer cannot itself be on an overlay, which a container's own disk usually is.
        if run(["stat", "-f", "-c", "%T", place]).strip() not in (b"overlayfs", b"UNKNOWN (0x794c7630)"):
            return Path(place) / f"edgectl-lab-{lab_id}"
    raise LabError(
        f"the lab needs a disk that is not an overlay, and none of {', '.join(_CANDIDATES)} is one"
    )


class Disk:
    """`folder` is the machine's own; `base` is shared and never written."""

    def __init__(self, base: Path, folder: Path) -> None:
        self._base, self.folder = base, folder
        for name in ("changes", "work", "root"):
            (folder / name).mkdir(parents=True)
        self.root = folder / "root"

    def mounted(self, argv: Sequence[str]) -> list[str]:
        """`argv`, run where `root` is the machine's disk. Only one such command at a time."""
        apart = ["unshare", "--mount", "--propagation", "private"]
        return [*apart, "sh", "-c", _MOUNT, "mounted", str(self._base), str(self.folder), *argv]

    def changes(self) -> frozenset[str]:
        """Absolute paths, as the machine has them, of everything that differs from the base image: made, changed
        or deleted. What is on a tmpfs (/run, /tmp, small disks) is not on the disk."""
        return frozenset(self._walk(present=True))

    def additions(self) -> frozenset[str]:
        """Of `changes`, what is there now and is not in the base image."""
        return frozenset(
            path for path in self._walk(present=False) if not os.path.lexists(f"{self._base}{path}")
        )

    def _walk(self, *, present: bool) -> Iterable[str]:
        top = self.folder / "changes"
        for inner, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(inner) / name
                try:
                    if present or not _is_whiteout(path):
                        yield f"/{path.relative_to(top)}"
                except FileNotFoundError:
                    # The machine is running: a file may go while we look.
                    continue


def _is_whiteout(path: Path) -> bool:
    """How an overlay says that a file of the base image was deleted."""
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
