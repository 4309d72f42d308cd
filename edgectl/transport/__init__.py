"""Ways to reach a device's agent. Whatever the way, what comes out is a connected byte stream.

    with Transports(ask=passphrase) as transports:
        stream = transports.open(device.transport).connect(timeout=30)

A `Transports` keeps what is costly to make: one SSH connection for each device and each jump host, and every
passphrase that was typed. It may be shared by threads.
"""

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgectl.errors import InventoryError
from edgectl.transport.protocols import Ask, ByteStream, Completed, Shell, Spec, Transport

if TYPE_CHECKING:
    from edgectl.transport.ssh import SshConnections

# paramiko imports invoke, if it is there, for a part of its SSH configuration that is not used here (ours is
# `ssh_config`); that takes longer than the rest of it that matters.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]

__all__ = ["Ask", "ByteStream", "Completed", "Shell", "Spec", "Transport", "Transports"]


class Transports:
    """The open connections of one run of the program. Closing it closes them all."""

    def __init__(self, ask: Ask | None = None, ssh_config: Path | None = None) -> None:
        """`ssh_config` defaults to ~/.ssh/config."""
        self._ask = ask
        self._ssh_config = ssh_config
        self._lock = threading.Lock()
        self._ssh: SshConnections | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._ssh is not None:
            self._ssh.close()

    def open(self, spec: Spec) -> Transport:
        """The transport of a device. Connects to nothing yet. Raises InventoryError for a kind that this version
        does not know."""
        if spec.get("kind") == "local":
            from edgectl.transport.local import LocalTransport

            return LocalTransport.from_spec(spec)
        if spec.get("kind") == "ssh":
            return self.ssh.transport(spec)
        raise InventoryError(
            f"this edgectl knows no transport of kind {spec.get('kind')!r}",
            "upgrade edgectl, or add the device again",
        )

    @property
    def ssh(self) -> "SshConnections":
        """The SSH side: shells, and host keys to be accepted."""
        with self._lock:
            if self._ssh is None:
                from edgectl.transport.ssh import SshConnections

                self._ssh = SshConnections(self._ask, self._ssh_config)
            return self._ssh
