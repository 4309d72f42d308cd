import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.cli import status
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import check_in, device_release, gpu_facts, serving, usage, worker

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
    rollout = inventory.start_rollout("deploy", release.number)
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
