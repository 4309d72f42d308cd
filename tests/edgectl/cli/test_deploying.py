"""`edgectl plan`, `deploy` and `history` with devices whose answers are written down: what is chosen and why, and what
a device that refuses comes to."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from agent_daemon.contract.fit import MIB, VRAM_RESERVE, Room, fit
from agent_daemon.contract.fit_margin import device_class
from agent_daemon.contract.gguf import GgufFacts
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.contract.wire import (
    ActivationState,
    DeviceState,
    Facts,
    GpuFacts,
    Outcome,
    Quarantined,
    RecordKind,
    RuntimeFacts,
    WorkerState,
    WorkerStatus,
)
from edgectl import catalog
from edgectl.fit.margins import ALLOWANCE
from edgectl.inventory.repository import Repository
from tests.support.gguf_files import SHAPES, write
from tests.support.inventory_messages import digest, record
from tests.support.scripted_agent import Script, scripted_agent

GIB = 2**30
Run = Callable[..., Any]
Q = gguf.GGMLQuantizationType
SMALL = replace(SHAPES["llama-1b"], vocab=1024)
CUDA = RuntimeFacts(backends=("cpu", "cuda"))
MANIFEST = """\
version: 1
name: office
devices: all
models:
  chat:
    candidates: [file:q8.gguf, file:q4.gguf]
    context: 4096
    gpu_layers: all
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    best = replace(SMALL, weights=Q.Q8_0, down=Q.Q8_0, head=Q.Q8_0, file_type=7)
    write(folder / "q8.gguf", best, full_size=False)
    write(folder / "q4.gguf", SMALL, full_size=False)
    return folder


def facts_of(folder: Path, name: str) -> GgufFacts:
    (pinned,) = catalog.resolve(f"file:{name}", base=folder, progress=catalog.silent)
    return pinned.facts


def whole(folder: Path, name: str, context: int = 4096) -> int:
    """Bytes of a GPU that a file takes."""
    facts = facts_of(folder, name)
    return need(facts, ServeOptions(context), (layers(facts),)).gpus[0].total


def gpu(free: int, **more: Any) -> GpuFacts:
    known = {"uuid": "GPU-0", "vendor": "nvidia", "name": "L4", "vram_total": 24 * GIB, "vram_free": free}
    return GpuFacts(index=0, **(known | more))


def told(name: str, *gpus: GpuFacts, **more: Any) -> Facts:
    known = {"agent_version": "1", "arch": "x86_64", "ram_total": 32 * GIB, "ram_available": 20 * GIB}
    return Facts(agent_id=name, gpus=gpus, **(known | {"runtime": CUDA} | more))


class Fleet:
    """Scripted devices that the inventory knows, and a manifest for them."""

    def __init__(
        self, folder: Path, edgectl: Run, inventory: Repository, state: Path, stack: ExitStack
    ) -> None:
        self._folder, self._edgectl, self._inventory = folder, edgectl, inventory
        self._state, self._stack = state, stack
        self.written(MANIFEST)

    def written(self, text: str) -> None:
        self.manifest = self._folder / "office.yaml"
        self.manifest.write_text(text)

    def add(self, name: str, *gpus: GpuFacts, **more: Any) -> Script:
        facts = told(name, *gpus, **more)
        script = Script(facts, DeviceState(agent_id=name))
        self._stack.enter_context(scripted_agent(self._state / name, script))
        self._inventory.add_device(name, {"kind": "local", "state_dir": str(self._state / name)})
        return script

    def run(self, command: str, *arguments: str) -> Any:
        return self._edgectl(command, "-f", str(self.manifest), *arguments)

    def plan(self, *arguments: str) -> dict[str, Any]:
        """The devices' parts of the plan, by name."""
        document = json.loads(self.run("plan", "-o", "json", *arguments).out)
        return {device["device"]: device for device in document["devices"]}


@pytest.fixture
def fleet(folder: Path, edgectl: Run, inventory: Repository, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(folder, edgectl, inventory, tmp_path, stack)


def room_for_q4(folder: Path) -> int:
    return whole(folder, "q4.gguf") + VRAM_RESERVE


def test_a_plan_has_what_was_chosen_what_was_not_and_the_arithmetic(fleet: Fleet, folder: Path) -> None:
    free = room_for_q4(folder)
    assert whole(folder, "q8.gguf") + VRAM_RESERVE > free
    fleet.add("desk", gpu(free))
    device = fleet.plan()["desk"]
    (ladder,) = device["ladders"]
    (best,) = ladder["rejected"]
    chosen = ladder["chosen"]
    assert (device["action"], device["kept"], ladder["model"], ladder["refusal"]) == (
        "deploy",
        None,
        "chat",
        None,
    )
    for rung, name, verdict in ((best, "q8.gguf", "rejected"), (chosen, "q4.gguf", "chosen")):
        facts = facts_of(folder, name)
        split = (layers(facts),)
        report = fit(
            facts,
            ServeOptions(4096),
            split,
            gpus=[Room(free, VRAM_RESERVE)],
            ram=Room(20 * GIB, 32 * GIB // 20),
        )
        assert rung["report"] == report.as_dict()
        assert (rung["candidate"], rung["verdict"], rung["file_type"]) == (name, verdict, facts.file_type)
        assert (rung["kv_type"], rung["stage"], rung["context"]) == ("f16", "gpu", 4096)
        assert report.arithmetic() in rung["reason"]
    (model,) = device["models"]
    assert (model["file"], model["context"], model["digest"]) == (
        chosen["candidate"],
        chosen["context"],
        chosen["digest"],
    )


def test_people_read_why_something_was_stepped_down_in_one_line(fleet: Fleet, folder: Path) -> None:
    fleet.add("desk", gpu(room_for_q4(folder)))
    fleet.add("lab", gpu(20 * GIB))
    lines = fleet.run("plan").out.splitlines()
    # the models here are headers only, which is noted too
    told_of_desk = [line for line in lines if line.startswith("desk: ") and "incomplete" not in line]
    reason = fleet.plan()["desk"]["ladders"][0]["rejected"][0]["reason"]
    assert told_of_desk == [
        f"desk: chat: q4.gguf on one GPU, 1 rung below q8.gguf on one GPU, which was tried first: {reason}"
    ]
    assert not any(line.startswith("lab: chat:") for line in lines)


def test_every_rung_is_shown_when_asked_for(fleet: Fleet, folder: Path) -> None:
    fleet.add("desk", gpu(room_for_q4(folder)))
    fleet.add("lab", gpu(20 * GIB))
    out = fleet.run("plan", "--explain").out
    rows = [line.split()[:5] for line in out[out.index("VERDICT") :].splitlines()[1:5]]
    assert rows == [
        ["desk", "chat", "rejected", "q8.gguf", "Q8_0"],
        ["desk", "chat", "chosen", "q4.gguf", "Q4_K_M"],
        ["lab", "chat", "chosen", "q8.gguf", "Q8_0"],
        ["lab", "chat", "rejected", "q4.gguf", "Q4_K_M"],
    ]
    assert "not needed: a better rung fits" in out
    assert "VERDICT" not in fleet.run("plan").out


def test_a_cache_of_less_bits_is_a_rung(fleet: Fleet, folder: Path) -> None:
    fleet.written(MANIFEST.replace("gpu_layers: all", "gpu_layers: all\n    kv_type: auto"))
    facts = facts_of(folder, "q8.gguf")
    quantized = need(facts, ServeOptions(4096, kv_type="q8_0"), (layers(facts),)).gpus[0].total
    free = quantized + VRAM_RESERVE
    assert free < whole(folder, "q8.gguf") + VRAM_RESERVE
    fleet.add("desk", gpu(free))
    (ladder,) = fleet.plan()["desk"]["ladders"]
    assert (ladder["chosen"]["candidate"], ladder["chosen"]["kv_type"]) == ("q8.gguf", "q8_0")
    assert "q8.gguf with KV q8_0 on one GPU, 1 rung below q8.gguf with KV f16" in fleet.run("plan").out


def test_a_refused_device_has_its_ladder_too(fleet: Fleet, folder: Path) -> None:
    fleet.add("desk", gpu(GIB // 2))
    device = fleet.plan()["desk"]
    (ladder,) = device["ladders"]
    assert (device["action"], ladder["chosen"], device["models"]) == ("refuse", None, [])
    assert [rung["candidate"] for rung in ladder["rejected"]] == ["q8.gguf", "q4.gguf"]
    assert all(rung["report"]["short"] > 0 for rung in ladder["rejected"])
    assert device["reason"] == f"chat: {ladder['refusal']}"


def test_a_placement_that_is_kept_says_so_and_shows_no_ladder(fleet: Fleet, folder: Path) -> None:
    desk = fleet.add("desk", gpu(20 * GIB))
    assert fleet.run("deploy", "--yes").code == 0
    desk.facts = told("desk", gpu(room_for_q4(folder)))
    kept = fleet.plan()["desk"]
    assert (kept["kept"], kept["ladders"], kept["models"][0]["file"]) == ("r1", [], "q8.gguf")
    out = fleet.run("plan").out
    assert "desk: keeps the placement of r1, so nothing was weighed; --replan places anew\n" in out
    anew = fleet.plan("--replan")["desk"]
    assert (anew["kept"], anew["models"][0]["file"]) == (None, "q4.gguf")


def test_many_that_are_kept_are_counted(fleet: Fleet) -> None:
    for number in range(6):
        fleet.add(f"d{number}", gpu(20 * GIB))
    fleet.run("deploy", "--yes")
    assert "6 devices: keep the placement of r1, so nothing was weighed" in fleet.run("plan").out


REASON = "measured 9.1 GiB, predicted 8.0 GiB with a margin of 0.2"


def refuse(script: Script) -> None:
    script.ends = (ActivationState.STAGED, Outcome.REFUSED, REASON)


def test_a_device_that_refuses_is_counted_and_remembered(fleet: Fleet, edgectl: Run) -> None:
    for name in ("desk", "lab", "shop"):
        script = fleet.add(name, gpu(20 * GIB))
        if name != "lab":
            refuse(script)
    done = fleet.run("deploy", "--yes", "-o", "json")
    document = json.loads(done.out.splitlines()[-1])
    # a refusal changes nothing, and says nothing about the next device: it neither halts nor spends the budget
    assert done.code == 1
    assert document["outcomes"] == {"succeeded": 1, "refused": 2}
    found = {device["device"]: (device["outcome"], device["reason"]) for device in document["devices"]}
    assert found == {
        "desk": ("refused", REASON),
        "lab": ("succeeded", None),
        "shop": ("refused", REASON),
    }
    (rollout,) = json.loads(edgectl("history", "-o", "json").out)
    assert {entry["device"]: (entry["outcome"], entry["reason"]) for entry in rollout["outcomes"]} == found
    line = next(line for line in edgectl("history", "desk").out.splitlines() if "refused" in line)
    assert REASON in line


def test_the_end_of_a_deploy_counts_outcomes_for_people_too(fleet: Fleet) -> None:
    refuse(fleet.add("desk", gpu(20 * GIB)))
    fleet.add("lab", gpu(20 * GIB))
    done = fleet.run("deploy", "--yes")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "1 succeeded, 1 refused"


def test_what_a_device_refused_is_placed_anew_the_next_time(fleet: Fleet, folder: Path) -> None:
    desk = fleet.add("desk", gpu(20 * GIB))
    refuse(desk)
    fleet.run("deploy", "--yes")
    desk.facts = told("desk", gpu(room_for_q4(folder)))
    device = fleet.plan()["desk"]
    assert (device["kept"], device["models"][0]["file"]) == (None, "q4.gguf")
    # as it once came to serve it all the same, or will not have it again, there is nothing to place
    active = desk.staged[-1].digest()
    desk.state = DeviceState(agent_id="desk", active=active, active_number=1)
    device = fleet.plan()["desk"]
    assert (device["action"], device["kept"]) == ("unchanged", "r1")
    barred = Quarantined(release=active, number=1, reason="too slow", at=1.0)
    desk.state = DeviceState(agent_id="desk", quarantine=(barred,))
    device = fleet.plan()["desk"]
    assert (device["action"], device["kept"]) == ("refuse", "r1")


@pytest.mark.parametrize(
    ("strategy", "file"), [("auto", "q8.gguf"), ("replace", "q8.gguf"), ("handover", "q4.gguf")]
)
def test_what_old_workers_hold_is_free_only_where_they_leave_first(
    fleet: Fleet, folder: Path, strategy: str, file: str
) -> None:
    fleet.written(f"{MANIFEST}rollout: {{strategy: {strategy}}}\n")
    desk = fleet.add("desk", gpu(room_for_q4(folder)))
    old = WorkerStatus(
        models=("chat",),
        engine_key=digest("e"),
        state=WorkerState.READY,
        memory="vram",
        gpu_uuid="GPU-0",
        vram_bytes=2 * GIB,
    )
    desk.state = DeviceState(agent_id="desk", workers=(old,))
    assert fleet.plan()["desk"]["models"][0]["file"] == file


def test_a_gpu_that_fails_halfway_is_not_used_and_the_plan_says_so(fleet: Fleet) -> None:
    fleet.written(MANIFEST.replace("gpu_layers: all", "gpu_layers: auto"))
    broken = gpu(0).model_copy(update={"vram_free": None})
    fleet.add("desk", broken, gpu_error="GPU 0: its memory cannot be read: NVML: unknown error")
    device = fleet.plan()["desk"]
    assert device["models"][0]["memory"] == "ram"
    assert "GPU 0 (L4, 24.0 GiB) is not used: how much of its memory is free is not known" in device["notes"]
    assert (
        "the list of GPUs may be incomplete: GPU 0: its memory cannot be read: NVML: unknown error"
        in device["notes"]
    )
    assert "desk: the list of GPUs may be incomplete: GPU 0: its memory" in fleet.run("plan").out


def loads(*excess: int) -> list[Any]:
    """Reported loads that took so many MiB more than predicted."""
    kind = device_class(gpu="L4", backends=CUDA.backends, arch="x86_64")
    body = {
        "model": "chat",
        "engine_key": digest("e"),
        "memory": "vram",
        "device_class": kind,
        "context": 4096,
    }
    more = {"parallel": 1, "kv_type": "f16", "gpu_layers": 17, "predicted": 800 * MIB, "planned": 801 * MIB}
    return [
        record(
            seq,
            RecordKind.FITTED,
            **body,
            **more,
            measured=(800 + each) * MIB,
            loaded_in=1.5,
        )
        for seq, each in enumerate(excess, start=1)
    ]


def test_what_was_measured_decides_what_is_kept_free(fleet: Fleet, folder: Path, edgectl: Run) -> None:
    desk = fleet.add("desk", gpu(whole(folder, "q8.gguf") + 100 * MIB + ALLOWANCE))
    assert fleet.plan()["desk"]["models"][0]["file"] == "q4.gguf"
    desk.records = loads(60, 100, 90)
    edgectl("status", "--refresh")
    (ladder,) = fleet.plan()["desk"]["ladders"]
    assert ladder["chosen"]["candidate"] == "q8.gguf"
    assert ladder["chosen"]["report"]["reserve"] == 100 * MIB + ALLOWANCE


def test_a_device_shows_its_memories_and_what_was_learned(fleet: Fleet, edgectl: Run) -> None:
    desk = fleet.add(
        "desk",
        gpu(20 * GIB, vram_others=GIB, bandwidth=300 * GIB),
        ram_bound_by="cgroup",
        ram_bandwidth=30 * GIB,
    )
    desk.records = loads(60, 100, 90)
    document = json.loads(edgectl("device", "show", "desk", "-o", "json").out)
    ram, card = document["memories"]
    assert (ram["free"], ram["total"], ram["bound_by"], ram["bandwidth"]) == (
        20 * GIB,
        32 * GIB,
        "cgroup",
        30 * GIB,
    )
    assert ram["margin"] == {"class": "RAM, x86_64", "bytes": 0, "learned": False, "pairs": 0}
    assert (card["memory"], card["free"], card["others"]) == ("GPU 0, L4", 20 * GIB, GIB)
    assert card["margin"] == {
        "class": "L4, cuda",
        "bytes": 100 * MIB + ALLOWANCE,
        "learned": True,
        "pairs": 3,
    }
    assert [(load["predicted"], load["planned"], load["measured"]) for load in document["loads"]] == [
        (800 * MIB, 801 * MIB, (800 + each) * MIB) for each in (90, 100, 60)
    ]
    assert document["loads"][1]["error_percent"] == -11.11
    lines = [" ".join(line.split()) for line in edgectl("device", "show", "desk").out.splitlines()]
    assert (
        "RAM 20.0 GiB the agent's cgroup 32.0 GiB - 30.0 GiB/s 0 B the default (0 loads measured, 3 are "
        in (" ".join(lines))
    )
    assert (
        "GPU 0, L4 20.0 GiB - 24.0 GiB 1.0 GiB 300.0 GiB/s 132.0 MiB learned from 3 loads L4, cuda" in lines
    )
    measured = [line for line in lines if " chat VRAM, 17 layers 4096 f16 800.0 MiB 801.0 MiB " in line]
    assert [line.split(" 801.0 MiB ")[1] for line in measured] == [
        "890.0 MiB -10.1 % 1.5s",
        "900.0 MiB -11.1 % 1.5s",
        "860.0 MiB -7.0 % 1.5s",
    ]
