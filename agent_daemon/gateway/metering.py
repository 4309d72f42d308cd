"""Counts one request and hands the count to the spool: before the client sees the end of its answer."""

import time
from collections.abc import Callable

from agent_daemon.contract.wire import Usage
from agent_daemon.gateway.admission import Ticket
from agent_daemon.worker_messages import Done, Event, Started, Text, Vectors

Count = Callable[[Usage], None]


class Meter:
    """Watches the events of one request. Times run from the moment that the request arrived."""

    def __init__(self) -> None:
        self._arrived = time.monotonic()
        self._first: float | None = None
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self.completed = False

    def see(self, event: Event) -> None:
        if isinstance(event, Started):
            self._prompt_tokens = event.prompt_tokens
        elif isinstance(event, Text):
            self._first = self._first or time.monotonic()
            self._completion_tokens = event.tokens
        elif isinstance(event, Done):
            self._first = self._first or time.monotonic()
            self._prompt_tokens = event.prompt_tokens
            self._completion_tokens = event.completion_tokens
            self.completed = event.finish_reason != "cancelled"
        elif isinstance(event, Vectors):
            self._first = time.monotonic()
            self._prompt_tokens = event.prompt_tokens
            self.completed = True

    def usage(self, ticket: Ticket) -> Usage:
        """What to count for the request, finished or not. Cancelled and broken ones count as failures, with
        the tokens that they cost."""
        now = time.monotonic()
        return Usage(
            minute=int(time.time() // 60 * 60),
            model=ticket.route.model.name,
            release=ticket.route.release,
            number=ticket.route.number,
            requests=1,
            failures=0 if self.completed else 1,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            ttft_ms=round(((self._first or now) - self._arrived) * 1000),
            duration_ms=round((now - self._arrived) * 1000),
        )
