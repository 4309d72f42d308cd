"""Healthy is continuously good."""

import pytest

from agent_daemon.contract.health import Health, HealthClock

GOOD, BAD, UNKNOWN = Health.GOOD, Health.BAD, Health.UNKNOWN


@pytest.mark.parametrize(
    ("probes", "healthy_at"),
    [
        ([(0, GOOD), (5, GOOD), (10, GOOD)], 10),
        ([(0, GOOD), (9.9, GOOD)], None),
        # a bad one starts the clock again
        ([(0, GOOD), (9, GOOD), (10, BAD), (11, GOOD), (20, GOOD), (21, GOOD)], 21),
        # an unknown one neither starts it again nor counts: 4 + 6 seconds
        ([(0, GOOD), (4, GOOD), (5, UNKNOWN), (100, UNKNOWN), (104, GOOD), (109, GOOD), (110, GOOD)], 110),
        ([(0, UNKNOWN), (50, UNKNOWN), (60, GOOD), (70, GOOD)], 70),
        ([(0, BAD), (50, BAD)], None),
        # nobody looked for longer than a gap: that time is not counted, and what was counted stays
        ([(0, GOOD), (6, GOOD), (46, GOOD), (50, GOOD)], 50),
        ([(0, GOOD), (30, GOOD)], 30),
    ],
)
def test_healthy_is_good_without_a_break(
    probes: list[tuple[float, Health]], healthy_at: float | None
) -> None:
    clock = HealthClock(10, longest_gap=30)
    found = [now for now, health in probes if clock.probed(health, now)]
    assert found == ([] if healthy_at is None else [healthy_at])


def test_without_a_time_one_good_probe_is_enough() -> None:
    clock = HealthClock(0)
    assert not clock.probed(UNKNOWN, 1)
    assert not clock.probed(BAD, 2)
    assert clock.probed(GOOD, 3)


def test_without_a_longest_gap_slow_probes_count_in_full() -> None:
    clock = HealthClock(100)
    assert not clock.probed(GOOD, 0)
    assert clock.probed(GOOD, 3600)
