"""Lets as many requests through to a model as its worker can compute, and a bounded number wait."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.errors import busy, unavailable, unknown_model
from agent_daemon.serving import Route, Serving
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess

PATIENCE = 120.0
"""Seconds that a request may wait for its turn, for a worker that restarts, or for an exchange of releases."""


def waiting_limit(parallel: int) -> int:
    """Requests that may wait for one model: enough for a burst, few enough that the last is answered soon."""
    return 8 + 4 * parallel


@dataclass
class Ticket:
    """Permission to use a worker for one request."""

    route: Route
    process: WorkerProcess
    tokens_per_second: float | None = None
    """Set by whoever uses the ticket, from the finished request."""


class Admission:
    def __init__(self, serving: Serving, supervisor: Supervisor, patience: float = PATIENCE) -> None:
        self._serving = serving
        self._supervisor = supervisor
        self._patience = patience
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def ticket(self, name: str) -> AsyncIterator[Ticket]:
        """Waits for a turn. Raises ApiError: 404 unknown, 429 too many wait, 503 no worker within patience."""
        route = self._serving.find(name)
        if route is None:
            raise unknown_model(name, self._serving.names())
        if self._waiting[name] >= waiting_limit(route.model.placement.parallel):
            raise busy(name, self._waiting[name])
        self._waiting[name] += 1
        try:
            async with asyncio.timeout(self._patience):
                ticket, turn = await self._wait(name)
        except TimeoutError:
            raise unavailable(name, f"no worker was ready within {self._patience:g} s") from None
        finally:
            self._waiting[name] -= 1
        try:
            yield ticket
        finally:
            turn.release()
            await self._supervisor.end_request(ticket.route.engine_key, ticket.tokens_per_second)

    async def _wait(self, name: str) -> tuple[Ticket, asyncio.Semaphore]:
        while True:
            route = await self._serving.route(name)
            if route is None:
                raise unknown_model(name, self._serving.names())
            key = route.engine_key
            turn = self._turn(key, route.model.placement.parallel)
            await turn.acquire()
            try:
                ticket = await self._use(route)
            except BaseException:
                turn.release()
                raise
            if ticket is not None:
                return ticket, turn
            turn.release()

    async def _use(self, route: Route) -> Ticket | None:
        """A ticket for the route's worker; None when the release changed, or is being exchanged, while this
        request waited: its turn is at another worker now, or comes when requests flow again."""
        name, key = route.model.name, route.engine_key
        try:
            process = await self._supervisor.wait_ready(key)
        except WorkerFailure:
            if self._serving.flows(route):
                raise unavailable(name, "its worker is not running") from None
            return None
        if await self._serving.route(name) != route or self._supervisor.process(key) is not process:
            return None
        self._supervisor.begin_request(key)
        return Ticket(route, process)

    def _turn(self, key: str, parallel: int) -> asyncio.Semaphore:
        if key not in self._turns:
            for gone in self._turns.keys() - self._supervisor.keys():
                del self._turns[gone]
            self._turns[key] = asyncio.Semaphore(parallel)
        return self._turns[key]
