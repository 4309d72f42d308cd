"""A small simulated rollout, and that devices sleep as they are said to."""

import itertools
import json
from pathlib import Path

import pytest

from agent_daemon.contract.wire import Outcome
from tests.bench.deploy.simulate import BEGINS, BOUND, POLICY, Simulation, main
from tests.bench.deploy.sleepers import DAY, HOUR, Fleet, chance, normal

FLEET = Fleet(400, seed=3)


def test_a_small_rollout_reaches_nearly_everybody_and_later_when_they_ask_seldom() -> None:
    often, seldom = (Simulation(FLEET, interval).run() for interval in (60.0, 4 * HOUR))
    for found in (often, seldom):
        assert found.halted is None
        assert found.waves == 1 + 20
        assert found.pushed + found.checked_in == sum(found.outcomes.values())
        assert found.outcomes["succeeded"] > 0.95 * FLEET.size
        assert found.decision_seconds < BOUND / 100
        days = [found.days_to[percent] for percent in (50, 90, 95)]
        assert all(day is not None for day in days)
        assert days == sorted(day for day in days if day is not None)
    # the waves are pushed, so the interval shows in those that slept through theirs
    assert often.pushed == seldom.pushed
    assert often.checked_in == seldom.checked_in > 0.2 * FLEET.size
    assert often.days_to[90] < seldom.days_to[90]  # type: ignore[operator]


def test_it_is_the_same_every_time() -> None:
    first, again = (Simulation(Fleet(150, seed=1), 900.0).run() for _ in range(2))
    assert (first.days_to, first.outcomes, first.happenings, first.decisions, first.wave_hours) == (
        again.days_to,
        again.outcomes,
        again.happenings,
        again.decisions,
        again.wave_hours,
    )


def test_a_bad_release_is_halted_with_most_of_the_fleet_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulation, "_verdict", lambda *_: Outcome.REVERTED)
    found = Simulation(FLEET, 900.0, POLICY).run()
    assert found.halted is not None
    assert "the budget for reverted is 2%" in found.halted
    # no more than the four canaries: what slept is not handed the release any more
    assert 1 <= found.outcomes["reverted"] <= 4
    assert found.waves == 1


def test_the_command_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    assert main(["--devices", "120", "--intervals", "15m,1h", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures["devices"] == 120
    assert [rollout["interval"] for rollout in figures["rollouts"]] == [900, 3600]
    assert figures["seconds"] == max(rollout["decision_seconds"] for rollout in figures["rollouts"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "120 devices"
    assert [line.split()[:2] for line in lines[2:4]] == [["15", "min"], ["1", "h"]]


def test_devices_are_of_the_kinds_that_are_assumed() -> None:
    fleet = Fleet(20_000)
    kinds = [fleet.kind(device) for device in range(fleet.size)]
    share = {kind: kinds.count(kind) / fleet.size for kind in ("laptop", "drawer", "office", "on")}
    assert share == pytest.approx(
        {"laptop": 0.62 * 0.975, "drawer": 0.62 * 0.025, "office": 0.23 * 0.4, "on": 0.15 + 0.23 * 0.6},
        abs=0.01,
    )


def test_laptops_are_awake_in_office_hours_and_hardly_on_weekends() -> None:
    laptops = [device for device in range(FLEET.size) if FLEET.kind(device) == "laptop"]

    def hours(device: int, days: range) -> float:
        return sum(end - start for day in days for start, end in FLEET.awake(device, day)) / HOUR

    workday = sum(hours(device, range(5)) for device in laptops) / len(laptops) / 5
    weekend = sum(hours(device, range(5, 7)) for device in laptops) / len(laptops) / 2
    assert 5.5 < workday < 8.5
    assert 0.05 < weekend < 0.5
    for device in laptops[:50]:
        for day in range(14):
            spans = FLEET.awake(device, day)
            assert spans == sorted(spans)
            assert all(start < end for start, end in spans)
            assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_being_awake_for_a_time_counts_waking_hours_only() -> None:
    laptop = next(device for device in range(FLEET.size) if FLEET.kind(device) == "laptop")
    spans = list(FLEET.awake_from(laptop, BEGINS))
    first = spans[0][1] - spans[0][0]
    assert FLEET.awake_for(laptop, BEGINS, first / 2) == pytest.approx(spans[0][0] + first / 2)
    assert FLEET.awake_for(laptop, BEGINS, first + 60) == pytest.approx(spans[1][0] + 60)
    asleep = (spans[0][1] + spans[1][0]) / 2
    assert FLEET.until(laptop, asleep) is None
    assert FLEET.until(laptop, spans[1][0] + 1) == spans[1][1]
    drawer = next(device for device in range(FLEET.size) if FLEET.kind(device) == "drawer")
    assert FLEET.awake_for(drawer, BEGINS, 1) is None
    server = next(device for device in range(FLEET.size) if FLEET.kind(device) == "on")
    assert FLEET.awake_for(server, BEGINS, 3 * DAY) == pytest.approx(BEGINS + 3 * DAY, abs=DAY)


def test_chance_depends_on_its_keys_alone_and_is_even() -> None:
    assert chance(1, 2, 3) == chance(1, 2, 3) != chance(1, 3, 2)
    drawn = [chance(0, number) for number in range(5000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.02)
    assert 0 <= min(drawn) < 0.01 < 0.99 < max(drawn) < 1
    values = [normal(10, 2, number) for number in range(5000)]
    mean = sum(values) / len(values)
    assert mean == pytest.approx(10, abs=0.1)
    assert (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5 == pytest.approx(2, abs=0.1)
