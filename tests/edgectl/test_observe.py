"""Asking devices and remembering what came of it, with a real agent and with none."""

from pathlib import Path

from edgectl.errors import DeviceError, Unreachable
from edgectl.inventory.repository import Repository
from edgectl.observe import observe, record, record_error
from edgectl.transport import Transports
from tests.support.agent import running_agent
from tests.support.inventory_messages import facts


def test_what_was_seen_is_remembered(tmp_path: Path) -> None:
    with (
        running_agent(tmp_path / "desk") as agent,
        Transports() as transports,
        Repository(tmp_path / "inventory.db") as repository,
    ):
        here = {"kind": "local", "state_dir": str(agent.state_dir)}
        repository.add_device("desk", here)
        repository.add_device("off", {"kind": "local", "state_dir": str(tmp_path / "off")})
        repository.add_device("other", here, facts=facts("agent-of-old"))
        for name in ("desk", "off", "other"):
            repository.mark_unreachable(name, "an older reason", at=5000.0)

        desk, off, other = sightings = observe(repository.devices(), transports)
        assert desk.facts is not None
        assert desk.state is not None
        assert (desk.error, desk.problem) == (None, None)
        assert isinstance(off.error, Unreachable)
        assert str(off.error.hint).startswith("start it with: edgectl-agent run")
        assert isinstance(other.error, DeviceError)
        assert "another agent answers there" in str(other.problem)

        record(repository, sightings)
        assert repository.device("desk").facts == desk.facts
        found = {device.name: device.unreachable_since for device in repository.devices()}
        # Another agent says nothing about the device that was meant.
        assert found == {"desk": None, "off": 5000.0, "other": 5000.0}
        assert repository.device("off").unreachable_reason == off.problem

        record_error(repository, "off", DeviceError("no such release", code="not_found"))
        assert repository.device("off").unreachable_since is None
