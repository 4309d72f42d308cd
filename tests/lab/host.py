"""What this machine must have before a lab can be made on it, and how programs are run on it."""

import os
import shutil
import subprocess
from collections.abc import Sequence

PACKAGES = {
    # Debian package: the program of it that the lab calls
    "debootstrap": "debootstrap",
    "systemd-container": "systemd-nspawn",
    "openssh-client": "ssh",
    "iproute2": "ip",
    "util-linux": "nsenter",
    "gcc": "cc",
}


class LabError(Exception):
    """The lab could not be made, or a machine of it did not do what it was told."""


def obstacle() -> str | None:
    """One sentence saying why no lab can be made here, or None when one can."""
    if os.geteuid() != 0:
        return "the lab needs root: it boots machines in namespaces of their own"
    # A cron job's or a plain user's PATH leaves out the folders where these live.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    lacking = [package for package, program in PACKAGES.items() if shutil.which(program, path=path) is None]
    if lacking:
        return f"the lab needs packages that are not installed: apt-get install {' '.join(lacking)}"
    return None


def run(argv: Sequence[str], *, input: bytes | None = None, timeout: float = 60) -> bytes:
    """What a program of this machine wrote on stdout. Raises LabError with its last words when it fails."""
    done = subprocess.run(argv, input=input, capture_output=True, timeout=timeout)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}: {words}")
    return done.stdout
