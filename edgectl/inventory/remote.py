"""The inventory's write side, kept by a process of its own (`scribe`): what a command uses that cannot wait for SQLModel.

spawned = spawn()                                    # before other imports that take time
with remote(spawned, settings.database) as repository:
    repository.devices()                             # waits for the process, if it is not ready yet
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgectl.beside import Beside, start
from edgectl.errors import EdgectlError

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository


@dataclass(frozen=True)
class Spawned:
    """A scribe that is starting. As a context, it is gone at the end, used or not."""

    process: Beside
    socket: socket.socket

    def __enter__(self) -> "Spawned":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.wait()


def spawn() -> Spawned:
    here, there = socket.socketpair()
    with there:
        process = start("edgectl.inventory.scribe", [there.fileno()])
    return Spawned(process, here)


@contextmanager
def remote(spawned: Spawned, path: Path) -> "Iterator[Repository]":
    """A Repository for as long as the block runs; opening errors are raised by the first call. Its methods may be called
    from any thread."""
    scribe = _Scribe(spawned, path)
    try:
        yield cast("Repository", scribe)
    finally:
        scribe.end()


class _Scribe:
    def __init__(self, spawned: Spawned, path: Path) -> None:
        self._process = spawned.process
        self._connection = Connection(spawned.socket.detach())
        # Asks in a thread of its own: Ctrl-C in the middle of a question would leave its answer to the next one.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="inventory")
        self._asking.submit(self._connection.send, path)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._asking.submit(self._ask, name, arguments, named).result()

        return call

    def _ask(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            self._connection.send((name, arguments, named))
            value, error = self._connection.recv()
        except (EOFError, OSError):
            raise EdgectlError(
                "the process that writes the inventory has ended unexpectedly", "run the same command again"
            ) from None
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        """Whatever it was told is written by then."""
        self._asking.shutdown()
        self._connection.close()
        self._process.wait()
