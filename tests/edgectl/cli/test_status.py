import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.cli import status
from edgectl.inventory.repository import Repository
from tests.support.agent import running_agent
from tests.support.inventory_messages import (
    begun,
    check_in,
    device_release,
    gpu_facts,
    serving,
    usage,
    worker,
)

Run = Callable[..., Any]


def add(inventory: Repository, name: str, *records: Any, **labels: str) -> None:
    inventory.add_device(name, {"kind": "local"}, labels)
    inventory.ingest(name, check_in(*records, agent_id=f"agent-{name}"))


def test_json_holds_a_summary_and_every_device(inventory: Repository, edgectl: Run) -> None:
    add(inventory, "desk", serving(1, number=2), usage(2, 3, completion_tokens=11), role="desk")
    add(inventory, "lap", serving(1, worker(state="backoff")), role="laptop")
    inventory.add_device("new", {"kind": "local"})
    report = json.loads(edgectl("status", "-o", "json").out)
    assert report["summary"] == {
        "devices": 3,
        "attention": 2,
        "by_state": {"degraded": 1, "unknown": 1, "serving": 1},
        "by_release": {"r2": 1, "r1": 1, "none": 1},
    }
    assert [device["name"] for device in report["devices"]] == ["desk", "lap", "new"]
    desk = report["devices"][0]
    assert (desk["state"], desk["release"], desk["models"], desk["memory"]) == (
        "serving",
        "r2",
        "chat",
        "ram",
    )
    assert (desk["requests"], desk["completion_tokens"], desk["labels"]) == (3, 11, {"role": "desk"})
    assert (desk["simulated_offload"], desk["attention"]) == (False, False)


def test_an_empty_inventory_is_said_or_an_empty_list(inventory: Repository, edgectl: Run) -> None:
    assert edgectl("status").out == "no devices\n"
    assert json.loads(edgectl("status", "-o", "json").out)["devices"] == []


@pytest.mark.parametrize("form", ["json", "table"])
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["desk"], ["desk"]),
        (["-l", "role=laptop"], ["lap"]),
        (["-l", "role!=laptop"], ["desk"]),
        (["-l", "name=lap"], ["lap"]),
        (["desk", "-l", "role=laptop"], []),
    ],
)
def test_devices_are_chosen_by_name_and_label(
    inventory: Repository, edgectl: Run, form: str, arguments: list[str], names: list[str]
) -> None:
    add(inventory, "desk", serving(1), role="desk")
    add(inventory, "lap", serving(1), role="laptop")
    out = edgectl("status", "-o", form, *arguments).out
    if form == "json":
        assert [device["name"] for device in json.loads(out)["devices"]] == names
    else:
        assert [name for name in ("desk", "lap") if name in out] == names


def test_an_unknown_device_is_named(inventory: Repository, edgectl: Run) -> None:
    result = edgectl("status", "nobody")
    assert result.code == 2
    assert "there is no device 'nobody'" in result.err


def test_a_table_shows_what_a_person_wants_to_know(inventory: Repository, edgectl: Run) -> None:
    inventory.add_device("desk", {"kind": "local"}, facts=gpu_facts(("cpu",)))
    inventory.ingest("desk", check_in(serving(1, worker(ram_bytes=3 << 30), number=4), usage(2, 1234)))
    header, line = edgectl("status").out.splitlines()
    assert header.split() == [
        *(
            "DEVICE",
            "STATE",
            "RELEASE",
            "MODELS",
            "MEMORY",
            "USED",
            "REQUESTS",
            "TOKENS",
            "OUT",
            "SEEN",
            "NOTE",
        )
    ]
    assert line.startswith("desk    serving  r4       chat    ram     3.0 GiB     1,234")
    assert line.endswith("the runtime cannot use the GPU (it was built with: cpu); models go to RAM")
    assert "DIGEST" in edgectl("status", "-o", "wide").out


@pytest.mark.parametrize(
    ("workers", "note"),
    [
        ([worker(state="backoff", error="out of memory")], "out of memory"),
        ([worker(memory="vram", simulated_offload=True)], "GPU offload is simulated (test switch)"),
    ],
)
def test_the_note_says_what_to_know(
    inventory: Repository, edgectl: Run, workers: list[dict[str, Any]], note: str
) -> None:
    add(inventory, "desk", serving(1, *workers))
    assert edgectl("status").out.rstrip().endswith(note)


def test_the_note_gives_the_reason_of_a_bad_outcome(inventory: Repository, edgectl: Run) -> None:
    add(inventory, "desk", serving(1))
    release = inventory.record_release("quickstart", {}, {"desk": device_release()})
    rollout = begun(inventory, "deploy", release.number)
    inventory.record_outcome(rollout.id, "desk", Outcome.FAILED_UNCHANGED, "the disk is full")
    assert edgectl("status").out.rstrip().endswith("failed unchanged (r1): the disk is full")


def test_a_large_fleet_is_summed_up_and_the_troubled_devices_listed(
    inventory: Repository, edgectl: Run
) -> None:
    for number in range(status.LARGE_FLEET + 1):
        add(inventory, f"fine{number:02}", serving(1, number=1 + number % 2))
    for number in range(22):
        add(inventory, f"bad{number:02}", serving(1, worker(state="backoff"), number=2))
    out = edgectl("status").out
    assert out.startswith("53 devices, 22 need attention\n")
    assert ["serving", "31"] in [line.split() for line in out.splitlines()]
    assert ["r2", "37"] in [line.split() for line in out.splitlines()]
    assert [name for name in ("bad19", "bad20", "fine00") if name in out] == ["bad19"]
    assert "… and 2 more that need attention" in out
    assert "--all" in out.splitlines()[-1]
    assert "edgectl query" in out.splitlines()[-1]
    assert len(edgectl("status", "--all").out.splitlines()) == 54


def test_names_that_are_not_ascii_stay_themselves_in_large_json(
    inventory: Repository, edgectl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgectl.cli.output.INDENT_LIMIT", 10)
    add(inventory, "büro-🦊", serving(1), site='the "old" one')
    out = edgectl("status", "-o", "json").out
    assert out.isascii()
    (device,) = json.loads(out)["devices"]
    assert (device["name"], device["labels"]) == ("büro-🦊", {"site": 'the "old" one'})


def test_a_device_cannot_steer_the_terminal(inventory: Repository, edgectl: Run) -> None:
    add(inventory, "desk", serving(1, worker(state="backoff", error="\x1b[2Jgone [red]x[/red]")))
    assert "\\x1b[2Jgone [red]x[/red]" in edgectl("status").out


def test_an_unreachable_device_is_shown_with_what_was_known(inventory: Repository, edgectl: Run) -> None:
    add(inventory, "desk", serving(1, number=3))
    add(inventory, "lap", serving(1))
    inventory.add_device("new", {"kind": "local"})
    inventory.mark_unreachable("desk", "connection refused", at=time.time() - 300)
    inventory.mark_unreachable("new", "no route to host", at=time.time() - 2 * 86400)
    result = edgectl("status")
    assert result.code == 0
    _, desk, lap, new = result.out.splitlines()
    assert desk.startswith("desk    unreachable since 5m  r3  ")
    assert desk.endswith("last known: serving r3; connection refused")
    assert lap.startswith("lap     serving  ")
    assert new.startswith("new     unreachable since 2d  -  ")
    assert new.endswith("last known: nothing; no route to host")
    report = json.loads(edgectl("status", "-o", "json").out)
    assert report["summary"] == {
        "devices": 3,
        "attention": 2,
        "by_state": {"unreachable": 2, "serving": 1},
        "by_release": {"r3": 1, "r1": 1, "none": 1},
    }
    shown = report["devices"][0]
    assert (shown["state"], shown["known_state"]) == ("unreachable", "serving")
    assert shown["unreachable_reason"] == "connection refused"
    assert shown["unreachable_since"] == pytest.approx(time.time() - 300, abs=60)


def test_refreshing_says_who_cannot_be_reached(inventory: Repository, edgectl: Run, tmp_path: Path) -> None:
    with running_agent(tmp_path / "desk") as desk, running_agent(tmp_path / "lap") as lap:
        for agent in (desk, lap):
            where = ("--local", "--state-dir", str(agent.state_dir))
            assert edgectl("device", "add", agent.state_dir.name, *where).code == 0
        assert edgectl("status", "--refresh").code == 0
        lap.kill()
        result = edgectl("status", "--refresh", "-o", "json")
        assert result.code == 3
        states = {device["name"]: device for device in json.loads(result.out)["devices"]}
        assert {name: device["state"] for name, device in states.items()} == {
            "desk": "never_deployed",
            "lap": "unreachable",
        }
        assert (states["lap"]["known_state"], states["desk"]["unreachable_since"]) == ("never_deployed", None)
        assert "lap: no agent answers at" in result.err
        assert "hint: start it with: edgectl-agent run" in result.err
        since = states["lap"]["unreachable_since"]
        # Asked again it is the same silence; who is not asked does not count.
        assert edgectl("status", "--refresh").code == 3
        assert edgectl("status", "--refresh", "desk").code == 0
        (again,) = json.loads(edgectl("status", "lap", "-o", "json").out)["devices"]
        assert again["unreachable_since"] == since
        lap.start()
        assert edgectl("status", "--refresh").code == 0
        (back,) = json.loads(edgectl("status", "lap", "-o", "json").out)["devices"]
        assert (back["state"], back["unreachable_since"]) == ("never_deployed", None)
        desk_only = inventory.device("desk")
        inventory.set_transport("lap", desk_only.transport)
        stranger = edgectl("status", "--refresh", "lap")
        assert stranger.code == 0
        assert "another agent answers there" in stranger.err
        assert inventory.device("lap").unreachable_since is None
