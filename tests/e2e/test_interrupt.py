"""Ctrl-C at any moment: exit 130, nothing locked, and the same command goes on from there."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Done, Edgectl, finish
from tests.support import models
from tests.support.agent import AgentProcess, wait_until

pytestmark = pytest.mark.engine

SIZE = models.quickstart_model().stat().st_size
SLOWLY = ("--limit-rate", "60MB")
"""So that bytes are on their way for seconds, however busy the machine is."""


@pytest.fixture(scope="module")
def desk(
    edgectl: Edgectl, agent: AgentProcess, quickstart: Path, tmp_path_factory: pytest.TempPathFactory
) -> AgentProcess:
    """A device that serves r1."""
    edgectl.add("desk", agent)
    folder = tmp_path_factory.mktemp("first")
    edgectl.deployed(manifests.write(folder / "first.yaml", {"assistant": manifests.model(quickstart)}))
    return agent


def begin(edgectl: Edgectl, manifest: Path, *more: str) -> subprocess.Popen[str]:
    return edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json", *more)


def interrupt_while_sending(agent: AgentProcess, command: subprocess.Popen[str]) -> int:
    """Ctrl-C while bytes are on their way; returns how many had arrived. The command is held for a moment, so
    that it cannot be done before the signal."""
    folder = agent.state_dir / "store" / "partial"
    deadline = time.monotonic() + 60
    while not (arriving := [path for path in folder.iterdir() if path.stat().st_size]):
        assert time.monotonic() < deadline
        assert command.poll() is None
        time.sleep(0.002)
    command.send_signal(signal.SIGSTOP)
    assert arriving[0].exists(), "all bytes had arrived before the command could be interrupted"
    command.send_signal(signal.SIGINT)
    command.send_signal(signal.SIGCONT)
    return arriving[0].stat().st_size


def assert_interrupted(edgectl: Edgectl, done: Done) -> None:
    assert done.code == 130
    assert {event["event"] for event in done.events} <= {"started", "fetched", "moved", "note"}
    assert "interrupted: no lock is held" in done.err
    last = edgectl.query("select state, outcome from rollout_history order by rollout desc limit 1")
    assert last == [{"state": "interrupted", "outcome": "deferred"}]


def operation(agent: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = agent.state()["operation"]
    return found


def test_while_bytes_are_sent(edgectl: Edgectl, desk: AgentProcess, tmp_path: Path) -> None:
    extra = 150_000_000
    source = models.renamed(tmp_path, bytes(extra))
    manifest = manifests.write(tmp_path / "big.yaml", {"assistant": manifests.model(source)})
    command = begin(edgectl, manifest, *SLOWLY)
    interrupt_while_sending(desk, command)
    assert_interrupted(edgectl, finish(command))
    assert (operation(desk)["state"], desk.state()["active_number"]) == ("staging", 1)
    (partial,) = wait_until(lambda: list((desk.state_dir / "store" / "partial").iterdir()))
    held = partial.stat().st_size
    assert 0 < held < SIZE + extra
    done = edgectl.deployed(manifest)
    assert done.outcomes() == {"desk": "succeeded"}
    assert done.json["devices"][0]["bytes_moved"] == SIZE + extra - held
    assert desk.state()["active_number"] == 2


def test_while_the_device_hangs_in_the_middle_of_a_transfer(
    edgectl: Edgectl, desk: AgentProcess, tmp_path: Path
) -> None:
    source = models.renamed(tmp_path, bytes(150_000_001))
    manifest = manifests.write(tmp_path / "hung.yaml", {"assistant": manifests.model(source)})
    command = begin(edgectl, manifest, *SLOWLY)
    assert desk.process is not None
    folder = desk.state_dir / "store" / "partial"
    while not any(path.stat().st_size for path in folder.iterdir()):
        assert command.poll() is None
        time.sleep(0.002)
    desk.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(1)
        command.send_signal(signal.SIGINT)
        done = finish(command, 60)
    finally:
        desk.process.send_signal(signal.SIGCONT)
    assert_interrupted(edgectl, done)
    assert desk.state()["active_number"] == 2


def test_while_the_device_activates(
    edgectl: Edgectl, desk: AgentProcess, other_model: Path, tmp_path: Path
) -> None:
    manifest = manifests.write(
        tmp_path / "slow.yaml", {"assistant": manifests.model(other_model)}, probe={"min_healthy": 20}
    )
    command = begin(edgectl, manifest)
    wait_until(lambda: operation(desk)["state"] == "probing")
    os.kill(command.pid, signal.SIGINT)
    assert_interrupted(edgectl, finish(command))
    assert operation(desk)["state"] == "probing"
    number = operation(desk)["number"]
    # The device did not notice, and whoever asks for the same again is told how it ends.
    done = edgectl.deployed(manifest)
    assert done.outcomes() == {"desk": "succeeded"}
    assert done.json["devices"][0]["bytes_moved"] == 0
    assert (operation(desk)["state"], desk.state()["active_number"]) == ("committed", number)
    assert edgectl.deployed(manifest).outcomes() == {"desk": "unchanged"}


def test_rollback_after_an_interrupted_deploy_that_the_device_finished_alone(
    edgectl: Edgectl, desk: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    before = desk.state()["active_number"]
    manifest = manifests.write(
        tmp_path / "alone.yaml", {"assistant": manifests.model(quickstart)}, probe={"min_healthy": 2}
    )
    command = begin(edgectl, manifest)
    wait_until(lambda: operation(desk)["state"] == "probing")
    os.kill(command.pid, signal.SIGINT)
    assert_interrupted(edgectl, finish(command))
    wait_until(lambda: operation(desk)["state"] == "committed")
    assert desk.state()["active_number"] == before + 1
    done = edgectl.run("rollback", "--yes", "-o", "json")
    assert (done.code, done.outcomes()) == (0, {"desk": "succeeded"})
    assert desk.state()["active_number"] == before
