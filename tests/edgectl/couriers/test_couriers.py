"""Courier processes with real sshds on loopback and real agents behind them."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Outcome
from edgectl.couriers.delivery import Terms
from edgectl.couriers.office import Couriers
from edgectl.couriers.spawn import spawn
from edgectl.errors import Unreachable
from edgectl.inventory.values import Device
from edgectl.layout import user_layout
from edgectl.plan import Action, Step
from edgectl.rollouts.events import DeviceEvent, Lost, Moved, Noted, Result
from tests.e2e.releases import release
from tests.support.agent import AgentProcess, running_agent
from tests.support.models import quickstart_model
from tests.support.sshd import Sshd, keygen, running_sshd, ssh_spec

ROOT = Path(__file__).resolve().parent.parent.parent.parent


class Reached:
    """One device: an agent, and the sshd by which it is reached."""

    def __init__(self, name: str, home: Path, agent: AgentProcess, sshd: Sshd, key: Path) -> None:
        self.agent, self.sshd = agent, sshd
        spec = ssh_spec(sshd, key, user_home=str(home))
        self.device = Device(name, spec, {}, 0.0)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return keygen(tmp_path / "key")


@pytest.fixture
def reached(tmp_path: Path, near_root: Path, key: Path) -> Iterator[list[Reached]]:
    """Two devices."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            home = near_root / name
            layout = user_layout(str(home))
            command = Path(layout.command)
            command.parent.mkdir(parents=True)
            command.write_text(
                f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} -m agent_daemon "$@"\n'
            )
            command.chmod(0o755)
            state = Path(layout.state_dir)
            state.mkdir(parents=True)
            agent = stack.enter_context(running_agent(state))
            sshd = stack.enter_context(running_sshd(tmp_path / f"sshd-{name}"))
            sshd.authorize(key)
            found.append(Reached(name, home, agent, sshd, key))
        yield found


@pytest.fixture
def couriers(tmp_path: Path) -> Iterator[Couriers]:
    config = tmp_path / "config"
    config.touch()
    with Couriers(spawn(2), ssh_config=config) as made:
        yield made


def step(device: Device, wanted: DeviceRelease) -> Step:
    return Step(device.name, Action.DEPLOY, wanted)


def until_ended(couriers: Couriers, count: int, seconds: float = 120) -> list[DeviceEvent]:
    events: list[DeviceEvent] = []
    deadline = time.monotonic() + seconds
    while sum(isinstance(event, Result) for event in events) < count:
        assert time.monotonic() < deadline, events
        if event := couriers.next(1.0):
            events.append(event)
    return events


def results(events: list[DeviceEvent]) -> dict[str, Result]:
    return {event.device: event for event in events if isinstance(event, Result)}


def test_devices_are_observed_side_by_side_over_one_connection_each(
    reached: list[Reached], couriers: Couriers
) -> None:
    devices = [each.device for each in reached]
    off = Device("off", {"kind": "local", "state_dir": "/nowhere"}, {}, 0.0)
    couriers.foresee(devices)
    seen = couriers.observe([*devices, off])
    assert [sighting.device.name for sighting in seen] == ["one", "two", "off"]
    assert [sighting.state is not None for sighting in seen] == [True, True, False]
    assert isinstance(seen[2].error, Unreachable)
    assert str(seen[2].error.hint).startswith("start it with: edgectl-agent run")
    # Asked again, nothing is connected anew.
    assert all(sighting.state for sighting in couriers.observe(devices))
    assert [each.sshd.logins() for each in reached] == [1, 1]
    page = couriers.reports(devices[0], 100)
    assert page.agent_id == reached[0].agent.state()["agent_id"]


@pytest.mark.engine
def test_a_release_is_brought_by_ssh_and_the_verdict_is_the_devices(
    reached: list[Reached], couriers: Couriers
) -> None:
    model = quickstart_model()
    couriers.supply(lambda _artifact, _blob: model)
    for each in reached:
        couriers.deliver(step(each.device, release(1, model)), each.device, Terms(), None)
    events = until_ended(couriers, 2)
    ended = results(events)
    size = model.stat().st_size
    assert {name: each.outcome for name, each in ended.items()} == dict.fromkeys(
        ("one", "two"), Outcome.SUCCEEDED
    )
    assert {each.bytes_moved for each in ended.values()} == {size}
    assert {each.number for each in ended.values()} == {1}
    moved = [event for event in events if isinstance(event, Moved) and event.device == "one"]
    assert [event.done for event in moved] == sorted(event.done for event in moved)
    assert moved[-1].done == size
    assert "committed" in [event.text for event in events if isinstance(event, Noted)]
    for each in reached:
        assert each.agent.state()["active_number"] == 1
        # The blob came by a connection that was there already.
        assert each.sshd.logins() == 1
    couriers.deliver(step(reached[0].device, release(1, model)), reached[0].device, Terms(), None)
    assert results(until_ended(couriers, 1))["one"].outcome is Outcome.UNCHANGED


@pytest.mark.engine
def test_a_connection_that_is_cut_while_bytes_move_is_made_again(
    reached: list[Reached], couriers: Couriers
) -> None:
    model, one = quickstart_model(), reached[0]
    couriers.supply(lambda _artifact, _blob: model)
    couriers.deliver(step(one.device, release(2, model)), one.device, Terms(), 20_000_000.0)
    events: list[DeviceEvent] = []
    cuts = 0
    while not any(isinstance(event, Result) for event in events):
        event = couriers.next(30.0)
        assert event is not None, events
        events.append(event)
        if isinstance(event, Moved) and event.done > (cuts + 1) * 25_000_000 and cuts < 2:
            one.sshd.signal(signal.SIGKILL)
            cuts += 1
    assert cuts == 2
    assert any(isinstance(event, Lost) for event in events)
    (result,) = [event for event in events if isinstance(event, Result)]
    assert (result.outcome, result.bytes_moved) == (Outcome.SUCCEEDED, model.stat().st_size)


@pytest.mark.engine
def test_a_cancel_leaves_what_has_arrived(reached: list[Reached], couriers: Couriers) -> None:
    model, one = quickstart_model(), reached[0]
    couriers.supply(lambda _artifact, _blob: model)
    couriers.deliver(step(one.device, release(3, model)), one.device, Terms(), 10_000_000.0)
    while not isinstance(couriers.next(30.0), Moved):
        pass
    couriers.cancel("one", "enough of it")
    result = results(until_ended(couriers, 1, 20))["one"]
    assert (result.outcome, result.reason) == (Outcome.DEFERRED, "enough of it")
    state = one.agent.state()
    assert (state["active"], state["operation"]["state"]) == (None, "staging")


def test_a_courier_that_dies_leaves_nobody_waiting(reached: list[Reached], couriers: Couriers) -> None:
    devices = [each.device for each in reached]
    couriers.observe(devices)
    process: Any = couriers._process
    os.killpg(process.pid, signal.SIGKILL)
    seen = [couriers.observe([device]) for device in devices]
    assert all(sighting.error is not None for (sighting,) in seen)
