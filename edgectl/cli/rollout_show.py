"""A rollout in front of whoever asked for it: bars and lines for people, one line of JSON for each event for programs."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from edgectl.cli.cells import some_devices
from edgectl.cli.output import Bars, Form, bars
from edgectl.cli.plan_report import result_document
from edgectl.rollouts.events import (
    Event,
    Halted,
    Heard,
    Looked,
    Lost,
    Moved,
    Noted,
    Paused,
    Result,
    WaveEnded,
)

_EVERY = 0.5
"""Seconds between two lines about the same transfer."""
_TOTAL = "all devices"


class Show(Protocol):
    """What is told of a rollout while it goes on."""

    def begin(self, rollout: int, document: dict[str, Any]) -> None: ...

    def tell(self, event: Event) -> None: ...

    def fetch(self, label: str, done: int, total: int | None) -> None:
        """Bytes that this machine itself fetches before it can send them."""
        ...


@contextmanager
def showing(form: Form, bytes_to_move: int) -> Iterator[Show]:
    """For as long as the block runs."""
    if form is Form.JSON:
        yield Lines()
        return
    with bars(quiet=True) as progress:
        yield Screen(progress, bytes_to_move)


class Screen:
    """Bars while bytes move (on a terminal only), a line for what devices say."""

    def __init__(self, progress: Bars, bytes_to_move: int) -> None:
        self._progress = progress
        self._total = bytes_to_move
        self._moved: dict[tuple[str, str], int] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._lost: set[str] = set()

    def begin(self, rollout: int, document: dict[str, Any]) -> None:
        waves = document["waves"]
        if waves > 1:
            self._progress.say(f"rollout {rollout}: {waves} waves")

    def tell(self, event: Event) -> None:
        match event:
            case Moved():
                self._lost.discard(event.device)
                self._move(event)
            case Noted():
                self._lost.discard(event.device)
                self._progress.say(f"{event.device}: {event.text}")
            case Lost():
                if event.device not in self._lost:
                    self._lost.add(event.device)
                    self._progress.say(f"{event.device}: {event.reason}; trying again")
            case WaveEnded():
                self._progress.say(f"wave {event.wave + 1} is done: {some_devices(len(event.devices))}")
            case Paused():
                self._progress.say(f"paused: {event.reason}")
            case Halted():
                left = f"; left as before: {some_devices(len(event.devices))}" if event.devices else ""
                self._progress.say(f"halted: {event.reason}{left}")
            case Result():
                self._progress.drop(event.device)
            case Heard() | Looked():
                pass

    def fetch(self, label: str, done: int, total: int | None) -> None:
        self._progress.update(label, done, total)

    def _move(self, event: Moved) -> None:
        key = (event.device, event.what)
        # What was there before this run is no part of what it moves.
        begun = self._begun.setdefault(key, event.done)
        self._moved[key] = event.done - begun
        self._progress.update(f"{event.device}: {event.what}", event.done, event.total)
        if len({device for device, _ in self._moved}) > 1:
            self._progress.update(_TOTAL, min(sum(self._moved.values()), self._total), self._total)


class Lines:
    """One JSON document a line on stdout, each with `event` and `at` (seconds since the epoch)."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}

    def begin(self, rollout: int, document: dict[str, Any]) -> None:
        line("started", rollout=rollout, **document)

    def fetch(self, label: str, done: int, total: int | None) -> None:
        if self._due(("", label), done, total):
            line("fetched", what=label, done=done, total=total)

    def tell(self, event: Event) -> None:
        match event:
            case Moved():
                if self._due((event.device, event.what), event.done, event.total):
                    line("moved", device=event.device, what=event.what, done=event.done, total=event.total)
            case Noted():
                line("note", device=event.device, text=event.text)
            case Lost():
                line("lost", device=event.device, reason=event.reason)
            case Looked():
                line("health", device=event.device, health=event.health.value, reason=event.reason)
            case WaveEnded():
                line("wave", wave=event.wave, devices=list(event.devices))
            case Paused():
                line("paused", reason=event.reason)
            case Halted():
                line("halted", reason=event.reason, devices=list(event.devices))
            case Result():
                line("outcome", **result_document(event))
            case Heard():
                pass

    def _due(self, key: tuple[str, str], done: int, total: int | None) -> bool:
        now = time.monotonic()
        if done != total and now - self._told.get(key, float("-inf")) < _EVERY:
            return False
        self._told[key] = now
        return True


def line(event: str, **fields: Any) -> None:
    """Prints one event."""
    sys.stdout.write(json.dumps({"event": event, "at": round(time.time(), 3), **fields}) + "\n")
    sys.stdout.flush()
