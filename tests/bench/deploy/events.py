"""PURE. What a deploy tells of itself while it runs, and what follows from it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Line:
    """A line that a program wrote. `at` is when it was read, in seconds since the epoch."""

    at: float
    stream: Literal["out", "err"]
    text: str


@dataclass(frozen=True)
class Moved:
    """`done` of `total` bytes of a file were on a device at `at`, seconds since the epoch."""

    device: str
    what: str
    done: float
    total: float
    at: float


@dataclass(frozen=True)
class Staged:
    """Everything is on a device and verified, by its own word."""

    device: str
    at: float


@dataclass(frozen=True)
class Staging:
    """`first` is when the first byte of all began to move, `last` when the last blob of all was verified, both in
    seconds since the epoch."""

    first: float
    last: float

    @property
    def seconds(self) -> float:
        return self.last - self.first


def parse(lines: Iterable[Line]) -> Iterator[Moved | Staged]:
    """Those events of `edgectl deploy -o json` that tell of bytes. That bytes have come is not that they are right: the
    device says `staged` when they are."""
    for event in documents(lines):
        match event:
            case {"event": "moved", "device": device, "what": what, "done": done, "total": total, "at": at}:
                yield Moved(device, what, done, total, at)
            case {"event": "note", "device": device, "text": "staged", "at": at}:
                yield Staged(device, at)


def documents(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """Every line of standard output that is a JSON object."""
    for line in lines:
        if line.stream == "out" and line.text.startswith("{"):
            try:
                yield json.loads(line.text)
            except ValueError:
                continue


def staging(lines: Iterable[Line], devices: Sequence[str]) -> Staging:
    """From the first byte to the last verified blob. Raises ValueError where the lines do not tell of every device.

    The first that is told of bytes comes after some have moved: when they began to is reckoned from that device's own
    rate."""
    events = list(parse(lines))
    moved = [event for event in events if isinstance(event, Moved) and event.device in devices]
    verified = {event.device: event.at for event in events if isinstance(event, Staged)}
    if lacking := [device for device in devices if device not in verified]:
        raise ValueError(f"nothing says that {', '.join(lacking)} has everything")
    if not moved:
        raise ValueError("nothing says that a byte was moved")
    begins = [_began([event for event in moved if event.device == device], verified[device])
              for device in {event.device for event in moved}]  # fmt: skip
    return Staging(min(begins), max(verified[device] for device in devices))


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """What a rollout came to: its last event. Raises ValueError where there is none."""
    for event in documents(lines):
        if event.get("event") == "finished":
            return event
    raise ValueError("it did not say what it came to")


def _began(moved: Sequence[Moved], verified: float) -> float:
    first, last = moved[0], moved[-1]
    if last.done <= first.done:
        return first.at
    rate = (last.done - first.done) / max(last.at - first.at, 1e-3)
    return max(first.at - first.done / rate, first.at - (verified - first.at))
