"""Rollouts as records: paused, killed, halted and resumed by other processes; two people at once; a device that was off."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Done, Edgectl, finish
from tests.support.agent import AgentProcess, running_agent, wait_until

pytestmark = pytest.mark.engine

CANARY = {"canary": 1, "order_by": "ring"}


@pytest.fixture
def edgectl(tmp_path: Path) -> Edgectl:
    return Edgectl(tmp_path / "inventory.db")


@pytest.fixture
def first(edgectl: Edgectl, tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "first") as agent:
        edgectl.add("first", agent, "--label", "ring=1")
        yield agent


@pytest.fixture
def second(edgectl: Edgectl, tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "second") as agent:
        edgectl.add("second", agent, "--label", "ring=2")
        yield agent


def written(tmp_path: Path, name: str, model: Path, **more: Any) -> Path:
    return manifests.write(tmp_path / f"{name}.yaml", {"assistant": manifests.model(model)}, **more)


def status(edgectl: Edgectl, number: int) -> dict[str, Any]:
    done = edgectl.run("rollout", "status", str(number), "-o", "json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    return found


def until_event(process: "subprocess.Popen[str]", kind: str, text: str = "") -> dict[str, Any]:
    """The next event of a kind that the command prints."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == kind and text in str(event.get("text", "")):
            return event
    raise AssertionError(f"the command ended without {kind} {text}")


def resumed(edgectl: Edgectl, *more: str) -> Done:
    return edgectl.run("rollout", "resume", *more, "-o", "json")


def test_after_the_canary_it_waits_for_a_word(
    edgectl: Edgectl, first: AgentProcess, second: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "hooks"
    hook = f"sh -c 'cat >> {seen}; echo >> {seen}'"
    manifest = written(
        tmp_path,
        "paused",
        quickstart,
        rollout={**CANARY, "pause_after_canary": True},
        hooks={"pre_deploy": hook, "post_deploy": hook},
    )
    done = edgectl.deploy(manifest)
    assert done.code == 0, done.err
    assert done.json["state"] == "paused"
    assert done.outcomes() == {"first": "succeeded", "second": "deferred"}
    assert (first.state()["active_number"], second.state()["active_number"]) == (1, None)
    assert status(edgectl, 1)["state"] == "paused"
    done = resumed(edgectl)
    assert (done.code, done.json["state"], done.outcomes()) == (0, "finished", {"second": "succeeded"})
    assert second.state()["active_number"] == 1
    told = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [(each["rollout"], each["state"]) for each in told] == [
        (1, "running"),
        (1, "paused"),
        (1, "running"),
        (1, "finished"),
    ]
    assert {each["device"]: each["outcome"] for each in told[-1]["devices"]} == {
        "first": "succeeded",
        "second": "succeeded",
    }
    audit = edgectl.run("history", "--audit", "-o", "json").json
    assert [(row["action"], row["manifest"]) for row in reversed(audit)] == [
        ("deploy", "lab"),
        ("resume", "lab"),
    ]
    assert all(row["manifest_digest"].startswith("sha256:") for row in audit)


def test_a_process_that_is_killed_is_gone_on_with(
    edgectl: Edgectl, first: AgentProcess, second: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    manifest = written(tmp_path, "killed", quickstart, rollout=CANARY, probe={"min_healthy": 3})
    command = edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json")
    until_event(command, "note", "activating")
    command.send_signal(signal.SIGKILL)
    command.wait()
    command.communicate()
    assert status(edgectl, 1)["state"] == "interrupted"
    wait_until(lambda: first.state()["active_number"] == 1)
    done = resumed(edgectl, "1")
    assert (done.code, done.json["state"]) == (0, "finished"), done.out
    assert done.outcomes() == {"first": "unchanged", "second": "succeeded"}
    again = resumed(edgectl, "1")
    assert again.code in (0, 1)
    assert "Traceback" not in again.err


def test_the_second_of_two_people_gets_a_clear_answer(
    edgectl: Edgectl, first: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    manifest = written(tmp_path, "slow", quickstart, probe={"min_healthy": 8})
    command = edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json")
    until_event(command, "started")
    other = edgectl.deploy(written(tmp_path, "other", quickstart, probe={"min_healthy": 0.2}))
    assert other.code == 4, other.err + other.out
    assert f"(process {command.pid}) is at work on first since" in other.err
    assert "nothing was changed" in other.err
    assert "edgectl rollout watch 1" in other.err
    watched = edgectl.run("rollout", "watch", "1")
    assert watched.code == 0, watched.err
    assert finish(command).code == 0
    assert first.state()["active_number"] == 1


def test_an_abort_reaches_the_process_that_leads(
    edgectl: Edgectl, first: AgentProcess, quickstart: Path, tmp_path: Path
) -> None:
    manifest = written(tmp_path, "aborted", quickstart, probe={"min_healthy": 30})
    command = edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json")
    until_event(command, "note", "probing")
    assert edgectl.run("rollout", "abort", "1", "--reason", "a mistake").code == 0
    done = finish(command, 20)
    assert done.code == 1
    assert "rollout 1 is aborted now" in done.err
    assert status(edgectl, 1)["state"] == "aborted"


def test_what_was_off_gets_it_by_resume_and_the_newest_only(
    edgectl: Edgectl,
    first: AgentProcess,
    second: AgentProcess,
    quickstart: Path,
    other_model: Path,
    tmp_path: Path,
) -> None:
    edgectl.deployed(written(tmp_path, "zero", quickstart))
    second.kill()
    older = edgectl.deploy(written(tmp_path, "older", other_model))
    assert (older.code, older.json["state"]) == (3, "waiting")
    newer = edgectl.deploy(written(tmp_path, "newer", quickstart, probe={"prompt": "Another one."}))
    assert (newer.code, newer.json["state"]) == (3, "waiting")
    assert newer.outcomes() == {"first": "succeeded", "second": "unreachable"}
    outcomes = edgectl.query(
        "select rollout, outcome from rollout_history where device = 'second' order by rollout"
    )
    assert [row["outcome"] for row in outcomes] == ["succeeded", "superseded", "unreachable"]
    (row,) = edgectl.query("select pending_release from device_status where name = 'second'")
    assert row["pending_release"] == newer.json["release"]
    nothing = resumed(edgectl, "2")
    assert nothing.code == 1
    assert "newer rollouts have all" in nothing.err or nothing.outcomes() == {}
    second.start()
    done = resumed(edgectl)
    assert (done.code, done.json["state"], done.outcomes()) == (0, "finished", {"second": "succeeded"})
    assert second.state()["active_number"] == first.state()["active_number"] == 3


def test_a_halt_can_take_all_of_it_back(
    edgectl: Edgectl,
    first: AgentProcess,
    second: AgentProcess,
    quickstart: Path,
    other_model: Path,
    tmp_path: Path,
) -> None:
    edgectl.deployed(written(tmp_path, "good", quickstart))
    manifest = written(
        tmp_path,
        "bad",
        other_model,
        rollout={**CANARY, "budgets": {"unreachable": 0}, "on_halt": "revert_all", "min_healthy": 4},
    )
    command = edgectl.start("deploy", "-f", manifest, "--yes", "-o", "json")
    until_event(command, "outcome")
    # Between the plan and its wave it goes away.
    second.kill()
    done = finish(command)
    assert done.code == 1, done.err
    assert done.json["state"] == "halted"
    assert done.outcomes() == {"first": "reverted", "second": "unreachable"}
    (back,) = [each for each in done.json["devices"] if each["device"] == "first"]
    assert back["reason"] == "returned to r1 because the rollout was halted"
    assert first.state()["active_number"] == 1
    assert first.state()["quarantine"] == []
    assert edgectl.run("rollout", "status", "2", "-o", "json").json["state"] == "halted"
