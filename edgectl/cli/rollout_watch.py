"""Following a rollout from the inventory, in whatever process it goes on: a line for every change, until it ends."""

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgectl.cli.cells import cell, printable
from edgectl.cli.fleet_report import spoken
from edgectl.cli.output import Form
from edgectl.cli.rollout_report import headline
from edgectl.inventory import rollout_queries

INTERVAL = 0.5
"""Seconds between two looks."""

_ALIVE_EVERY = 2.0
"""Seconds between two looks for the owner's process, which may vanish without a word in the inventory."""


@dataclass(frozen=True)
class Change:
    """One thing that came to pass: a device ended, or the rollout stands otherwise (then `device` is None)."""

    row: dict[str, Any]
    device: dict[str, Any] | None = None


def follow(
    connection: sqlite3.Connection,
    number: int,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Change]:
    """Every change from now on, beginning with how it stands; ends with the change after which it does not run."""
    row = rollout_queries.rollout(connection, number)
    told = _outcomes(rollout_queries.rollout_devices(connection, number))
    yield Change(row)
    seen, looked = _version(connection), time.monotonic()
    while row["state"] == "running":
        pause(INTERVAL)
        version, now = _version(connection), time.monotonic()
        if version == seen and now - looked < _ALIVE_EVERY:
            continue
        seen, looked, before = version, now, row
        # The state first: what ended before it changed is then in the devices read after it.
        row = rollout_queries.rollout(connection, number)
        for device in rollout_queries.rollout_devices(connection, number):
            if device["outcome"] is not None and told.get(device["device"]) != _word(device):
                told[device["device"]] = _word(device)
                yield Change(row, device)
        if (row["state"], row["state_reason"]) != (before["state"], before["state_reason"]):
            yield Change(row)


def show(change: Change, form: Form) -> None:
    """One change on stdout, at once: a line for people, or a line of JSON."""
    row, device = change.row, change.device
    if form is Form.JSON:
        event = {"event": "outcome", **device} if device else {"event": "state", **row}
        text = json.dumps({"rollout": row["rollout"], **event})
    elif device:
        took = f" after {cell(device['seconds'], 'seconds')}" if device["seconds"] else ""
        reason = f": {device['reason']}" if device["reason"] else ""
        done = f"{row['ended']:,}/{row['devices']:,}"
        text = f"{done}  wave {device['wave'] + 1}  {device['device']}  {spoken(device['outcome'])}{took}{reason}"
    else:
        text = headline(row)
    sys.stdout.write((text if form is Form.JSON else printable(text)) + "\n")
    sys.stdout.flush()


def _outcomes(devices: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {each["device"]: _word(each) for each in devices if each["outcome"] is not None}


def _word(device: dict[str, Any]) -> tuple[Any, ...]:
    return device["outcome"], device["at"]


def _version(connection: sqlite3.Connection) -> int:
    """A number that changes when anybody else has written."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
