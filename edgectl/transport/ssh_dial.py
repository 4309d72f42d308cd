"""The command that connects to a device's agent, and what its silence means. PURE."""

import shlex
from collections.abc import Mapping, Sequence

from edgectl.errors import EdgectlError, Unreachable
from edgectl.layout import layout_of
from edgectl.transport.ssh_hosts import Endpoint

_AGENT = "edgectl-agent: "
_NOT_THERE = 127


def as_root(command: Sequence[str], login: str) -> tuple[str, ...]:
    """A command that runs as root, or fails at once where that needs a password."""
    return tuple(command) if login == "root" else ("sudo", "-n", "--", *command)


def dial_command(spec: Mapping[str, object], login: str) -> str:
    """As the device's shell reads it. The system's agent answers root and its own group only."""
    return _on_device(spec, layout_of(spec).dial(), login)


def receive_command(spec: Mapping[str, object], login: str, digest: str, size: int, offset: int) -> str:
    """As the device's shell reads it: the program that takes a blob's bytes from `offset` on its standard input."""
    return _on_device(spec, (*layout_of(spec).receive(), digest, str(size), str(offset)), login)


def _on_device(spec: Mapping[str, object], command: Sequence[str], login: str) -> str:
    return shlex.join(as_root(command, login) if layout_of(spec).scope == "system" else command)


def silence(endpoint: Endpoint, status: int, stderr: bytes) -> EdgectlError:
    """Why the command ended without an answer. `status` is -1 where none came."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    text = "\n".join(lines).lower()
    if said := next((line for line in lines if line.startswith(_AGENT)), None):
        remedy = next((line for line in lines if line.startswith("hint: ")), "")
        return Unreachable(
            f"{endpoint.label}: {said.removeprefix(_AGENT)}", remedy.removeprefix("hint: ") or None
        )
    if sudo := next((line for line in lines if line.startswith("sudo: ")), None):
        if "password" in sudo or "terminal" in sudo:
            return Unreachable(
                f"{endpoint.label}: sudo needs a password for {endpoint.user} there",
                f"allow it without: a line '{endpoint.user} ALL=(root) NOPASSWD: ALL' in /etc/sudoers.d there,"
                " or log in as root",
            )
        if "not found" not in sudo:
            return Unreachable(
                f"{endpoint.label}: sudo refuses there: {sudo.removeprefix('sudo: ')}",
                f"allow {endpoint.user} to use sudo there, or log in as root",
            )
    if "sudo" in text and status == _NOT_THERE and "edgectl-agent" not in text:
        return Unreachable(
            f"{endpoint.label}: there is no sudo there, and {endpoint.user} is not root",
            "install sudo there, or log in as root",
        )
    if status == _NOT_THERE or "no such file" in text or "not found" in text:
        return Unreachable(
            f"{endpoint.label}: no agent is installed there", "install it: edgectl device bootstrap NAME"
        )
    ended = f"ended with status {status}" if status >= 0 else "ended without a status"
    told = f": {lines[-1]}" if lines else ""
    return Unreachable(
        f"{endpoint.label}: the connection to its agent {ended}{told}",
        "what the agent says: edgectl doctor NAME",
    )
