"""Ways to reach a device's control socket. Whatever the way, what comes out is a connected byte stream."""

from collections.abc import Mapping
from typing import Any, Protocol

from edgectl.errors import InventoryError


class ByteStream(Protocol):
    """The part of a socket that HTTP needs."""

    def sendall(self, data: Any, /) -> None: ...

    def makefile(self, mode: Any, /) -> Any: ...

    def settimeout(self, seconds: float | None, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class Transport(Protocol):
    def connect(self, timeout: float) -> ByteStream:
        """A new stream to the device's agent. Raises Unreachable within `timeout` seconds."""
        ...


def open_transport(spec: Mapping[str, Any]) -> Transport:
    """The transport that the inventory holds for a device. Raises InventoryError for a kind that this version
    does not know."""
    if spec.get("kind") == "local":
        from edgectl.transport.local import LocalTransport

        return LocalTransport.from_spec(spec)
    raise InventoryError(
        f"this edgectl knows no transport of kind {spec.get('kind')!r}",
        "upgrade edgectl, or add the device again",
    )
