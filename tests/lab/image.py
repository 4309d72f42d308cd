"""The disk that every machine of a lab starts from: Debian, systemd, sshd and python3, nothing more.

Made once by debootstrap and kept in the cache, by what it was made of. Machines never write to it.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.lab.host import LabError, run

CACHE = Path(os.environ.get("EDGECTL_CACHE_DIR") or Path.home() / ".cache" / "edgectl")
"""Taken at import, before a test gets a home of its own."""

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd"),
    *("openssh-server", "python3", "iproute2", "sudo"),
)
RECIPE = 1
"""Raised when `settle` changes, so that older images are not taken for new ones."""

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_UNWANTED_TIMERS = ("apt-daily", "apt-daily-upgrade", "dpkg-db-backup", "e2scrub_all", "fstrim")


def base(cache: Path = CACHE) -> Path:
    """The base image's root folder; made first where the cache has none (minutes, from this machine's own mirror).

    Raises LabError when it cannot be made.
    """
    suite = this_suite()
    root = cache / "lab" / image_name(suite)
    root.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start together make one image: the second waits and finds it done.
    with (root.parent / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _build(root, suite)
    return root


def image_name(suite: str) -> str:
    """The image's folder in the cache: another suite, machine type, list of packages or recipe is another image."""
    made_of = " ".join([suite, platform.machine(), *PACKAGES, str(RECIPE)])
    return f"{suite}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"


def this_suite() -> str:
    """The code name of this machine's Debian release."""
    named = re.search(r'^VERSION_CODENAME="?(\w+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    if named is None:
        raise LabError("/etc/os-release names no VERSION_CODENAME: the lab is made from a released Debian")
    return named[1]


def mirror(suite: str, texts: Iterable[str]) -> str:
    """The first archive among apt's source files (either format) that has `suite` with its main component."""
    for text in texts:
        for uri, suites, components in [*_deb822(text), *_one_line(text)]:
            if suite in suites and "main" in components:
                return uri
    raise LabError(f"apt on this machine has no source for {suite} main: the lab's image is made from one")


def _deb822(text: str) -> Iterable[tuple[str, list[str], list[str]]]:
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        fields = {
            name.lower(): value.split()
            for name, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE)
        }
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            for uri in fields.get("uris", []):
                yield uri, fields.get("suites", []), fields.get("components", [])


def _one_line(text: str) -> Iterable[tuple[str, list[str], list[str]]]:
    for found in re.finditer(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)$", text, re.MULTILINE):
        yield found[1], [found[2]], found[3].split()


def _sources() -> Iterable[str]:
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))]
    return [file.read_text() for file in files if file.is_file()]


def _build(root: Path, suite: str) -> None:
    uri = mirror(suite, _sources())
    unfinished = root.with_name(f".{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    print(f"lab: making the base image {root.name}, once (2 to 5 minutes)", file=sys.stderr, flush=True)
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    if Path(_KEYRING).exists():
        options.append(f"--keyring={_KEYRING}")
    # debootstrap mounts /proc inside; in a mount namespace of its own that ends with it, whatever happens.
    apart = ["unshare", "--mount", "--propagation", "private"]
    run([*apart, "debootstrap", *options, suite, str(unfinished), uri], timeout=3600)
    settle(unfinished)
    unfinished.rename(root)


def settle(root: Path) -> None:
    """Makes a fresh installation into an image: nothing in it belongs to one machine, nothing runs by the clock."""
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for path in (root / folder).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    # dbus keeps a copy of the machine's id, from which systemd would give every machine the same again.
    for name in ("etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")
    for timer in _UNWANTED_TIMERS:
        (root / "etc/systemd/system" / f"{timer}.timer").symlink_to("/dev/null")
