"""Lets a bounded number of requests through to each model, and finds each its worker.

The worker queues by itself, batches, and is fair between clients: requests go straight to it. Here only their
number is bounded, and they wait for what the worker cannot know of: an exchange of releases, a restart, a model
that has to be loaded first.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from agent_daemon.contract.release import ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.errors import ApiError, busy, unavailable, unknown_model
from agent_daemon.residency import NotLoaded, Residents
from agent_daemon.serving import Route, Serving
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess

PATIENCE = 120.0
"""Seconds that a request may wait for a worker that restarts or is loaded. For an exchange of releases it waits as long
as it may take in all: it would not have failed without one."""
HELD_MOST = 1024
"""Requests of a model that may wait for the end of an exchange, over those that were there before: a bound for memory.
They do not count against the model's own bounds, which are made for a worker that answers."""
_REMEMBERED = 16
"""Finished requests of a model whose durations say how fast it is at the moment."""
_LONGEST_RETRY = 120


def waiting_limit(parallel: int) -> int:
    """Requests that may wait for one model: enough for a burst, few enough that the last is answered soon."""
    return 8 + 4 * parallel


def bound(model: ServedModel) -> int:
    """Requests of a model, all of its adapters' together, that may run and wait at once."""
    parallel, queue = model.placement.parallel, model.limits.queue
    return parallel + (waiting_limit(parallel) if queue is None else queue)


def retry_after(inside: int, parallel: int, durations: Sequence[float]) -> int:
    """Seconds after which somebody who was sent away should ask again: when half of those who wait have had their
    turn, at the pace of the last requests.

    `durations` are the seconds that those took from admission to their end, their own wait included, so that
    `inside` of them leave in the mean of it (Little's law). Without any, a quarter of a second for each.
    """
    waiting = max(0, inside - parallel)
    if not durations:
        return 1 + waiting // 4
    seconds = sum(durations) / len(durations) * waiting / 2 / max(1, inside)
    return max(1, min(_LONGEST_RETRY, math.ceil(seconds)))


@dataclass
class Ticket:
    """Permission to use a worker for one request."""

    route: Route
    process: WorkerProcess
    tokens_per_second: float | None = None
    """Set by whoever uses the ticket, from the finished request."""


class Admission:
    """`patience` is seconds (see PATIENCE)."""

    def __init__(
        self, serving: Serving, supervisor: Supervisor, residents: Residents, patience: float = PATIENCE
    ) -> None:
        self._serving = serving
        self._supervisor = supervisor
        self._residents = residents
        self._patience = patience
        self._inside: Counter[str] = Counter()
        self._inside_of: Counter[tuple[str, str]] = Counter()
        self._held: Counter[str] = Counter()
        self._durations: dict[str, deque[float]] = {}

    @contextlib.asynccontextmanager
    async def ticket(self, name: str, key: str = "") -> AsyncIterator[Ticket]:
        """Finds a worker for a request of the API key with the id `key` (empty: none was needed), and counts it
        as running there. Raises ApiError: 404 unknown, 429 too many are inside, 503 no worker within patience."""
        route = self._serving.find(name)
        if route is None:
            raise unknown_model(name, self._serving.names())
        with self._place(route.model, key):
            ticket = await self._wait(name)
            began = time.monotonic()
            try:
                yield ticket
            finally:
                self._supervisor.end_request(ticket.route.engine_key, ticket.tokens_per_second)
                self._remember(ticket.route.model.name, time.monotonic() - began)

    # -- how many --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _place(self, model: ServedModel, key: str) -> Iterator[None]:
        """One of the places that a model has. It is given back however the request ends."""
        name, whose = model.name, (model.name, key)
        if self._serving.held:
            with self._held_place(name):
                yield
            return
        self._refuse_over_bounds(model, key)
        self._inside[name] += 1
        self._inside_of[whose] += 1
        try:
            yield
        finally:
            self._inside -= Counter((name,))
            self._inside_of -= Counter((whose,))

    @contextlib.contextmanager
    def _held_place(self, name: str) -> Iterator[None]:
        if self._held[name] >= HELD_MOST:
            raise busy(f"{name} is being exchanged and {HELD_MOST} requests wait already", 5)
        self._held[name] += 1
        try:
            yield
        finally:
            self._held -= Counter((name,))

    def _refuse_over_bounds(self, model: ServedModel, key: str) -> None:
        name, parallel = model.name, model.placement.parallel
        inside, own = self._inside[name], self._inside_of[name, key]
        again = retry_after(inside, parallel, self._durations.get(name, ()))
        if inside >= bound(model):
            raise busy(f"{name} is busy and {max(0, inside - parallel)} requests wait already", again)
        most = model.limits.queue_per_key
        if key and most is not None and own >= most:
            raise busy(
                f"this API key has {own} requests to {name} inside already, and may have {most}", again
            )

    def _remember(self, name: str, seconds: float) -> None:
        self._durations.setdefault(name, deque(maxlen=_REMEMBERED)).append(seconds)

    # -- which worker ----------------------------------------------------------------------------------

    async def _wait(self, name: str) -> Ticket:
        while True:
            route = await self._serving.route(name)
            if route is None:
                raise unknown_model(name, self._serving.names())
            try:
                async with asyncio.timeout(self._patience):
                    ticket = await self._use(route)
            except TimeoutError:
                what = self._residents.obstacle(route.engine_key)
                why = f"no worker was ready within {self._patience:g} s" + (f": {what}" if what else "")
                raise unavailable(name, why) from None
            if ticket is not None:
                return ticket

    async def _use(self, route: Route) -> Ticket | None:
        """A ticket for the route's worker; None when the release changed, or is being exchanged, while this
        request waited: its turn is at another worker now, or comes when requests flow again."""
        try:
            process = await self._residents.acquire(route.engine_key)
        except WorkerFailure as failure:
            if self._serving.flows(route):
                raise _not_ready(route.name, failure) from None
            return None
        if self._serving.flows(route):
            return Ticket(route, process)
        self._supervisor.end_request(route.engine_key, None)
        return None


def _not_ready(name: str, failure: WorkerFailure) -> ApiError:
    if isinstance(failure, NotLoaded):
        return unavailable(name, f"it could not be loaded: {failure}", max(1, math.ceil(failure.retry_after)))
    return unavailable(name, "its worker is not running")
