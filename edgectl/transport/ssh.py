"""Devices over SSH."""

from pathlib import Path
from typing import Any

from edgectl.transport import Ask, Shell, Spec, Transport


class SshConnections:
    """One connection for each device and each jump host, made when first needed and shared by threads."""

    def __init__(self, ask: Ask | None = None, config: Path | None = None) -> None:
        raise NotImplementedError

    def transport(self, spec: Spec) -> Transport:
        """Raises nothing: connecting does."""
        raise NotImplementedError

    def shell(self, spec: Spec) -> Shell:
        """Raises Unreachable, LoginRefused and HostKeyError."""
        raise NotImplementedError

    def learn(self, spec: Spec) -> dict[str, Any]:
        """Connects, accepts keys that nobody knew, and returns `spec` with them in `host_keys` (jump hosts' too).
        Raises HostKeyError for a key that differs from the known one, Unreachable and LoginRefused."""
        raise NotImplementedError

    def hosts(self, pattern: str) -> tuple[str, ...]:
        """The aliases in the SSH configuration that a shell pattern matches, in their order."""
        raise NotImplementedError

    def close(self) -> None: ...
