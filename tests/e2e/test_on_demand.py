"""Two models on a device that holds one of them at a time: every request is answered, whoever asks for which."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from agent_daemon.contract.release import DeviceRelease, Residency
from agent_daemon.contract.wire import Outcome
from tests.e2e.asking import Client
from tests.e2e.commands import Edgectl
from tests.support.agent import AgentProcess, running_agent, wait_until
from tests.support.models import quickstart_model
from tests.support.releases import MIB, client, deploy, predicted, release, served, worker_of

pytestmark = pytest.mark.engine

LIMIT = ("--ram-limit", str(predicted(quickstart_model(), 768, 2).total + 64 * MIB))
"""Room for one: the other is measured with more than 91 MiB, which are its weights alone."""
COUNT = "1 2 3 4 5 6 7 8 9 10 11 12 13"


def two(path: Path, number: int = 1, **residency: Any) -> DeviceRelease:
    asked = Residency(on_demand=True, **residency)
    return release(
        served("left", path, context=512, parallel=2, residency=asked),
        served("right", path, context=768, parallel=2, residency=asked),
        number=number,
    )


@pytest.fixture(scope="module")
def desk(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("desk") / "state", arguments=LIMIT) as agent:
        last = deploy(agent, two(quickstart), quickstart)
        assert last.outcome is Outcome.SUCCEEDED, last.detail
        yield agent


def states(agent: AgentProcess) -> dict[str, str]:
    return {name: worker["state"] for worker in agent.state()["workers"] for name in worker["models"]}


def chat(agent: AgentProcess, model: str) -> int:
    return agent.chat(model=model)[0]


def test_a_release_is_committed_although_its_models_do_not_fit_together(desk: AgentProcess) -> None:
    assert sorted(states(desk).values()) == ["ready", "unloaded"]
    assert desk.ask("/readyz")[0] == 200
    assert [entry["id"] for entry in desk.ask("/v1/models")[1]["data"]] == ["left", "right"]


def test_each_request_brings_in_the_model_that_it_asks_for(desk: AgentProcess) -> None:
    for model, other in (("left", "right"), ("right", "left"), ("left", "right")):
        assert chat(desk, model) == 200
        assert states(desk) == {model: "ready", other: "unloaded"}


def test_a_mixed_crowd_is_answered_to_the_last(desk: AgentProcess) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda number: chat(desk, ("left", "right")[number % 2]), range(12)))
    assert answers == [200] * 12
    with client(desk) as control:
        told = [each.body for each in control.reports(5000).records if each.kind == "worker"]
    # Never both at once: each began to load only when the other had ended.
    inside: set[str] = set()
    for event in told:
        if event["what"] == "started":
            inside.add(event["model"])
        elif event["what"] == "stopped":
            inside.discard(event["model"])
        assert len(inside) <= 1


def test_a_running_answer_is_finished_before_its_model_makes_room(desk: AgentProcess) -> None:
    with (
        OpenAI(base_url=f"{desk.url}/v1", api_key="none", max_retries=0, timeout=120) as asking,
        ThreadPoolExecutor(1) as threads,
    ):
        stream = asking.completions.create(
            model="left", prompt=COUNT, temperature=0, max_tokens=60, stream=True
        )
        next(stream)
        right = threads.submit(chat, desk, "right")
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert right.result() == 200
    assert states(desk) == {"left": "unloaded", "right": "ready"}


def test_a_worker_that_is_killed_comes_back_with_the_next_request(desk: AgentProcess) -> None:
    assert chat(desk, "left") == 200
    os.kill(worker_of(desk, "left")["pid"], signal.SIGKILL)
    wait_until(lambda: states(desk)["left"] == "unloaded", pause=0.01)
    assert "SIGKILL" in worker_of(desk, "left")["error"]
    assert chat(desk, "left") == 200
    assert worker_of(desk, "left")["error"] is None


def test_after_a_kill_of_the_agent_the_first_request_loads_what_it_needs(desk: AgentProcess) -> None:
    desk.kill()
    desk.start()
    assert states(desk) == {"left": "unloaded", "right": "unloaded"}
    assert desk.ask("/readyz")[0] == 200
    assert chat(desk, "right") == 200
    assert states(desk) == {"left": "unloaded", "right": "ready"}


def test_a_device_whose_models_wait_to_be_asked_for_is_serving(desk: AgentProcess, edgectl: Edgectl) -> None:
    edgectl.add("desk", desk)
    done = edgectl.run("status", "--refresh", "-o", "json")
    assert done.code == 0, done.err
    (row,) = done.json["devices"]
    assert (row["state"], row["models"]) == ("serving", "left, right")
    assert (row["workers_total"], row["workers_ready"]) == (1, 1)


def test_a_new_release_takes_over_without_a_failed_request(desk: AgentProcess, quickstart: Path) -> None:
    with Client(desk, "left") as asking:
        wait_until(lambda: asking.seen.answers)
        last = deploy(desk, two(quickstart, number=2, idle_ttl=0.5), quickstart)
        assert last.outcome is Outcome.SUCCEEDED, last.detail
        before = asking.seen.answers
        wait_until(lambda: asking.seen.answers > before)
    assert asking.seen.problems == []


def test_what_nobody_asks_for_leaves_memory(desk: AgentProcess) -> None:
    wait_until(lambda: states(desk) == {"left": "unloaded", "right": "unloaded"})
    assert [worker["error"] for worker in desk.state()["workers"]] == [None, None]
    assert chat(desk, "right") == 200
