"""What one request came to: watched event by event, and told as a record at its end."""

import time
from typing import Protocol

from agent_daemon.contract.release import ServedModel
from agent_daemon.metering import Finish, RequestRecord
from agent_daemon.worker_messages import Chunk, Done, Event, Refused, Started, Text, ToolCall, Vectors


class Metered(Protocol):
    """Where a request went: what its record is named by."""

    @property
    def model(self) -> ServedModel: ...
    @property
    def adapter(self) -> str | None: ...
    @property
    def release(self) -> str: ...
    @property
    def number(self) -> int: ...


class Meter:
    """Watches the events of one request. `arrived` and `now` are seconds of the monotonic clock.

    A `Done` says exactly what an answer cost. Where there is none, because the client left or the worker died,
    the pieces that came are counted as tokens.
    """

    def __init__(self, arrived: float) -> None:
        self._arrived = arrived
        self._started: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._pieces = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._end: Done | Vectors | Refused | None = None

    def see(self, event: Event | Chunk, now: float | None = None) -> None:
        """Takes note of one event. `now` defaults to this moment."""
        now = time.monotonic() if now is None else now
        match event:
            case Chunk():
                self._piece(self._pieces + 1, now)
            case Text():
                self._piece(event.tokens, now)
            case ToolCall():
                self._piece(self._pieces + 1, now)
            case Started():
                self._started = now
                self._prompt_tokens, self._cached_tokens = event.prompt_tokens, event.cached_tokens
            case Done():
                self._end = event
                self._prompt_tokens, self._cached_tokens = event.prompt_tokens, event.cached_tokens
            case Vectors():
                self._end = event
                self._prompt_tokens = event.prompt_tokens
            case Refused():
                self._end = event

    def _piece(self, count: int, now: float) -> None:
        self._first = now if self._first is None else self._first
        self._last, self._pieces = now, count

    def record(
        self, route: Metered, key: str, finish: Finish | None = None, now: float | None = None
    ) -> RequestRecord:
        """The request as it stands `now`. `key` is the id of its API key, or empty. `finish` says how it ended
        where that is known better than from its events: without it, a request whose end did not come was
        cancelled."""
        total = (time.monotonic() if now is None else now) - self._arrived
        queued, first, generating = self._times(total)
        return RequestRecord(
            model=route.model.name,
            adapter=route.adapter or "",
            release=route.release,
            number=route.number,
            key=key,
            finish=finish or self._finish(),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._end.completion_tokens if isinstance(self._end, Done) else self._pieces,
            queued=queued,
            first=first,
            generating=generating,
            total=total,
        )

    def _finish(self) -> Finish:
        match self._end:
            case Done():
                return self._end.finish_reason
            case Vectors():
                return "stop"
            case Refused():
                return "error"
        return "cancelled"

    def _times(self, total: float) -> tuple[float, float | None, float]:
        """Seconds queued, to the first token, and from it to the last.

        The worker's clock is not delayed by how busy the agent is, but it starts only when a request gets there:
        what had passed by then, waiting for a model to be loaded above all, comes on top.
        """
        started = None if self._started is None else self._started - self._arrived
        if isinstance(self._end, Done):
            before = 0.0 if started is None else max(0.0, started - self._end.queued)
            first = None if self._end.first is None else before + self._end.first
            return before + self._end.queued, first, self._end.seconds
        first = None if self._first is None else self._first - self._arrived
        generating = 0.0 if self._first is None or self._last is None else self._last - self._first
        if started is None:
            # Embeddings and refusals come in one step: nothing is told of a wait before them.
            return (total if self._end is None else 0.0), first, generating
        return started, first, generating
