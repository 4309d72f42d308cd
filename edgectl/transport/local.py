"""A device that is this machine: its agent's Unix socket, directly."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgectl.errors import Unreachable


@dataclass(frozen=True)
class LocalTransport:
    """`state_dir` is the agent's own, as given to `edgectl-agent run`."""

    state_dir: Path

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "LocalTransport":
        return cls(Path(spec["state_dir"]))

    def spec(self) -> dict[str, Any]:
        """What the inventory keeps."""
        return {"kind": "local", "state_dir": str(self.state_dir)}

    def connect(self, timeout: float) -> socket.socket:
        path = self.state_dir / "agent.sock"
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect(str(path))
        except OSError as error:
            stream.close()
            why = (error.strerror or str(error)).lower()
            raise Unreachable(
                f"no agent answers at {path}: {why}",
                f"start it with: edgectl-agent run --state-dir {self.state_dir}",
            ) from None
        return stream

    def receive(self, digest: str, size: int, offset: int, timeout: float) -> None:  # noqa: ARG002
        """None: on the same machine the agent's own socket is the shortest way."""
        return
