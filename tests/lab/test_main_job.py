"""The main job on bare machines over SSH: one manifest, each device its own candidate; bad releases, reboots, kills,
a hung agent, a machine that is off. The tests of this module follow one another on the same three machines."""

import http.client
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE, WORKER_RESERVE
from edgectl.units import WATCHDOG_SECONDS
from tests.e2e import manifests
from tests.e2e.asking import Client
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.machine import Machine
from tests.lab.spec import GIB, WORKSTATION, Spec
from tests.support.agent import wait_until
from tests.support.models import ladder, silent
from tests.support.nvml import gpu

pytestmark = pytest.mark.engine

FITTING = {"workstation": "Q8_0", "laptop": "Q4_K_M", "bare": "Q2_K"}
"""Device -> the best rung of the ladder that its memory is made to fit."""
KILLS = 20


class Fleet:
    """Three machines that had nothing, after one bootstrap and one deploy."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.control, self.folder = lab, Control(lab), folder
        self.files = ladder()
        self.names = tuple(FITTING)

    def machine(self, name: str) -> Machine:
        return self.lab[name]

    def fit(self, rung: str, *memory: str) -> int:
        """Bytes that a rung takes at the manifest's context."""
        done = self.control.ok(
            "model", "fit", f"file:{self.files[rung]}", *memory, "--context", "512", "-o", "json"
        )
        return int(done.json["total"])

    def manifest(self, name: str, files: list[Path], **more: Any) -> Path:
        """The same ladder for all of them; `more` changes the model."""
        return manifests.write(self.folder / f"{name}.yaml", {"assistant": manifests.model(files, **more)})

    def worker_pids(self) -> dict[str, int]:
        return {name: agent_state(self, name)["workers"][0]["pid"] for name in self.names}


def agent_state(fleet: Fleet, name: str) -> dict[str, Any]:
    state: dict[str, Any] = fleet.control.ok("device", "show", name, "-o", "json").json["state"]
    return state


def main_pid(machine: Machine) -> int:
    return int(machine.run(["systemctl", "show", "--value", "-p", "MainPID", "edgectl-agent"]).stdout)


def answers(machine: Machine) -> bool:
    try:
        return machine.ask("/readyz", timeout=5)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture(scope="module")
def fleet(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = make_bundle()
    machines = lab(
        Spec("workstation", gpus=(WORKSTATION,)),
        Spec(
            "laptop",
            gpus=(gpu(0, 4 * GIB, 3 * GIB, name="Laptop GPU", uuid="GPU-lab-laptop", compute="8.6"),),
        ),
        Spec("bare"),
    )
    fleet = Fleet(machines, tmp_path_factory.mktemp("fleet"))
    small = fleet.fit("Q4_K_M", "--vram", "8GiB") + VRAM_RESERVE
    machines["laptop"].set_gpus(
        [gpu(0, small, small, name="Laptop GPU", uuid="GPU-lab-laptop", compute="8.6")]
    )
    limit = fleet.fit("Q2_K", "--ram", "8GiB") + WORKER_RESERVE
    for name in FITTING:
        fleet.control.add(name, "--label", f"role={name}")
    rows = fleet.control.bootstrap("workstation", "laptop")
    assert [row["outcome"] for row in rows] == ["installed", "installed"]
    (row,) = fleet.control.bootstrap("-l", "role=bare", "--ram-limit", str(limit))
    assert (row["outcome"], row["bytes_moved"]) == ("installed", made["size"])
    first = fleet.manifest("first", [fleet.files[rung] for rung in ("Q2_K", "Q4_K_M", "Q8_0")])
    done = fleet.control.deploy(first)
    assert done.code == 0, done.err + done.out
    assert done.outcomes() == dict.fromkeys(("bare", "laptop", "workstation"), "succeeded")
    return fleet


def test_each_device_gets_its_own_candidate(fleet: Fleet) -> None:
    rows = fleet.control.status("--refresh")
    held = {name: agent_state(fleet, name)["blobs"] for name in FITTING}
    digests = {
        row["device"]: row["models"][0]["digest"]
        for row in fleet.control.run("plan", "-f", fleet.folder / "first.yaml", "-o", "json").json["devices"]
    }
    assert all(held[name] == [digests[name]] for name in FITTING)
    for name, rung in FITTING.items():
        shown = fleet.control.ok("device", "show", name, "-o", "json").json
        memory = ("--ram", "8GiB") if name == "bare" else ("--vram", "8GiB")
        assert shown["state"]["workers"][0]["predicted_bytes"] == fleet.fit(rung, *memory)
        assert rows[name]["predicted_bytes"] == fleet.fit(rung, *memory)
        assert rows[name]["memory"] == ("ram" if name == "bare" else "vram")


def test_a_streamed_chat_works_on_all_and_status_says_what_there_is_to_know(fleet: Fleet) -> None:
    before = fleet.control.status("--refresh")
    body = {
        "model": "assistant",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 6,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    tokens = {}
    for name in FITTING:
        events = list(fleet.machine(name).stream("/v1/chat/completions", body))
        text = "".join(
            event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]
        )
        assert text.strip()
        assert len(events) > 3
        tokens[name] = events[-1]["usage"]["completion_tokens"]
    began = time.time()
    for name, row in fleet.control.status("--refresh").items():
        assert (row["state"], row["release"]) == ("serving", "r1")
        assert row["release_digest"] == agent_state(fleet, name)["active"]
        assert row["measured_bytes"] > 0
        assert row["requests"] - before[name]["requests"] == 1
        assert row["completion_tokens"] - before[name]["completion_tokens"] == tokens[name]
        assert began - 1 <= row["last_seen"] <= time.time()


def test_deploying_again_changes_nothing_and_bootstrapping_again_moves_nothing(fleet: Fleet) -> None:
    workers = fleet.worker_pids()
    done = fleet.control.deploy(fleet.folder / "first.yaml")
    assert (done.code, set(done.outcomes().values())) == (0, {"unchanged"})
    rows = fleet.control.bootstrap(*FITTING)
    assert [(row["outcome"], row["bytes_moved"]) for row in rows] == [("unchanged", 0)] * 3
    assert fleet.worker_pids() == workers


def test_a_bad_release_reverts_everywhere_and_the_old_models_never_stop_answering(fleet: Fleet) -> None:
    broken = []
    for rung in ("Q2_K", "Q4_K_M", "Q8_0"):
        broken.append(silent(fleet.folder, fleet.files[rung], f"broken.{rung}.gguf"))
    bad = manifests.write(
        fleet.folder / "bad.yaml",
        {"assistant": manifests.model(broken)},
        rollout={"max_unavailable": 3, "budgets": {"reverted": 3, "failed_unchanged": 3}},
    )
    with ExitStack() as stack:
        clients = {name: stack.enter_context(Client(fleet.machine(name))) for name in FITTING}  # type: ignore[arg-type]
        done = fleet.control.deploy(bad)
    assert done.code == 1
    assert done.outcomes() == dict.fromkeys(("bare", "laptop", "workstation"), "reverted")
    for result in done.json["devices"]:
        assert result["reason"].startswith("probe failed: assistant: answered the probe with nothing"), result
    for name, client in clients.items():
        assert client.seen.problems == [], name
        assert client.seen.answers > 0
        assert agent_state(fleet, name)["active_number"] == 1
    table = fleet.control.run("status").out
    assert table.count("answered the probe with nothing") == 3


def test_a_rollback_moves_no_byte(fleet: Fleet) -> None:
    other = fleet.folder / "other.gguf"
    other.write_bytes(fleet.files["Q2_K"].read_bytes() + b"\0")
    size = other.stat().st_size
    wire = {name: fleet.machine(name).link.counters() for name in FITTING}
    done = fleet.control.deploy(fleet.manifest("other", [other]))
    assert done.code == 0, done.out
    for name, before in wire.items():
        # To the device: what the machine received.
        assert fleet.machine(name).link.counters().received - before.received >= size
    wire = {name: fleet.machine(name).link.counters() for name in FITTING}
    done = fleet.control.run("rollback", "--yes", "-o", "json")
    assert (done.code, set(done.outcomes().values())) == (0, {"succeeded"})
    for name, before in wire.items():
        moved = fleet.machine(name).link.counters().received - before.received
        # Keys, the release and questions for events, but nothing of the model's size.
        assert moved < size / 100, f"{name}: {moved} bytes"
    assert [row["bytes_moved"] for row in done.json["devices"]] == [0, 0, 0]
    assert all(row["release"] == "r1" for row in fleet.control.status().values())


def test_after_a_reboot_the_model_is_back_by_itself(fleet: Fleet) -> None:
    machine = fleet.machine("laptop")
    before = agent_state(fleet, "laptop")["active"]
    machine.reboot()
    wait_until(lambda: answers(machine))
    assert machine.chat()[0] == 200
    assert agent_state(fleet, "laptop")["active"] == before
    assert "succeeded" in machine.journal("edgectl-agent-gpu") or "Finished" in machine.journal(
        "edgectl-agent-gpu"
    )


def test_an_agent_killed_twenty_times_under_traffic_comes_back_and_loses_no_report(fleet: Fleet) -> None:
    machine = fleet.machine("bare")
    fleet.control.status("--refresh")
    before = fleet.control.usage()
    with Client(machine) as client:  # type: ignore[arg-type]
        for _ in range(KILLS):
            answered = client.seen.answers
            wait_until(lambda: client.seen.answers > answered, 120)  # noqa: B023 (called at once)
            pid = main_pid(machine)
            machine.run(["kill", "-9", str(pid)])
            wait_until(lambda: main_pid(machine) not in (0, pid))  # noqa: B023
        answered = client.seen.answers
        wait_until(lambda: client.seen.answers > answered, 120)
    seen = client.seen
    fleet.control.status("--refresh")
    assert fleet.control.status("--refresh")["bare"]["state"] == "serving"
    after = fleet.control.usage()
    counted = after["answered"] - before["answered"]
    # A kill may fall between counting an answer and its last byte: that one is counted and was not seen whole.
    cut = sum(problem.startswith("cut: ") for problem in seen.problems)
    assert seen.answers <= counted <= seen.answers + cut
    assert after["completion_tokens"] - before["completion_tokens"] >= seen.completion_tokens
    assert (
        int(machine.run(["systemctl", "show", "--value", "-p", "NRestarts", "edgectl-agent"]).stdout) >= KILLS
    )


def test_a_hung_agent_is_replaced(fleet: Fleet) -> None:
    machine = fleet.machine("workstation")
    pid = main_pid(machine)
    began = time.monotonic()
    machine.run(["kill", "-STOP", str(pid)])
    wait_until(lambda: main_pid(machine) not in (0, pid), 2 * WATCHDOG_SECONDS + 30)
    assert time.monotonic() - began < 2 * WATCHDOG_SECONDS
    wait_until(lambda: answers(machine))
    assert "Watchdog timeout" in machine.journal("edgectl-agent")
    assert machine.chat()[0] == 200


def test_a_machine_that_is_off_is_neither_failed_nor_done_and_the_same_command_finishes_it(
    fleet: Fleet,
) -> None:
    machine = fleet.machine("laptop")
    fleet.control.status("--refresh")
    before = fleet.control.usage()
    for _ in range(3):
        assert machine.chat()[0] == 200
    machine.power_off()
    second = fleet.manifest("second", [fleet.files["Q2_K"]], system_prompt="Be brief.")
    gone = time.time()
    done = fleet.control.deploy(second)
    assert done.code == 3, done.out
    assert done.outcomes() == {"bare": "succeeded", "laptop": "unreachable", "workstation": "succeeded"}
    row = fleet.control.status()["laptop"]
    assert (row["state"], row["known_state"], row["release"]) == ("unreachable", "serving", "r1")
    assert gone - 1 <= row["unreachable_since"] <= time.time()
    fleet.control.status("--refresh", code=3)
    assert fleet.control.status()["laptop"]["unreachable_since"] == row["unreachable_since"]
    table = fleet.control.run("status").out
    assert "unreachable since" in table
    assert "last known: serving r1" in table

    machine.boot()
    wait_until(lambda: answers(machine))
    done = fleet.control.deploy(second)
    assert (done.code, done.outcomes()) == (
        0,
        {"bare": "unchanged", "laptop": "succeeded", "workstation": "unchanged"},
    )
    row = fleet.control.status("--refresh")["laptop"]
    assert (row["state"], row["unreachable_since"]) == ("serving", None)
    after = fleet.control.usage()
    assert after["answered"] - before["answered"] == 3


def test_logs_follow_what_happens(fleet: Fleet) -> None:
    machine, log = fleet.machine("bare"), fleet.folder / "followed.log"
    command = [sys.executable, "-m", "edgectl", "device", "logs", "bare", "-f", "-n", "1"]
    process = fleet.lab.background(command, log)
    try:
        wait_until(lambda: log.read_text().count("\n") >= 1)
        assert "crashed" not in log.read_text()
        machine.run(["pkill", "-9", "-f", "agent_daemon.worker"])
        wait_until(lambda: "worker of assistant: crashed" in log.read_text())
        wait_until(lambda: "worker of assistant: ready" in log.read_text().partition("crashed")[2])
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()
