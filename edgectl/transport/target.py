"""`[user@]host[:port]` as people write it. PURE."""

import re
from typing import Any

from edgectl.errors import UsageError

_FORM = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s/]+)(?::(?P<port>\d{1,5}))?/?"
)


def ssh_spec(text: str, identity: str | None = None) -> dict[str, Any]:
    """The transport of a device reached as `root@dev1.example:22`. What is not said is left to the SSH
    configuration. Raises UsageError."""
    match = _FORM.fullmatch(text.strip())
    if match is None or match["host"].startswith("-"):
        raise UsageError(f"--ssh {text[:80]!r}: expected [user@]host[:port]", "such as root@dev1.example:22")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise UsageError(f"--ssh {text[:80]!r}: {port} is no port", "ports go from 1 to 65535")
    said = {"host": match["host"].strip("[]"), "user": match["user"], "port": port, "identity": identity}
    return {"kind": "ssh", **{key: value for key, value in said.items() if value is not None}}
