"""PURE. What a client saw of its requests, and the figures that are made of it."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a chat, and how many tokens its answer may have."""

    messages: tuple[Mapping[str, str], ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it arrived. Times are seconds of one monotonic clock: when it was asked for, when each piece of
    its text came, and when it was over."""

    asked: float
    pieces: tuple[float, ...]
    ended: float
    text: str
    finish: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def first(self) -> float:
        """Seconds from the question to the first text; for an answer without any, to its end."""
        return (self.pieces[0] if self.pieces else self.ended) - self.asked


@dataclass(frozen=True, slots=True)
class Scene:
    """One measured part of a workload: all its answers, its seconds from the first question to the last token, and
    the worst gap in the streams `beside`, which count for the speed only."""

    name: str
    answers: tuple[Answer, ...]
    seconds: float
    worst_gap: float | None = None
    beside: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one scene: seconds, tokens and bytes. `whole` is the part of the answers that ran to their limit; where it
    is not 1, tokens per second are of fewer tokens. None: not measured here."""

    tokens_per_second: float
    ttft_p50: float
    ttft_p99: float
    seconds: float
    worst_gap: float | None
    prompt_tokens: float
    cached_tokens: float
    completion_tokens: float
    whole: float
    rss: float | None = None
    pss: float | None = None
    worker_pss: float | None = None


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` (0 to 1) of them do not exceed. Raises ValueError without values."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def worst_gap(answers: Sequence[Answer], begin: float, end: float) -> float:
    """The longest time between two pieces of one stream that touches the time from `begin` to `end`, all in seconds.
    Raises ValueError when nothing was said in that time."""
    return max(
        later - earlier
        for answer in answers
        for earlier, later in itertools.pairwise(answer.pieces)
        if earlier < end and later > begin
    )


def figures(scene: Scene, memory: Mapping[str, int] | None = None) -> Figures:
    """The figures of one scene; `memory` has `rss`, `pss` and perhaps `worker_pss`, in bytes."""
    answers, memory = scene.answers, memory or {}
    tokens = sum(each.completion_tokens for each in (*answers, *scene.beside))
    firsts = [each.first for each in answers]
    return Figures(
        tokens_per_second=tokens / scene.seconds,
        ttft_p50=percentile(firsts, 0.5),
        ttft_p99=percentile(firsts, 0.99),
        seconds=scene.seconds,
        worst_gap=scene.worst_gap,
        prompt_tokens=sum(each.prompt_tokens for each in answers),
        cached_tokens=sum(each.cached_tokens for each in answers),
        completion_tokens=tokens,
        whole=sum(each.finish == "length" for each in answers) / len(answers),
        rss=memory.get("rss"),
        pss=memory.get("pss"),
        worker_pss=memory.get("worker_pss"),
    )


def medians(repetitions: Sequence[Figures]) -> Figures:
    """Every figure's median by itself; None where a repetition has none."""
    found: dict[str, float | None] = {}
    for field in fields(Figures):
        values = [getattr(each, field.name) for each in repetitions]
        found[field.name] = None if None in values else statistics.median(values)
    return Figures(**found)  # type: ignore[arg-type]  # only figures that may be None are


def ratio(ours: Figures, peer: Figures) -> dict[str, float]:
    """How many times as good as the peer: above 1 is better, whatever the figure (for memory above 1 is leaner)."""
    found = {"tokens_per_second": ours.tokens_per_second / peer.tokens_per_second}
    for name in ("ttft_p50", "ttft_p99", "seconds", "worst_gap", "rss", "pss"):
        mine, theirs = getattr(ours, name), getattr(peer, name)
        if mine and theirs:
            found[name] = theirs / mine
    return found
