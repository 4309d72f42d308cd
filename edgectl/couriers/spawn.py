"""Starts courier processes, and imports nothing that takes long."""

import os
import socket
from dataclasses import dataclass

from edgectl.beside import Beside, start

_MOST = 8
"""Couriers at most: more would only wait for each other's disk and network."""


@dataclass(frozen=True)
class Spawned:
    """A process that becomes one courier for each socket. As a context, it is gone at the end, used or not."""

    process: Beside
    sockets: tuple[socket.socket, ...]

    def __enter__(self) -> "Spawned":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.sockets:
            each.close()
        self.process.wait()


def spawn(number: int | None = None) -> Spawned:
    """`number` of couriers; by default two for each core: of the threads of one, only one at a time has Python's lock, and
    encrypting for several devices gives it up and takes it again with every packet."""
    count = number or min(_MOST, 2 * len(os.sched_getaffinity(0)))
    pairs = [socket.socketpair() for _ in range(count)]
    far = [there.fileno() for _, there in pairs]
    process = start("edgectl.couriers.courier", far)
    for _, there in pairs:
        there.close()
    return Spawned(process, tuple(here for here, _ in pairs))
