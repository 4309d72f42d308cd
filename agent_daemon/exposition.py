"""Prometheus' text format, version 0.0.4: families of samples in, a page out. PURE."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from agent_daemon.contract.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name. A sample without a value (unknown) is left out, and so is a family without any."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Labels, float | None], ...]


@dataclass(frozen=True, slots=True)
class HistogramFamily:
    """Histograms of one name, each with the sum of the durations in it, in seconds."""

    name: str
    help: str
    samples: tuple[tuple[Labels, Histogram, float], ...]


def page(families: Iterable[Family | HistogramFamily]) -> str:
    """The whole answer to a scrape."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family | HistogramFamily) -> Iterator[str]:
    samples = list(_histograms(family) if isinstance(family, HistogramFamily) else _values(family))
    if samples:
        kind = "histogram" if isinstance(family, HistogramFamily) else family.kind
        yield f"# HELP {family.name} {_escaped(family.help)}"
        yield f"# TYPE {family.name} {kind}"
        yield from samples


def _values(family: Family) -> Iterator[str]:
    for labels, value in family.samples:
        if value is not None:
            yield _sample(family.name, labels, value)


def _histograms(family: HistogramFamily) -> Iterator[str]:
    bounds = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")
    for labels, histogram, seconds in family.samples:
        for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
            yield _sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
        yield _sample(f"{family.name}_sum", labels, seconds)
        yield _sample(f"{family.name}_count", labels, histogram.total)


def _sample(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_quoted(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
