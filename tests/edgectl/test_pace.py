"""The bound on what leaves this machine."""

import pytest

from edgectl.transport.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_without_a_bound_nothing_waits() -> None:
    clock = Clock()
    pace = Pace(None, lambda: clock.now, clock.pause)
    pace.take(10**12)
    assert clock.now == 100.0


def test_the_rate_is_kept_however_it_is_cut_up() -> None:
    clock = Clock()
    pace = Pace(1000.0, lambda: clock.now, clock.pause)
    for _ in range(50):
        pace.take(100)
    assert clock.now - 100.0 == pytest.approx(5.0)


def test_what_was_not_sent_is_not_caught_up_with() -> None:
    clock = Clock()
    pace = Pace(1000.0, lambda: clock.now, clock.pause)
    clock.now += 60
    began = clock.now
    pace.take(3000)
    # A quarter of a second's worth may go at once, not a minute's.
    assert clock.now - began == pytest.approx(2.75)


def test_a_piece_is_never_more_than_a_short_pause_is_worth() -> None:
    assert Pace(None).piece(1 << 18) == 1 << 18
    assert Pace(1e9).piece(1 << 18) == 1 << 18
    assert Pace(100_000.0).piece(1 << 18) == 25_000
    assert Pace(1024.0).piece(1 << 18) == 1024
