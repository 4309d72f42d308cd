"""Which devices change together, and in which order. PURE."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from edgectl.rollouts.policy import Part, Policy

_PIECE = re.compile(r"[0-9]+|[^0-9]+")

Key = tuple[tuple[int, int, str], ...]


def natural(text: str) -> Key:
    """A key to sort by: numbers inside text count as numbers, so that ring2 is before ring10."""
    return tuple(
        (0, int(piece), piece) if piece[0].isdecimal() else (1, 0, piece) for piece in _PIECE.findall(text)
    )


def parts(devices: Sequence[tuple[str, Mapping[str, str]]], policy: Policy) -> tuple[Part, ...]:
    """Each device (its name and its labels) with its wave: the canary alone, then batches of at most
    `max_unavailable`. In the order of the labels' values, those without one last, else as given. A batch holds
    devices with one value of the first label only, so that each ring is done before the next one begins."""
    known = [(name, {**labels, "name": name}) for name, labels in devices]
    if policy.order_by:
        known.sort(key=lambda device: [_place(device[1].get(label)) for label in policy.order_by])
    canary = min(policy.canary.of(len(known)), len(known)) if policy.canary else 0
    size = max(1, policy.max_unavailable.of(len(known)))
    found = [Part(name, 0) for name, _ in known[:canary]]
    wave = 1 if canary else 0
    for _, group in groupby(known[canary:], key=lambda device: _ring(device[1], policy)):
        names = [name for name, _ in group]
        for start in range(0, len(names), size):
            found += [Part(name, wave) for name in names[start : start + size]]
            wave += 1
    return tuple(found)


def _place(value: str | None) -> tuple[bool, Key]:
    return (value is None, natural(value or ""))


def _ring(labels: Mapping[str, str], policy: Policy) -> str | None:
    first = policy.order_by[0] if policy.order_by else "name"
    # names differ for every device: an order, but no ring
    return None if first == "name" else labels.get(first)
