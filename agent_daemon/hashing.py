"""SHA-256 of what passes by, in a thread beside whoever reads and writes it."""

from __future__ import annotations

import hashlib
import os
import threading

BUFFER = 1024 * 1024
_AHEAD = 2
"""Buffers that may wait to be hashed."""
RING = _AHEAD + 2
"""Buffers that a caller of `HashBeside` takes in turn: those that wait, the one that is hashed, the one it fills."""


class HashBeside:
    """A running SHA-256. What is handed over must stay as it is until `RING` - 1 more have been.

    hashlib, reading and writing all work without Python's lock, so that with two cores they go on at once.
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._waiting: list[memoryview | bytes | bytearray] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def update(self, data: memoryview | bytes | bytearray) -> None:
        """Hands over the next bytes; waits while as many buffers as may are waiting already."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        with self._changed:
            while len(self._waiting) > _AHEAD:
                self._changed.wait()
            self._waiting.append(data)
            self._changed.notify_all()

    def hexdigest(self) -> str:
        """Of everything that was handed over."""
        with self._changed:
            while self._waiting:
                self._changed.wait()
        return self._state.hexdigest()

    def close(self) -> None:
        """Ends the thread, when it is through with what it has."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                data = self._waiting[0]
            self._state.update(data)
            with self._changed:
                # Only now, so that an empty list says that everything is hashed.
                self._waiting.pop(0)
                self._changed.notify_all()


def feed(descriptor: int, size: int, state: HashBeside) -> int:
    """Hashes the next `size` bytes of a file, or as many as there are; returns how many."""
    buffers = [memoryview(bytearray(min(BUFFER, max(size, 1)))) for _ in range(RING)]
    done = 0
    while done < size:
        buffer = buffers[0]
        got = os.readv(descriptor, [buffer[: size - done]])
        if got == 0:
            break
        state.update(buffer[:got])
        buffers.append(buffers.pop(0))
        done += got
    return done
