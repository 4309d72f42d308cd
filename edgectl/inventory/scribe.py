"""A process that keeps the inventory for another one (`edgectl.beside`, or `python -m edgectl.inventory.scribe FD`).

Importing SQLModel takes longer than everything else that a command imports. Here it is imported while the command asks
the devices. What is said over the socket, pickled: the database's path first; then (method, arguments, named arguments)
of a Repository, each answered by (value, None) or (None, error).
"""

import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# First of all: what follows is many imports.
import edgectl.startup  # isort: skip  # noqa: F401
from edgectl.errors import EdgectlError
from edgectl.inventory.repository import Repository


def serve(connection: "Connection[Any, Any]") -> None:
    """Until the other side is gone, which it may be before it has said anything."""
    repository: Repository | None = None
    try:
        path: Path = connection.recv()
        while True:
            name, arguments, named = connection.recv()
            answer: tuple[Any, EdgectlError | None]
            try:
                repository = repository or Repository(path)
                answer = (getattr(repository, name)(*arguments, **named), None)
            except EdgectlError as error:
                answer = (None, error)
            except Exception as error:  # noqa: BLE001
                # Only its kind: the text of an unforeseen error may hold anything.
                answer = (
                    None,
                    EdgectlError(f"internal error: {type(error).__name__} in the inventory's {name}"),
                )
            connection.send(answer)
    except (EOFError, OSError):
        pass
    finally:
        if repository is not None:
            repository.close()


def main(descriptors: list[int]) -> None:
    """Serves the one descriptor, and ends the process."""
    # What Ctrl-C means the other side decides, which may still have something to write.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(socket.socket(fileno=descriptors[0]).detach()))
    # The other side waits for this end; taking the interpreter apart would take longer than all that was asked.
    os._exit(0)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]])
