"""A device that is off: neither failed nor succeeded, and the same command finishes it when it is back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Edgectl
from tests.support.agent import AgentProcess, running_agent

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def lap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("lap") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def fleet(edgectl: Edgectl, agent: AgentProcess, lap: AgentProcess) -> Edgectl:
    edgectl.add("desk", agent)
    edgectl.add("lap", lap)
    return edgectl


def states(edgectl: Edgectl) -> dict[str, tuple[str, str | None]]:
    rows = edgectl.query("select name, state, release from device_status")
    return {row["name"]: (row["state"], row["release"]) for row in rows}


def test_the_others_succeed_and_the_same_command_finishes_it(
    fleet: Edgectl, lap: AgentProcess, quickstart: Path, other_model: Path, tmp_path: Path
) -> None:
    first = manifests.write(tmp_path / "first.yaml", {"assistant": manifests.model(quickstart)})
    assert fleet.deployed(first).outcomes() == {"desk": "succeeded", "lap": "succeeded"}
    assert lap.chat()[0] == 200
    lap.kill()

    second = manifests.write(tmp_path / "second.yaml", {"assistant": manifests.model(other_model)})
    done = fleet.deploy(second)
    assert done.code == 3, done.err
    assert done.outcomes() == {"desk": "succeeded", "lap": "unreachable"}
    (result,) = (device for device in done.json["devices"] if device["device"] == "lap")
    assert "no agent answers" in result["reason"]
    assert states(fleet) == {"desk": ("serving", "r2"), "lap": ("unreachable", "r1")}
    recorded = fleet.query("select device, outcome, reason from rollout_history where rollout = 2")
    assert {row["device"]: row["outcome"] for row in recorded} == done.outcomes()
    (row,) = fleet.query(
        "select known_state, unreachable_reason, outcome from device_status where name = 'lap'"
    )
    assert (row["known_state"], row["outcome"]) == ("serving", "unreachable")
    assert row["unreachable_reason"] == result["reason"]

    # Still off: nothing is done twice on the other one.
    again = fleet.deploy(second)
    assert (again.code, again.outcomes()) == (3, {"desk": "unchanged", "lap": "unreachable"})

    lap.start()
    finished = fleet.deploy(second)
    assert (finished.code, finished.json["release"]) == (0, "r2")
    assert finished.outcomes() == {"desk": "unchanged", "lap": "succeeded"}
    assert states(fleet) == {"desk": ("serving", "r2"), "lap": ("serving", "r2")}
    # What it had counted before it was off has arrived.
    assert fleet.query("select requests from usage_by_minute where device = 'lap' and release = 'r1'") == [
        {"requests": 1}
    ]


def test_a_rollback_leaves_out_who_is_off(fleet: Edgectl, lap: AgentProcess) -> None:
    lap.kill()
    done = fleet.run("rollback", "--to", "r1", "--yes", "-o", "json")
    assert (done.code, done.outcomes()) == (3, {"desk": "succeeded", "lap": "unreachable"})
    assert states(fleet) == {"desk": ("serving", "r1"), "lap": ("unreachable", "r2")}
    lap.start()
    done = fleet.run("rollback", "--to", "r1", "--yes", "-o", "json")
    assert (done.code, done.outcomes()) == (0, {"desk": "unchanged", "lap": "succeeded"})
