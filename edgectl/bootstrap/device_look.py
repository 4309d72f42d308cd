"""Runs on the device, by its own python3 and with nothing else, and changes nothing: what is this machine?

    python3 -c THIS_FILE      parameters: one line of JSON on standard input

Answers with one line of JSON on standard output. It is sent as text, so it imports the standard library only.
"""

import glob
import json
import os
import platform
import pwd
import shutil
import sys
import time
from typing import Any

MODULES = ("asyncio", "ctypes", "sqlite3", "ssl", "tomllib")
"""What Debian's python3-minimal lacks and an agent needs."""


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """What installing has to know of this device. Changes nothing."""
    home = os.path.expanduser("~")
    # A relative path is one in the person's home, an absolute one stays as it is.
    prefixes = {scope: os.path.join(home, path) for scope, path in asked["prefixes"].items()}
    settings = {scope: os.path.join(home, path) for scope, path in asked["settings"].items()}
    return {
        "python": platform.python_version(),
        "missing_modules": [name for name in MODULES if not importable(name)],
        "arch": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "systemd": os.path.isdir("/run/systemd/system"),
        "user_manager": os.path.isdir(f"/run/user/{os.getuid()}/systemd"),
        "lingers": os.path.exists("/var/lib/systemd/linger/" + pwd.getpwuid(os.getuid()).pw_name),
        "home": home,
        "free": {scope: free_bytes(path) for scope, path in prefixes.items()},
        "installed": {scope: versions(path) for scope, path in prefixes.items()},
        "settings": {scope: read_text(path) or "" for scope, path in settings.items()},
        "gpus": gpus(),
        "clock": time.time(),
    }


def importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def free_bytes(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def versions(prefix: str) -> list[str]:
    """Complete versions, the current one first."""
    current = os.path.basename(os.path.realpath(os.path.join(prefix, "current")))
    found = [name for name in listed(os.path.join(prefix, "versions")) if not name.startswith(".")]
    return sorted(found, key=lambda name: (name != current, name))


def listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def gpus() -> list[str]:
    """Vendors of this device's display controllers."""
    names = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
    found = []
    for folder in sorted(glob.glob("/sys/bus/pci/devices/*")):
        kind, vendor = read_text(folder + "/class") or "", (read_text(folder + "/vendor") or "").strip()
        if kind.startswith("0x03") and vendor in names:
            found.append(names[vendor])
    return found


if __name__ == "__main__":
    print(json.dumps(look(json.loads(sys.stdin.buffer.readline()))))
