"""`edgectl device` against a real agent without a model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgectl.cli.device import _lines
from tests.support.agent import AgentProcess, running_agent

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent") / "state") as started:
        yield started


@pytest.fixture
def desk(agent: AgentProcess, edgectl: Run) -> str:
    where = ("--local", "--state-dir", str(agent.state_dir), "--label", "role=desk", "--label", "site=berlin")
    added = edgectl("device", "add", "desk", *where)
    assert (added.code, added.out, added.err) == (0, "", "added desk\n")
    return "desk"


def test_a_device_is_added_with_its_labels_and_facts(desk: str, edgectl: Run, agent: AgentProcess) -> None:
    (row,) = json.loads(edgectl("device", "list", "-o", "json").out)
    facts = agent.control("GET", "/v1/facts")[1]
    assert row["name"] == "desk"
    assert row["labels"] == {"role": "desk", "site": "berlin"}
    assert (row["ram_total"], row["cpu_model"], row["agent_id"]) == (
        facts["ram_total"],
        facts["cpu_model"],
        facts["agent_id"],
    )
    assert row["backends"] == ",".join(facts["runtime"]["backends"])
    assert row["last_seen"] is not None


def test_the_table_shows_labels_and_what_is_there(desk: str, edgectl: Run) -> None:
    head, row = edgectl("device", "list").out.splitlines()
    assert head.split()[:3] == ["DEVICE", "LABELS", "CPU"]
    assert row.split()[:2] == ["desk", "role=desk,site=berlin"]


def test_a_selector_chooses(desk: str, edgectl: Run) -> None:
    assert len(json.loads(edgectl("device", "list", "-l", "role=desk", "-o", "json").out)) == 1
    assert json.loads(edgectl("device", "list", "-l", "role=laptop", "-o", "json").out) == []


def test_the_same_agent_is_not_added_twice(desk: str, edgectl: Run, agent: AgentProcess) -> None:
    again = edgectl("device", "add", "other", "--local", "--state-dir", str(agent.state_dir))
    assert again.code == 1
    assert "desk" in again.err
    same = edgectl("device", "add", "desk", "--local", "--state-dir", str(agent.state_dir))
    assert same.code == 1


def test_without_an_agent_nothing_is_added(edgectl: Run, tmp_path: Path) -> None:
    done = edgectl("device", "add", "ghost", "--local", "--state-dir", str(tmp_path))
    assert done.code == 3
    assert f"no agent answers at {tmp_path}/agent.sock" in done.err
    assert "edgectl-agent run" in done.err
    assert json.loads(edgectl("device", "list", "-o", "json").out) == []


@pytest.mark.parametrize("arguments", [(), ("--local",), ("--state-dir", "x")])
def test_how_to_reach_it_has_to_be_said(edgectl: Run, arguments: tuple[str, ...]) -> None:
    done = edgectl("device", "add", "desk", *arguments)
    assert done.code == 2
    assert "--local --state-dir DIR" in done.err


def test_a_bad_label_is_a_usage_error(edgectl: Run, agent: AgentProcess) -> None:
    where = ("--local", "--state-dir", str(agent.state_dir))
    assert edgectl("device", "add", "desk", *where, "--label", "role").code == 2


def test_labels_names_and_removal(desk: str, edgectl: Run) -> None:
    assert edgectl("device", "label", "desk", "site-", "role=bench", "gpu=yes").code == 0
    assert edgectl("device", "rename", "desk", "bench1").code == 0
    (row,) = json.loads(edgectl("device", "list", "-o", "json").out)
    assert (row["name"], row["labels"]) == ("bench1", {"gpu": "yes", "role": "bench"})
    assert edgectl("device", "remove", "bench1", "--yes").code == 0
    assert json.loads(edgectl("device", "list", "-o", "json").out) == []
    assert edgectl("device", "show", "bench1").code == 1


def test_show_is_the_devices_own_account(desk: str, edgectl: Run, agent: AgentProcess) -> None:
    document = json.loads(edgectl("device", "show", "desk", "-o", "json").out)
    assert document["state"]["agent_id"] == document["facts"]["agent_id"] == agent.state()["agent_id"]
    assert document["state"]["active"] is None
    text = edgectl("device", "show", "desk").out
    assert text.splitlines()[:3] == ["name: desk", "labels:", "  role: desk"]
    assert "  active: -" in text.splitlines()


def test_logs_begin_with_the_agent_s_own(desk: str, edgectl: Run) -> None:
    done = edgectl("device", "logs", "desk")
    assert done.code == 0
    assert all(line.startswith("agent: ") for line in done.out.splitlines())
    assert "INFO agent_daemon.service: serving on 127.0.0.1:" in done.out


def test_documents_become_indented_lines() -> None:
    document = {"a": 1, "b": {"c": None, "d": []}, "e": ["x", "y"], "f": [{"g": True}, {"g": "z"}]}
    assert _lines(document, 0) == [
        "a: 1",
        "b:",
        "  c: -",
        "  d: -",
        "e: x, y",
        "f 1:",
        "  g: True",
        "f 2:",
        "  g: z",
    ]
