"""Whose turn it is."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.worker.pace import ALONE, WHILE_STREAMING, Pace
from agent_daemon.worker.turns import fair_order, share


@dataclass(frozen=True)
class Asked:
    client: str
    number: int


def order(waiting: str, served: dict[str, int] | None = None) -> str:
    """The clients of `waiting`, a letter each, in the order in which they get their turn."""
    items = [Asked(client, number) for number, client in enumerate(waiting)]
    return "".join(item.client for item in fair_order(items, served or {}))


def test_one_client_is_served_in_order() -> None:
    items = [Asked("a", number) for number in range(5)]
    assert fair_order(items, {}) == items


@pytest.mark.parametrize(
    ("waiting", "served", "expected"),
    [
        ("aaaab", {}, "abaaa"),
        ("aaabbb", {}, "ababab"),
        ("aab", {"a": 2}, "baa"),
        ("aab", {"b": 3}, "aab"),
        ("abc", {"a": 1, "b": 1, "c": 1}, "abc"),
    ],
)
def test_clients_take_turns(waiting: str, served: dict[str, int], expected: str) -> None:
    assert order(waiting, served) == expected


@pytest.mark.parametrize(
    ("room", "pending", "expected"),
    [
        (100, [], []),
        (100, [30], [30]),
        (100, [300], [100]),
        # Half to the oldest, the rest to the shortest.
        (100, [3000, 40], [60, 40]),
        (100, [3000, 500], [50, 50]),
        (100, [3000, 500, 20], [50, 30, 20]),
        (100, [10, 500, 200], [10, 0, 90]),
        (1, [5, 5], [1, 0]),
        (0, [5, 5], [0, 0]),
    ],
)
def test_room_is_shared_between_the_oldest_and_the_shortest(
    room: int, pending: list[int], expected: list[int]
) -> None:
    assert share(room, pending) == expected


@given(st.integers(0, 600), st.lists(st.integers(1, 4000), max_size=12))
def test_no_room_is_wasted_and_nobody_gets_more_than_it_needs(room: int, pending: list[int]) -> None:
    parts = share(room, pending)
    assert sum(parts) == min(room, sum(pending))
    assert all(0 <= part <= need for part, need in zip(parts, pending, strict=True))


def test_a_step_is_careful_until_it_was_measured() -> None:
    pace = Pace()
    assert pace.room(streaming=False, most=512) == 64
    assert pace.room(streaming=True, most=40) == 40


def test_a_step_takes_what_can_be_done_in_its_time() -> None:
    pace = Pace()
    pace.learn(200, 1.0)
    assert pace.room(streaming=True, most=512) == 200 * WHILE_STREAMING
    assert pace.room(streaming=False, most=512) == 200 * ALONE
    pace.learn(10_000, 1.0)
    assert pace.room(streaming=False, most=512) == 512


def test_small_steps_say_nothing_of_how_fast_prompts_are() -> None:
    pace = Pace()
    pace.learn(200, 1.0)
    for _ in range(100):
        pace.learn(1, 0.05)
    assert pace.room(streaming=False, most=512) == 200
