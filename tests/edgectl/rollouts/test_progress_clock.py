"""Time without anything new, less the time in which a device slept."""

from hypothesis import given
from hypothesis import strategies as st

from edgectl.rollouts.progress_clock import LONGEST_GAP, POLL, ProgressClock


def test_time_counts_while_the_device_is_heard_of() -> None:
    clock = ProgressClock()
    for now in (100.0, 110.0, 125.0):
        clock.heard(now)
    assert clock.counted == 25


def test_the_first_word_of_a_device_begins_the_count() -> None:
    clock = ProgressClock()
    clock.heard(1_000_000.0)
    assert clock.counted == 0


def test_anything_new_begins_it_again() -> None:
    clock = ProgressClock()
    clock.heard(0.0)
    clock.heard(20.0)
    clock.progressed(25.0)
    assert clock.counted == 0
    clock.heard(30.0)
    assert clock.counted == 5


def test_a_silence_longer_than_three_polls_is_not_counted() -> None:
    clock = ProgressClock()
    assert LONGEST_GAP == 3 * POLL
    clock.heard(0.0)
    clock.heard(LONGEST_GAP)
    assert clock.counted == LONGEST_GAP
    clock.heard(2 * LONGEST_GAP + 0.5)
    assert clock.counted == LONGEST_GAP
    clock.heard(2 * LONGEST_GAP + 5.5)
    assert clock.counted == LONGEST_GAP + 5


def test_a_device_that_is_lost_stops_the_count_until_it_is_heard_of_again() -> None:
    clock = ProgressClock()
    clock.heard(0.0)
    clock.heard(10.0)
    clock.lost()
    clock.heard(20.0)
    assert clock.counted == 10
    clock.heard(25.0)
    assert clock.counted == 15


def test_a_clock_that_is_set_back_counts_nothing() -> None:
    clock = ProgressClock()
    clock.heard(50.0)
    clock.heard(40.0)
    assert clock.counted == 0


@given(st.lists(st.floats(LONGEST_GAP + 0.001, 1e6), max_size=20))
def test_no_time_of_long_silences_is_ever_counted(gaps: list[float]) -> None:
    clock, now = ProgressClock(), 0.0
    for gap in (0.0, *gaps):
        now += gap
        clock.heard(now)
    assert clock.counted == 0
