"""`kill -9` of the worker, of the agent, and of both, in every state of an activation.

What has to follow is the power-loss rule of the activation: staging and staged go on, activating and probing
revert, reverting is done again, committed stays; and in each case the right release answers afterwards.
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import ActivationState
from agent_daemon.journal import Journal
from tests.e2e import releases
from tests.support import models
from tests.support.agent import AgentProcess, running_agent, wait_until

pytestmark = pytest.mark.engine

NUMBERS = itertools.count(2)
VICTIMS = ("worker", "agent", "both")
victims = pytest.mark.parametrize("victim", VICTIMS)


@pytest.fixture(scope="module")
def desk(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that serves r1; every test leaves it serving."""
    with running_agent(tmp_path_factory.mktemp("desk") / "state") as agent:
        releases.commit(agent, releases.release(1, quickstart), quickstart)
        yield agent


@pytest.fixture
def serving(desk: AgentProcess) -> str:
    """Digest of the release that answers before the test; it has to be well."""
    wait_until(lambda: [worker["state"] for worker in desk.state()["workers"]] == ["ready"])
    digest: str = desk.state()["active"]
    return digest


def state(agent: AgentProcess) -> str:
    found: str = agent.state()["operation"]["state"]
    return found


def stop_loading(agent: AgentProcess, known: set[int]) -> int:
    """Stops (SIGSTOP) the worker that is being started now and returns its process id."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for worker in agent.state()["workers"]:
            pid = worker["pid"]
            if worker["state"] == "starting" and pid is not None and pid not in known:
                os.kill(pid, signal.SIGSTOP)
                status = agent.state()
                found = next((w for w in status["workers"] if w["pid"] == pid), None)
                assert found is not None, status
                assert found["state"] == "starting", status
                return int(pid)
    raise AssertionError("no worker was started")


def pids(agent: AgentProcess) -> set[int]:
    return {worker["pid"] for worker in agent.state()["workers"]}


def strike(agent: AgentProcess, victim: str, worker: int) -> None:
    """Kills, and starts the agent again where it was killed. A worker without an agent ends by itself, unless
    it was stopped."""
    workers = pids(agent)
    if victim in ("agent", "both"):
        agent.kill()
    if victim in ("worker", "both"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    if victim == "worker":
        wait_until(lambda: worker not in pids(agent))
    else:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not any(alive(pid) for pid in workers))
        agent.start()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_serves(agent: AgentProcess, digest: str) -> None:
    """The release with this digest, and nothing else, answers."""
    answered, answer = agent.chat()
    assert answered == 200, answer
    wait_until(lambda: [worker["state"] for worker in agent.state()["workers"]] == ["ready"])
    assert agent.state()["active"] == digest


def assert_reverted(agent: AgentProcess, old: str, operation: int, reason: str) -> None:
    last = releases.finished(agent, operation)
    assert (last["state"], last["outcome"]) == ("reverted", "reverted")
    assert last["detail"].startswith(reason), last
    quarantined = {barred["release"]: barred["reason"] for barred in agent.state()["quarantine"]}
    assert quarantined[agent.state()["operation"]["release"]] == last["detail"]
    assert_serves(agent, old)


def states(agent: AgentProcess, operation: int) -> list[str]:
    """The states that an operation went through, each as often as it was entered."""
    return [
        key for key, _ in itertools.groupby(event["state"] for event in releases.events(agent, operation))
    ]


def begin(agent: AgentProcess, path: Path, **more: Any) -> tuple[DeviceRelease, int]:
    """Stages and activates a release that is new to the device."""
    wanted = releases.release(next(NUMBERS), path, **more)
    if releases.stage(agent, wanted)["missing"]:
        releases.send(agent, path)
    return wanted, releases.activate(agent, wanted)


@victims
def test_staging_goes_on_where_it_was(desk: AgentProcess, serving: str, tmp_path: Path, victim: str) -> None:
    number = next(NUMBERS)
    path = models.renamed(tmp_path, b"blob %d" % number)
    wanted = releases.release(number, path)
    (missing,) = releases.stage(desk, wanted)["missing"]
    assert missing["offset"] == 0
    releases.send(desk, path, end=40_000_000)
    strike(desk, victim, pids(desk).pop())
    assert state(desk) == "staging"
    assert_serves(desk, serving)
    staged = releases.stage(desk, wanted)
    assert [(blob["digest"], blob["offset"]) for blob in staged["missing"]] == [
        (missing["digest"], 40_000_000)
    ]
    releases.send(desk, path, begin=40_000_000)
    operation = releases.activate(desk, wanted)
    assert operation == staged["operation"]["id"]
    assert releases.finished(desk, operation)["outcome"] == "succeeded"
    assert_serves(desk, wanted.digest())


@victims
def test_staged_waits_to_be_activated(
    desk: AgentProcess, serving: str, quickstart: Path, victim: str
) -> None:
    wanted = releases.release(next(NUMBERS), quickstart)
    operation = releases.stage(desk, wanted)["operation"]["id"]
    if victim == "worker":
        strike(desk, victim, pids(desk).pop())
    else:
        worker = pids(desk).pop()
        desk.kill()
        if victim == "both":
            os.kill(worker, signal.SIGKILL)
        # The device passes through `staged` on its way to `activating` within one moment: this is the journal
        # of a kill in just that moment.
        journal = Journal(desk.state_dir / "journal.db")
        journal.advance(operation, ActivationState.STAGED)
        journal.close()
        desk.start()
        assert state(desk) == "staged"
    assert_serves(desk, serving)
    assert releases.stage(desk, wanted)["missing"] == []
    assert releases.activate(desk, wanted) == operation
    assert releases.finished(desk, operation)["outcome"] == "succeeded"
    assert_serves(desk, wanted.digest())


@victims
def test_activating_reverts(
    desk: AgentProcess, serving: str, quickstart: Path, other_model: Path, victim: str
) -> None:
    known = pids(desk)
    _, operation = begin(desk, other_model, context=768)
    loading = stop_loading(desk, known)
    assert state(desk) == "activating"
    strike(desk, victim, loading)
    reasons = {
        "worker": "assistant could not be loaded: the worker was ended by SIGKILL",
        "agent": "the agent was stopped while it was activating",
        "both": "the agent was stopped while it was activating",
    }
    assert_reverted(desk, serving, operation, reasons[victim])
    assert states(desk, operation) == ["staged", "activating", "reverting", "reverted"]


@victims
def test_probing_reverts(desk: AgentProcess, serving: str, other_model: Path, victim: str) -> None:
    known = pids(desk)
    _, operation = begin(desk, other_model, context=768, min_healthy=600, timeout=900)
    wait_until(lambda: state(desk) == "probing")
    (new,) = pids(desk) - known
    strike(desk, victim, new)
    reasons = {
        "worker": "probe failed: assistant: the worker was ended by SIGKILL",
        "agent": "the agent was stopped while it was probing",
        "both": "the agent was stopped while it was probing",
    }
    assert_reverted(desk, serving, operation, reasons[victim])
    assert states(desk, operation) == ["staged", "activating", "probing", "reverting", "reverted"]


@victims
def test_reverting_is_done_again(desk: AgentProcess, serving: str, other_model: Path, victim: str) -> None:
    known = pids(desk)
    _, operation = begin(
        desk, other_model, strategy=Strategy.REPLACE, context=768, min_healthy=600, timeout=900
    )
    wait_until(lambda: state(desk) == "probing")
    known |= pids(desk)
    os.kill(pids(desk).pop(), signal.SIGKILL)
    restored = stop_loading(desk, known)
    assert state(desk) == "reverting"
    strike(desk, victim, restored)
    assert_reverted(desk, serving, operation, "probe failed: assistant: the worker was ended by SIGKILL")
    assert states(desk, operation) == ["staged", "activating", "probing", "reverting", "reverted"]


@victims
def test_committed_stays(desk: AgentProcess, serving: str, quickstart: Path, victim: str) -> None:
    wanted, operation = begin(desk, quickstart)
    assert releases.finished(desk, operation)["outcome"] == "succeeded"
    (worker,) = pids(desk)
    strike(desk, victim, worker)
    assert_serves(desk, wanted.digest())
    assert state(desk) == "committed"
    assert pids(desk) != {worker}
    assert wanted.digest() not in {barred["release"] for barred in desk.state()["quarantine"]}


def test_an_agent_that_is_ended_politely_recovers_the_same_way(
    desk: AgentProcess, serving: str, other_model: Path
) -> None:
    _, operation = begin(desk, other_model, context=768, min_healthy=600, timeout=900)
    wait_until(lambda: state(desk) == "probing")
    desk.stop()
    desk.start()
    assert_reverted(desk, serving, operation, "the agent was stopped while it was probing")
