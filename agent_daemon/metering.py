"""What is known of one request once it is over: the unit that usage and metrics are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract.histogram import Histogram
from agent_daemon.contract.wire import Usage

Finish = Literal["stop", "length", "tool_calls", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, finished or not. Times are seconds; no text of it is here, or anywhere else.

    `key` is the id of the API key (empty: none was needed), `adapter` is empty without one. `queued` runs from
    the request's arrival until a sequence took it, `first` until its first token (None: there was none),
    `generating` from the first token to the last, `total` from arrival to the end.
    """

    model: str
    release: str
    number: int
    finish: Finish
    adapter: str = ""
    key: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queued: float = 0.0
    first: float | None = None
    generating: float = 0.0
    total: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether its client did not get a whole answer."""
        return self.finish in ("cancelled", "error")

    @property
    def inter_token(self) -> float | None:
        """Mean seconds between two tokens; None with fewer than two."""
        steps = self.completion_tokens - 1
        return self.generating / steps if steps > 0 else None


Count = Callable[[RequestRecord], None]
"""Takes a record durably: on return it is counted, whatever happens to the process."""


def usage_of(record: RequestRecord, minute: int) -> Usage:
    """The request as the usage of one minute. `minute` is its start, seconds since the epoch."""
    until_first = record.total if record.first is None else record.first
    return Usage.model_validate(
        {
            "minute": minute,
            "model": record.model,
            "adapter": record.adapter,
            "key": record.key,
            "release": record.release,
            "number": record.number,
            "requests": 1,
            "failures": int(record.failed),
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "completion_tokens": record.completion_tokens,
            "ttft_ms": round(until_first * 1000),
            "duration_ms": round(record.total * 1000),
            "queue_ms": round(record.queued * 1000),
            f"finish_{record.finish}": 1,
            "ttft_histogram": _observed(record.first),
            "inter_token_histogram": _observed(record.inter_token),
            "queue_histogram": _observed(record.queued),
        }
    )


def _observed(seconds: float | None) -> tuple[int, ...]:
    return Histogram.of(() if seconds is None else (seconds,)).counts
