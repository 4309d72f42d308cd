"""How many cells of the unified cache are in use, counted from what sequences share. PURE.

llama.cpp does not say how many cells are taken. They follow from this: a sequence's tokens lie in runs of cells;
a copy of a prefix takes over the runs of its source as far as it reaches, and then begins a run of its own.
A cell is in use while any sequence reaches it.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class Run:
    """Cells that one sequence filled, one after the other, from position `start` on."""

    __slots__ = ("start",)

    def __init__(self, start: int) -> None:
        self.start = start


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a run that a sequence reaches: up to position `end`, which is not included."""

    run: Run
    end: int


Spans = tuple[Span, ...]
"""Of one sequence, in order of position, without a gap."""


def prefix(spans: Spans, length: int) -> Spans:
    """The spans of a copy of the first `length` positions."""
    return tuple(Span(span.run, min(span.end, length)) for span in spans if span.run.start < length)


def grown(spans: Spans, own: Run, end: int) -> Spans:
    """The spans after the sequence has filled cells of its `own` run up to `end`."""
    shared = spans[:-1] if spans and spans[-1].run is own else spans
    return (*shared, Span(own, end)) if end > own.start else shared


def used(sequences: Iterable[Spans]) -> int:
    """Cells that any of these sequences reaches."""
    ends: dict[Run, int] = {}
    for spans in sequences:
        for span in spans:
            ends[span.run] = max(span.end, ends.get(span.run, 0))
    return sum(end - run.start for run, end in ends.items())
