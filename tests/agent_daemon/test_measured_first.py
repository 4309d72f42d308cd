"""A real agent measures a release before anything changes, and tells what a load took and how fast its memory is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import Outcome
from tests.support.agent import AgentProcess, running_agent, wait_until
from tests.support.models import quickstart_model, refused_by_llama
from tests.support.releases import MIB, client, deploy, facts, release, served

pytestmark = pytest.mark.engine
GOOD = release(served("assistant", quickstart_model(), context=256))
LIMIT = GOOD.models[0].placement.predicted.total + 40 * MIB


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Serves a small context, and may take little more than that."""
    arguments = ("--ram-limit", str(LIMIT))
    with running_agent(tmp_path_factory.mktemp("measured") / "state", arguments=arguments) as agent:
        last = deploy(agent, GOOD, quickstart_model())
        assert last.outcome is Outcome.SUCCEEDED, last.detail
        yield agent


def records(agent: AgentProcess, kind: str) -> list[dict[str, Any]]:
    with client(agent) as control:
        return [each.body for each in control.reports(5000).records if each.kind == kind]


def assert_refused_without_a_trace(agent: AgentProcess, wanted: DeviceRelease, *files: Path) -> str:
    """Deploys and returns the device's reason; the old release is served as if nothing had been asked."""
    before = agent.state()
    last = deploy(agent, wanted, *files)
    assert (last.state, last.outcome) == ("staged", Outcome.REFUSED), last
    after = agent.state()
    for untouched in ("active", "active_number", "quarantine"):
        assert after[untouched] == before[untouched]
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    assert (after["operation"]["state"], after["operation"]["reason"]) == ("staged", last.detail)
    assert agent.chat()[0] == 200
    assert last.detail is not None
    return last.detail


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_prediction_that_is_too_small_is_found_out(agent: AgentProcess, strategy: Strategy) -> None:
    model = served("assistant", quickstart_model(), context=512)
    said = model.placement.predicted
    wrong = said.model_copy(update={"total": said.total - 40 * MIB, "weights": said.weights - 40 * MIB})
    placement = model.placement.model_copy(update={"predicted": wrong})
    wanted = release(model.model_copy(update={"placement": placement}), number=2, strategy=strategy)
    reason = assert_refused_without_a_trace(agent, wanted)
    assert re.match(r"assistant takes \d+\.\d MiB of RAM by llama.cpp's own account, more than ", reason)
    assert f"more than the {(said.total - 40 * MIB) / MIB:.1f} MiB that were predicted" in reason


def test_memory_that_is_short_now_is_told_with_both_figures(agent: AgentProcess) -> None:
    larger = served("assistant", quickstart_model(), context=4096)
    reason = assert_refused_without_a_trace(agent, release(larger, number=3))
    # The owner's limit is what would be free without what is served now.
    assert re.match(r"r3 needs \d+\.\d MiB of RAM, and \d+\.\d MiB are free now, ", reason)
    free = float(reason.split(", ")[-1].split(" MiB without what it replaces")[0])
    assert abs(free - LIMIT / MIB) < 8


def test_a_file_that_llama_cpp_refuses_is_refused(agent: AgentProcess, tmp_path: Path) -> None:
    file = refused_by_llama(tmp_path)
    wanted = release(served("assistant", file, context=256), number=4)
    reason = assert_refused_without_a_trace(agent, wanted, file)
    assert reason.startswith("assistant cannot be loaded: ")
    assert "attn_output" in reason


def test_a_refusal_outlives_a_restart_and_the_release_may_be_asked_for_again(tmp_path: Path) -> None:
    with running_agent(tmp_path / "state", arguments=("--ram-limit", "100MiB")) as agent:
        last = deploy(agent, GOOD, quickstart_model())
        assert (last.state, last.outcome) == ("staged", Outcome.REFUSED)
        agent.kill()
        agent.start()
        assert agent.state()["operation"]["state"] == "staged"
        assert GOOD.digest() in agent.state()["held"]
        again = deploy(agent, GOOD)
        assert (again.outcome, again.operation) == (Outcome.REFUSED, last.operation + 1)
        agent.stop()
        agent.arguments = ()
        agent.start()
        assert deploy(agent, GOOD).outcome is Outcome.SUCCEEDED


def test_each_load_tells_once_what_was_predicted_planned_and_taken(agent: AgentProcess) -> None:
    agent.chat()
    agent.chat()
    (told,) = [each for each in records(agent, "fitted") if each["engine_key"] == GOOD.models[0].engine_key()]
    predicted = GOOD.models[0].placement.predicted
    assert (told["model"], told["memory"], told["context"]) == ("assistant", "ram", 256)
    assert told["predicted"] == predicted.total
    assert abs(told["planned"] - predicted.total) < 16 * MIB
    known = facts(quickstart_model())
    assert known.tensor_bytes < told["measured"] < predicted.total + 64 * MIB
    assert told["device_class"].startswith("RAM, ")
    assert 0 < told["loaded_in"] < 600


def test_how_fast_memory_is_read_is_measured_in_a_quiet_moment_and_kept(agent: AgentProcess) -> None:
    def known() -> int | None:
        found: int | None = agent.control("GET", "/v1/facts")[1]["ram_bandwidth"]
        return found

    speed = wait_until(known, 120, pause=1)
    assert 10**8 < speed < 10**13
    kept = json.loads((agent.state_dir / "bandwidth.json").read_text())
    assert [each["bytes_per_second"] for each in kept["measured"]["devices"] if each["ram"]] == [speed]
    assert wait_until(lambda: [each for each in records(agent, "facts") if each["ram_bandwidth"] == speed])
    agent.kill()
    agent.start()
    assert known() == speed
