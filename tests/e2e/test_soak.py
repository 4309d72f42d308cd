"""Mixed load with people who go away: the short form of `make soak`."""

import pytest

from tests.bench.serve.soak import by_count, soak, soaked_agent

# Half a minute on an idle machine; how busy this one is says nothing about the code.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]


def test_nothing_is_lost_however_clients_leave() -> None:
    with soaked_agent() as agent:
        found = soak(agent, by_count(7, 25, 25), clients=10)
    assert found.violations == ()
    assert sum(found.outcomes.values()) == 50
    came_to = {outcome.rpartition(" ")[2] for outcome in found.outcomes}
    assert {"answered", "refused", "left"} <= came_to <= {"answered", "refused", "left", "busy"}
    for sample in found.samples:
        assert sample.inside.quiet
        assert 0 < sample.inside.cells_held <= sample.inside.cells
