"""Whose turn it is: which waiting request is looked at next, and how a step's room is shared among prompts. PURE."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Waits(Protocol):
    """A request that waits, and who sent it."""

    @property
    def client(self) -> str: ...


Item = TypeVar("Item", bound=Waits)


def fair_order(waiting: Sequence[Item], served: dict[str, int]) -> list[Item]:
    """The waiting requests by turns of their clients: each client's own in order of arrival, first the client that
    was served least (`served` counts it) and of those equal the one that has waited longest."""
    turns: dict[str, int] = {}
    keyed = []
    for arrival, item in enumerate(waiting):
        turn = turns.get(item.client, served.get(item.client, 0))
        turns[item.client] = turn + 1
        keyed.append((turn, arrival, item))
    return [item for _turn, _arrival, item in sorted(keyed, key=lambda entry: entry[:2])]


def share(room: int, pending: Sequence[int]) -> list[int]:
    """How many tokens of each prompt to compute in a step of `room` tokens; `pending` in order of age.

    Half goes to the oldest, so that a long one comes to its end, the rest to the shortest ones, so that nobody waits
    behind a long one; what is left over goes to the oldest that can use it.
    """
    parts = [0] * len(pending)
    if not pending:
        return parts
    parts[0] = min(pending[0], -(-room // 2))
    left = room - parts[0]
    by_length = sorted(range(1, len(pending)), key=lambda index: (pending[index], index))
    for index in (*by_length, 0):
        more = min(pending[index] - parts[index], left)
        parts[index] += more
        left -= more
    return parts
