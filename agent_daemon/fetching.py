"""One blob from a hub into the store: on from the byte that is held, no faster than it may be, until it is stopped."""

import threading
import time
from collections.abc import Callable

from agent_daemon.hub_connection import HubConnection
from agent_daemon.store import Store

_BURST = 0.25
"""Seconds' worth that may come at once after a pause."""


class Stopped(Exception):
    """The fetch was told to stop; what has arrived is kept."""


class Fetch:
    """For one thread; `stop` from any. `rate` is in bytes a second, None for no bound. `arrived` is called with the
    bytes held so far."""

    def __init__(
        self,
        connection: HubConnection,
        store: Store,
        token: str,
        rate: int | None,
        arrived: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._store = store
        self._token = token
        self._rate = rate
        self._arrived = arrived
        self._stopped = threading.Event()
        self._due = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()
        self._connection.abort()

    def run(self, digest: str, size: int, *, anew: bool) -> None:
        """Brings the blob to its place, verified. `anew`: the hub is to look at its file again. Raises Stopped,
        HubTrouble, and what `Store.open_partial` and its `Partial` do."""
        with self._store.open_partial(digest, size, self._store.offset(digest)) as partial:
            if partial.offset < size:
                try:
                    for chunk in self._connection.blob(digest, size, partial.offset, self._token, anew=anew):
                        partial.write(chunk)
                        self._arrived(partial.offset)
                        self._pace(len(chunk))
                except Exception:
                    # Stopping cuts the connection, which then looks like trouble with the hub.
                    if self._stopped.is_set():
                        raise Stopped from None
                    raise
            partial.finish()

    def _pace(self, size: int) -> None:
        """Waits until more may come."""
        wait = 0.0
        if self._rate is not None:
            now = time.monotonic()
            self._due = max(self._due, now - _BURST) + size / self._rate
            wait = self._due - now
        if self._stopped.wait(wait) if wait > 0 else self._stopped.is_set():
            raise Stopped
