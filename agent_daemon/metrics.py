"""What a scrape is told: sums over the requests since the agent started, and the workers as they are now.

Names are llama-server's where it has one, with a `model` label; the rest begins with `edgectl_`. Requests of an
adapter count for its model too. Which key asked is never told.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.exposition import Family, HistogramFamily, Labels, page
from agent_daemon.metering import RequestRecord
from agent_daemon.worker_messages import Stats


@dataclass
class _Durations:
    histogram: Histogram = EMPTY
    seconds: float = 0.0

    def add(self, seconds: float | None) -> None:
        if seconds is not None:
            self.histogram += Histogram.of((seconds,))
            self.seconds += seconds


@dataclass
class _Model:
    """Sums over the requests of one model; `computed` are the prompt tokens that were not cached, `steps` the
    tokens that followed a first one."""

    computed: int = 0
    cached: int = 0
    prompt_seconds: float = 0.0
    generated: int = 0
    steps: int = 0
    generating_seconds: float = 0.0
    first: _Durations = field(default_factory=_Durations)
    inter_token: _Durations = field(default_factory=_Durations)
    queued: _Durations = field(default_factory=_Durations)

    def add(self, record: RequestRecord) -> None:
        until_first = record.total if record.first is None else record.first
        self.computed += record.prompt_tokens - record.cached_tokens
        self.cached += record.cached_tokens
        self.prompt_seconds += max(0.0, until_first - record.queued)
        self.generated += record.completion_tokens
        self.steps += max(0, record.completion_tokens - 1)
        self.generating_seconds += record.generating
        self.first.add(record.first)
        self.inter_token.add(record.inter_token)
        self.queued.add(record.queued)


_SUMS: tuple[tuple[str, str, Callable[[_Model], float | None]], ...] = (
    ("llamacpp:prompt_tokens_total", "Prompt tokens that were computed.", lambda it: it.computed),
    ("llamacpp:prompt_tokens_cached_total", "Prompt tokens that were cached.", lambda it: it.cached),
    ("llamacpp:prompt_seconds_total", "Seconds spent on prompts.", lambda it: it.prompt_seconds),
    ("llamacpp:tokens_predicted_total", "Tokens generated.", lambda it: it.generated),
    (
        "llamacpp:tokens_predicted_seconds_total",
        "Seconds from first tokens to last ones.",
        lambda it: it.generating_seconds,
    ),
    (
        "llamacpp:prompt_tokens_seconds",
        "Prompt tokens computed in a second of one request, on average.",
        lambda it: _rate(it.computed, it.prompt_seconds),
    ),
    (
        "llamacpp:predicted_tokens_seconds",
        "Tokens generated in a second of one request, on average.",
        lambda it: _rate(it.steps, it.generating_seconds),
    ),
)
_DURATIONS: tuple[tuple[str, str, Callable[[_Model], _Durations]], ...] = (
    ("edgectl_time_to_first_token_seconds", "From arrival to the first token.", lambda it: it.first),
    ("edgectl_inter_token_seconds", "From token to token: each request's mean.", lambda it: it.inter_token),
    ("edgectl_queue_seconds", "From arrival until a sequence was free.", lambda it: it.queued),
)
_INSIDE: tuple[tuple[str, str, Callable[[Stats], float]], ...] = (
    ("llamacpp:requests_processing", "Requests that hold a sequence.", lambda it: it.sequences_running),
    ("llamacpp:requests_deferred", "Requests that wait for one.", lambda it: it.waiting),
    ("llamacpp:n_decode_total", "Calls of llama_decode.", lambda it: it.steps),
    (
        "llamacpp:kv_cache_usage_ratio",
        "Part of the KV cells that is in use.",
        lambda it: it.cells_used / max(1, it.cells),
    ),
    ("llamacpp:kv_cache_tokens", "KV cells in use.", lambda it: it.cells_used),
    ("edgectl_kv_cells", "KV cells that there are.", lambda it: it.cells),
    ("edgectl_kv_cells_held", "KV cells that only the prefix cache keeps.", lambda it: it.cells_held),
    ("edgectl_sequences", "Sequences that there are.", lambda it: it.sequences),
    ("edgectl_sequences_held", "Sequences that only the prefix cache keeps.", lambda it: it.sequences_held),
    ("edgectl_preemptions_total", "Requests put back for want of cells.", lambda it: it.preemptions),
    ("edgectl_evictions_total", "Prefixes given up for want of cells.", lambda it: it.evictions),
)


class Metrics:
    """The sums of one agent's life. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: defaultdict[str, _Model] = defaultdict(_Model)
        self._requests: Counter[tuple[str, str, str]] = Counter()

    def observe(self, record: RequestRecord) -> None:
        """Counts one request, finished or not."""
        with self._lock:
            self._models[record.model].add(record)
            self._requests[record.model, record.adapter, record.finish] += 1

    def text(self, stats: Mapping[str, Stats], workers: tuple[WorkerStatus, ...]) -> str:
        """The page for a scrape, of the type `exposition.CONTENT_TYPE`. `stats` are those of the workers that
        answered, by engine key."""
        with self._lock:
            return page([*self._of_requests(), *_of_workers(stats, workers)])

    def _of_requests(self) -> Iterator[Family | HistogramFamily]:
        models = [({"model": name}, model) for name, model in sorted(self._models.items())]
        for name, help_, value in _SUMS:
            yield _family(name, help_, ((labels, value(model)) for labels, model in models))
        requests = (
            ({"model": model, "adapter": adapter, "finish": finish}, count)
            for (model, adapter, finish), count in sorted(self._requests.items())
        )
        yield _family("edgectl_requests_total", "Requests by how they finished.", requests)
        for name, help_, durations in _DURATIONS:
            found = ((labels, durations(model)) for labels, model in models)
            samples = tuple((labels, each.histogram, each.seconds) for labels, each in found)
            yield HistogramFamily(name, help_, samples)


def _of_workers(stats: Mapping[str, Stats], workers: tuple[WorkerStatus, ...]) -> Iterator[Family]:
    named = [(_labels(worker), worker) for worker in workers]
    inside = [(labels, stats[worker.engine_key]) for labels, worker in named if worker.engine_key in stats]
    for name, help_, value in _INSIDE:
        yield _family(name, help_, ((labels, value(each)) for labels, each in inside))
    ready = ((labels, int(worker.state is WorkerState.READY)) for labels, worker in named)
    yield _family("edgectl_worker_ready", "1 when the worker can serve.", ready)
    restarts = ((labels, worker.restarts) for labels, worker in named)
    yield _family("edgectl_worker_restarts_total", "How often it ended and was started again.", restarts)


def _family(name: str, help_: str, samples: Iterator[tuple[Labels, float | None]]) -> Family:
    return Family(name, "counter" if name.endswith("_total") else "gauge", help_, tuple(samples))


def _labels(worker: WorkerStatus) -> Labels:
    """The models that a worker serves, without their adapters' names, and which of their workers it is: for a
    moment of a rollout there are two."""
    names = [name for name in worker.models if name.rpartition(":")[0] not in worker.models]
    return {"model": ",".join(names), "worker": worker.engine_key.removeprefix("sha256:")[:12]}


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 else None
