"""Power gone at the very moments between a state in the journal and its step, in each of the two ways to change over.

The agent ends by SIGKILL just before it writes a state, or just after it; then it starts again. Afterwards exactly one
release answers: the new one if `committed` had been written, and the old one else.
"""

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent_daemon.contract.release import DeviceRelease, Strategy
from tests.e2e import releases
from tests.support.agent import AgentProcess, running_agent, wait_until

pytestmark = pytest.mark.engine

NUMBERS = itertools.count(2)
GOOD = {"min_healthy": 0.1, "timeout": 60.0}
TOO_SLOW = {"timeout": 0.5, "min_tokens_per_second": 1e6}
"""What no model is: it loads, and its probe fails."""


@pytest.fixture(scope="module")
def desk(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("desk") / "state") as agent:
        releases.commit(agent, releases.release(1, quickstart), quickstart)
        yield agent


@pytest.fixture
def old(desk: AgentProcess) -> str:
    """Digest of the release that answers before the test."""
    wait_until(lambda: [worker["state"] for worker in desk.state()["workers"]] == ["ready"])
    digest: str = desk.state()["active"]
    return digest


def restart(agent: AgentProcess, *program: str) -> None:
    """As another program, after its workers have noticed that it is gone."""
    workers = {worker["pid"] for worker in agent.state()["workers"]} if alive(agent) else set()
    agent.stop()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers if pid))
    agent.program = program or ("-m", "agent_daemon")
    agent.start()


def alive(agent: AgentProcess) -> bool:
    return agent.process is not None and agent.process.poll() is None


def dies(agent: AgentProcess) -> None:
    assert agent.process is not None
    assert agent.process.wait(60) == -signal.SIGKILL


def cut(
    agent: AgentProcess, moment: str, path: Path, strategy: Strategy, probe: dict[str, float]
) -> DeviceRelease:
    """Begins an activation that ends the agent at `moment`, and starts a plain agent again."""
    restart(agent, "-m", "tests.support.dying_agent", moment)
    wanted = releases.release(next(NUMBERS), path, strategy, context=768, **probe)
    try:
        if releases.stage(agent, wanted)["missing"]:
            releases.send(agent, path)
        releases.activate(agent, wanted)
    except OSError:
        # It died before it could answer.
        pass
    dies(agent)
    restart(agent)
    return wanted


def assert_serves_alone(agent: AgentProcess, digest: str) -> None:
    """This release answers, by one worker, and nothing goes on any more."""
    status, answer = agent.chat()
    assert status == 200, answer
    wait_until(lambda: agent.state()["operation"]["state"] not in ("activating", "probing", "reverting"))
    wait_until(lambda: [worker["state"] for worker in agent.state()["workers"]] == ["ready"])
    state = agent.state()
    assert state["active"] == digest
    children = psutil.Process(agent.process.pid).children() if agent.process else []
    assert len([child for child in children if "agent_daemon.worker" in " ".join(child.cmdline())]) == 1
    assert agent.chat()[0] == 200


@pytest.mark.parametrize("strategy", [Strategy.HANDOVER, Strategy.REPLACE])
@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("before:activating", "committed"),
        ("after:activating", "reverted"),
        ("before:probing", "reverted"),
        ("after:probing", "reverted"),
        ("before:committed", "reverted"),
        ("after:committed", "committed"),
    ],
)
def test_a_good_release_is_served_or_gone(
    desk: AgentProcess, old: str, other_model: Path, strategy: Strategy, moment: str, ends: str
) -> None:
    wanted = cut(desk, moment, other_model, strategy, GOOD)
    wait_until(lambda: desk.state()["operation"]["state"] == ends)
    assert_serves_alone(desk, wanted.digest() if ends == "committed" else old)
    barred = {entry["release"] for entry in desk.state()["quarantine"]}
    assert (wanted.digest() in barred) == (ends == "reverted")


@pytest.mark.parametrize("strategy", [Strategy.HANDOVER, Strategy.REPLACE])
@pytest.mark.parametrize(
    "moment", ["before:reverting", "after:reverting", "before:reverted", "after:reverted"]
)
def test_a_bad_release_is_gone_whenever_the_power_goes(
    desk: AgentProcess, old: str, other_model: Path, strategy: Strategy, moment: str
) -> None:
    wanted = cut(desk, moment, other_model, strategy, TOO_SLOW)
    wait_until(lambda: desk.state()["operation"]["state"] == "reverted")
    assert_serves_alone(desk, old)
    assert wanted.digest() in {entry["release"] for entry in desk.state()["quarantine"]}


def test_twice_in_a_row(desk: AgentProcess, old: str, other_model: Path) -> None:
    restart(desk, "-m", "tests.support.dying_agent", "after:probing")
    wanted = releases.release(next(NUMBERS), other_model, Strategy.REPLACE, context=768, **GOOD)
    assert releases.stage(desk, wanted)["missing"] == []
    releases.activate(desk, wanted)
    dies(desk)
    # The restart goes back, and is ended as soon as it has said so; and again when it is done.
    for moment in ("after:reverting", "before:reverted"):
        desk.program = ("-m", "tests.support.dying_agent", moment)
        # It may be gone before it has answered once.
        with contextlib.suppress(AssertionError, OSError):
            desk.start()
        dies(desk)
    restart(desk)
    wait_until(lambda: desk.state()["operation"]["state"] == "reverted")
    assert_serves_alone(desk, old)
