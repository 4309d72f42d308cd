"""How far off the predictions are, and whether that is within the bounds. PURE."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent_daemon.contract.need import Share
from tests.bench.fit.grid import Pair

MIB = 1024 * 1024
EXACT = 0.001
"""Of weights and of cache."""
COMPUTE, COMPUTE_BYTES = 0.05, 8 * MIB
"""Of compute, whichever is more."""
MEDIAN, WORST = 0.01, 0.02
"""Of the total of one memory."""


@dataclass(frozen=True)
class Figures:
    """Errors are parts of the truth, of each memory by itself: 0.01 is a hundredth. `beyond` names the memories whose
    compute is off by more than is allowed, `uncertain` the models of which we say so, `worst` the memory whose total is
    off the most."""

    memories: int
    weights: float
    cache: float
    compute: float
    compute_bytes: int
    beyond: tuple[str, ...]
    uncertain: tuple[str, ...]
    median: float
    largest: float
    worst: str

    @property
    def within(self) -> int:
        """Memories whose compute is within the bound."""
        return self.memories - len(self.beyond)

    def broken(self) -> tuple[str, ...]:
        """Each bound that does not hold, with its figure."""
        found = []
        for name, off in (("weights", self.weights), ("cache", self.cache)):
            if off > EXACT:
                found.append(f"{name} off by {off:.3%}, allowed is {EXACT:.1%}")
        if self.beyond:
            found.append(
                f"compute beyond 5% and 8 MiB {len(self.beyond)} times: {'; '.join(self.beyond[:4])}"
            )
        if self.median > MEDIAN:
            found.append(f"totals off by {self.median:.2%} at the median, allowed is {MEDIAN:.0%}")
        if self.largest > WORST:
            found.append(f"a total off by {self.largest:.2%} ({self.worst}), allowed is {WORST:.0%}")
        return tuple(found)


def off(predicted: int, true: int) -> float:
    """The error as a part of the truth; of nothing, 0 if nothing was predicted, else all of it."""
    if true:
        return abs(predicted - true) / true
    return 1.0 if predicted else 0.0


def figures(pairs: Sequence[Pair]) -> Figures:
    """Of all memories of these configurations. Raises ValueError for none."""
    named = [
        (f"{pair.model} {pair.setting} {place}", one, other)
        for pair in pairs
        for place, one, other in pair.places()
    ]
    kept = [_kept(pair) for pair in pairs for _ in pair.places()]
    if not named:
        raise ValueError("no configuration to judge")
    totals = [(off(one.total, other.total), name) for name, one, other in named]
    largest, worst = max(totals)
    return Figures(
        memories=len(named),
        weights=max(off(one.weights, other.weights) for _, one, other in named),
        cache=max(off(one.kv_cache, other.kv_cache) for _, one, other in named),
        compute=max(off(one.compute, other.compute) for _, one, other in named),
        compute_bytes=max(abs(one.compute - other.compute) for _, one, other in named),
        beyond=tuple(
            name
            for (name, one, other), margin in zip(named, kept, strict=True)
            if _too_far(one, other, margin)
        ),
        uncertain=tuple(sorted({pair.model for pair in pairs if pair.predicted.uncertain})),
        median=statistics.median(each for each, _ in totals),
        largest=largest,
        worst=worst,
    )


def _kept(pair: Pair) -> int:
    """What is kept for a model whose figures are said to be uncertain: it may be off by that."""
    return pair.predicted.margin if pair.predicted.uncertain else 0


def _too_far(predicted: Share, true: Share, margin: int) -> bool:
    apart = abs(predicted.compute - true.compute)
    return apart > max(COMPUTE_BYTES, COMPUTE * true.compute, margin)


@dataclass(frozen=True)
class Spread:
    """Signed errors of totals, as parts of the truth: the median of their sizes, the furthest below (too little was
    said) and above, how many are within `WORST`; and the largest error of the cache."""

    count: int
    median: float
    below: float
    above: float
    within: int
    cache: float


def spread(said: Iterable[tuple[Share, Share]]) -> Spread:
    """Of what somebody says, each with its truth. Raises ValueError for nothing said."""
    each = list(said)
    if not each:
        raise ValueError("nothing was said")
    totals = [one.total / other.total - 1 for one, other in each]
    return Spread(
        count=len(each),
        median=statistics.median(abs(total) for total in totals),
        below=min(0.0, min(totals)),
        above=max(0.0, max(totals)),
        within=sum(abs(total) <= WORST for total in totals),
        cache=max(off(one.kv_cache, other.kv_cache) for one, other in each),
    )
