"""One request from its arrival to its count: who asks, for how long, and that it is counted exactly once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from agent_daemon.errors import AgentError
from agent_daemon.gateway.errors import ApiError, timed_out, uncounted
from agent_daemon.gateway.metering import Meter
from agent_daemon.metering import Count, Finish
from agent_daemon.serving import Route
from agent_daemon.worker_messages import Chunk, Event


class Call:
    """`name` is the model that was asked for, `key` the id of the API key that was used, or empty; `timeout` is in
    seconds from this moment."""

    def __init__(self, name: str, key: str, timeout: float, count: Count) -> None:
        arrived = time.monotonic()
        self.name = name
        self.key = key
        self._timeout = timeout
        self._deadline = arrived + timeout
        self._count = count
        self._meter = Meter(arrived)
        self._counted = False
        self._finish: Finish | None = None

    def see(self, event: Event | Chunk) -> None:
        """Takes note of what the worker said."""
        self._meter.see(event)

    @contextlib.asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Ends the work inside at the request's deadline. Raises ApiError 504 then."""
        limit = asyncio.timeout(self._deadline - time.monotonic())
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            self.broke()
            raise timed_out(self.name, self._timeout) from None

    def broke(self) -> None:
        """Says that the request ended by a failure of ours, not by its client's leaving."""
        self._finish = "error"

    async def settle(self, route: Route) -> None:
        """Counts the request if it has not been counted; durable on return. Raises ApiError when that is not possible,
        because the disk is full."""
        if not self._counted:
            self._counted = True
            record = self._meter.record(route, self.key, self._finish)
            try:
                # Shielded: a client that hangs up in this very moment must not make its request uncounted.
                await asyncio.shield(asyncio.to_thread(self._count, record))
            except AgentError as error:
                raise uncounted(self.name, error.message) from None

    async def leave(self, route: Route) -> None:
        """Counts, as far as possible, a request that nobody waits for any more."""
        with contextlib.suppress(ApiError):
            await self.settle(route)
