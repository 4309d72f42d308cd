"""Brings what is written to the disk while more is on its way, so that the last fsync has little left to do."""

from __future__ import annotations

import os
import threading

_STEP = 8 * 1024 * 1024
"""Bytes that may be written before the disk is asked to take them."""


class WriteBack:
    """Syncs one file from a thread of its own. The file must stay open until `close` has returned."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dirty = 0
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def wrote(self, size: int) -> None:
        """So many bytes more are to be brought to the disk some time soon."""
        with self._changed:
            self._dirty += size
            if self._dirty < _STEP:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the thread. Raises the OSError that it met: the kernel tells each of them only once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._dirty < _STEP and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._dirty = 0
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                self._error = self._error or error
                return
