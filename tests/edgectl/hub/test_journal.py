import logging

import pytest

from edgectl.hub import refusals
from edgectl.hub.journal import Journal
from edgectl.inventory.values import TokenRefusal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.INFO, "edgectl.hub")
    return Clock()


def test_a_device_is_named_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(clock)
    for device in ("desk", "desk", "lap"):
        journal.reported(device, 3)
    assert caplog.messages == ["desk reports (3 records)", "lap reports (3 records)"]


def test_the_same_refusal_is_said_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(clock)
    for _ in range(3):
        journal.refused("10.0.0.1", refusals.bad_token(TokenRefusal.EXPIRED))
    journal.refused("10.0.0.2", refusals.bad_token(TokenRefusal.EXPIRED))
    journal.refused("10.0.0.1", refusals.no_token())
    assert len(caplog.messages) == 3
    clock.now += 60
    journal.refused("10.0.0.1", refusals.bad_token(TokenRefusal.EXPIRED))
    assert (
        caplog.messages[0]
        == caplog.messages[-1]
        == ("refused a check-in from 10.0.0.1: the token has expired")
    )


def test_the_log_may_say_more_than_the_answer(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    refusal = refusals.inventory_trouble(30, "cannot use the inventory at /srv/inventory.db: disk is full")
    refusal.device = "desk"
    Journal(clock).refused("10.0.0.1", refusal)
    (line,) = caplog.messages
    assert line.startswith("refused a check-in from desk (10.0.0.1): ")
    assert line.endswith("disk is full")
    assert "/srv" not in refusal.problem.model_dump_json()
