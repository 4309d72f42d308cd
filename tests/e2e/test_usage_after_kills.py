"""What the inventory adds up is what clients saw, however often the device's processes were killed meanwhile."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.e2e.asking import Client, Seen
from tests.e2e.commands import Edgectl, finish
from tests.support.agent import AgentProcess, running_agent, wait_until

pytestmark = pytest.mark.engine

KILLS = ("agent", "worker", "agent", "both", "agent")


@pytest.fixture
def desk(quickstart: Path, tmp_path: Path, edgectl: Edgectl) -> Iterator[AgentProcess]:
    """One worker under two names: `steady` is asked only while nothing is killed, `stormy` all the while."""
    with running_agent(tmp_path / "state") as agent:
        edgectl.add("desk", agent)
        served = manifests.model(quickstart, parallel=2)
        edgectl.deployed(manifests.write(tmp_path / "m.yaml", {"steady": served, "stormy": served}))
        yield agent


def ready(agent: AgentProcess) -> bool:
    return agent.ask("/readyz")[0] == 200


def strike(agent: AgentProcess, victim: str) -> None:
    (worker,) = agent.state()["workers"]
    if victim != "worker":
        agent.kill()
    if victim != "agent":
        os.kill(worker["pid"], signal.SIGKILL)
    if victim != "worker":
        agent.start()
    else:
        wait_until(lambda: agent.state()["workers"][0]["pid"] != worker["pid"])
    wait_until(lambda: ready(agent))


def test_every_answer_that_a_client_saw_is_counted_once(desk: AgentProcess, edgectl: Edgectl) -> None:
    steady, stormy = Client(desk, "steady", max_tokens=3), Client(desk, "stormy", max_tokens=6)
    with stormy:
        for number, victim in enumerate(KILLS):
            for _ in range(3):
                steady.ask(f"Tell me {number} things.")
            answered = stormy.seen.answers
            wait_until(lambda: stormy.seen.answers >= answered + 2)  # noqa: B023 (called at once)
            # Collected while the client asks, and for half of the kills while the agent goes away under it.
            collecting = edgectl.start("status", "--refresh", "-o", "json")
            if number % 2:
                assert finish(collecting).code == 0
            strike(desk, victim)
            if not number % 2:
                # It may have asked while nobody was there, and then says so.
                done = finish(collecting)
                assert done.code == 0 or (done.code == 3 and "no agent answers" in done.err), done.err
    for _ in range(2):
        # The second one finds nothing new and must change nothing.
        assert edgectl.run("status", "--refresh").code == 0
    rows = {row["model"]: row for row in edgectl.run("usage", "-o", "json").json}

    assert steady.seen.problems == []
    assert steady.seen.answers == 3 * len(KILLS)
    assert completed(rows["steady"]) == (steady.seen.answers, 0)
    assert rows["steady"]["prompt_tokens"] == steady.seen.prompt_tokens
    assert rows["steady"]["completion_tokens"] == steady.seen.completion_tokens

    # A kill may fall between counting an answer and its last byte: that one is counted and was not seen whole.
    seen, counted = stormy.seen, rows["stormy"]
    cut = [problem for problem in seen.problems if problem.startswith("cut: ")]
    answered_in_full, _ = completed(counted)
    assert seen.answers <= answered_in_full <= seen.answers + len(cut)
    assert_tokens_of_whole_answers(seen, counted, answered_in_full)
    assert_views_agree(edgectl, rows)


def completed(row: dict[str, int]) -> tuple[int, int]:
    """Answers and failures of one model."""
    return row["requests"] - row["failures"], row["failures"]


def assert_tokens_of_whole_answers(seen: Seen, counted: dict[str, int], answered: int) -> None:
    """Every answer to the same question at temperature 0 has as many tokens: only broken ones add fewer."""
    each_prompt, each_answer = seen.prompt_tokens // seen.answers, seen.completion_tokens // seen.answers
    assert seen.completion_tokens == seen.answers * each_answer
    assert 0 <= counted["prompt_tokens"] - answered * each_prompt <= counted["failures"] * each_prompt
    assert 0 <= counted["completion_tokens"] - answered * each_answer <= counted["failures"] * each_answer


def assert_views_agree(edgectl: Edgectl, rows: dict[str, dict[str, int]]) -> None:
    """The minutes, the totals by model and the totals of the device are the same numbers."""
    names = ("requests", "failures", "prompt_tokens", "completion_tokens")
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    wanted = {name: sum(row[name] for row in rows.values()) for name in names}
    for view in ("usage_by_minute", "usage_by_model", "device_status"):
        assert edgectl.query(f"select {sums} from {view}") == [wanted], view
    assert edgectl.query("select count(*) AS rejected from events where kind = 'rejected'") == [
        {"rejected": 0}
    ]
