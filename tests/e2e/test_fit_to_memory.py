"""One manifest, devices of different memory: each gets the candidate that fits it, or a refusal with its sum."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE
from tests.e2e import manifests
from tests.e2e.commands import Done, Edgectl, listing
from tests.support import nvml
from tests.support.agent import AgentProcess, running_agent
from tests.support.models import ladder

pytestmark = pytest.mark.engine

SIMULATED = {"EDGECTL_TEST_SIMULATE_OFFLOAD": "1"}
FITTING = {"large": "Q8_0", "middle": "Q4_K_M", "small": "Q2_K"}
"""Device -> the best candidate that its memory is made to fit exactly."""
MIB = 1 << 20
SHORT = 32 * MIB
"""Bytes that the fourth device's GPU lacks for the smallest candidate. Of RAM it lacks more."""


@dataclass
class Fleet:
    """Four devices, and what one deploy of one manifest did to them."""

    edgectl: Edgectl
    agents: dict[str, AgentProcess]
    fits: dict[str, dict[str, int]]
    manifest: Path
    deploy: Done
    tiny_before: dict[str, tuple[int, int]]
    tiny_after: dict[str, tuple[int, int]]


def gpu_environment(folder: Path, name: str, free: int) -> dict[str, str]:
    state = folder / f"{name}.gpus"
    total = 8 << 30
    line = nvml.gpu(0, total, free, name="Stand-in 8", uuid=f"GPU-{name}", compute="8.9")
    state.write_text(f"driver 550.54\n{line}\n")
    return nvml.environment(state)


def fit_of(edgectl: Edgectl, path: Path) -> dict[str, int]:
    """Bytes that one candidate takes on a GPU at the manifest's context, as `model fit` prints them."""
    done = edgectl.run("model", "fit", f"file:{path}", "--vram", "8GiB", "--context", "512", "-o", "json")
    assert done.code == 0, done.err
    fit: dict[str, int] = done.json
    return fit


@pytest.fixture(scope="module")
def fleet(edgectl: Edgectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    files = ladder()
    fits = {rung: fit_of(edgectl, files[rung]) for rung in FITTING.values()}
    totals = {rung: fit["total"] for rung, fit in fits.items()}
    agents: dict[str, AgentProcess] = {}
    with ExitStack() as stack:
        for name, rung in FITTING.items():
            # To the byte: one byte less and the next smaller candidate would be the one.
            environment = gpu_environment(folder, name, totals[rung] + VRAM_RESERVE)
            agents[name] = stack.enter_context(running_agent(folder / name, {**environment, **SIMULATED}))
        environment = gpu_environment(folder, "tiny", totals["Q2_K"] + VRAM_RESERVE - SHORT)
        agents["tiny"] = stack.enter_context(
            running_agent(folder / "tiny", {**environment, **SIMULATED}, ("--ram-limit", "150MiB"))
        )
        for name, agent in agents.items():
            edgectl.add(name, agent)
        manifest = manifests.write(
            folder / "ladder.yaml",
            {"assistant": manifests.model([files["Q2_K"], files["Q4_K_M"], files["Q8_0"]])},
        )
        before = listing(agents["tiny"].state_dir)
        deploy = edgectl.deploy(manifest)
        after = listing(agents["tiny"].state_dir)
        yield Fleet(edgectl, agents, fits, manifest, deploy, before, after)


def served_file(agent: AgentProcess) -> str:
    """Name of the file of the release that the device itself says it serves."""
    with sqlite3.connect(agent.state_dir / "journal.db") as journal:
        (body,) = journal.execute(
            "SELECT body FROM release WHERE digest = (SELECT value FROM pointer WHERE name = 'active')"
        ).fetchone()
    journal.close()
    name: str = json.loads(body)["models"][0]["artifact"]["files"][0]["name"]
    return name


def test_the_ladder_falls_in_bytes(fleet: Fleet) -> None:
    totals = [fleet.fits[rung]["total"] for rung in FITTING.values()]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 3


def test_one_deploy_brings_each_device_its_own_candidate_and_refuses_the_fourth(fleet: Fleet) -> None:
    assert fleet.deploy.code == 1, fleet.deploy.out
    assert fleet.deploy.outcomes() == {
        "large": "succeeded",
        "middle": "succeeded",
        "small": "succeeded",
        "tiny": "refused",
    }
    for name, rung in FITTING.items():
        assert served_file(fleet.agents[name]) == f"SmolLM2-135M-Instruct.{rung}.gguf"
        status, answer = fleet.agents[name].chat()
        assert status == 200
        assert answer["choices"][0]["message"]["content"]


def test_each_worker_is_where_it_was_placed(fleet: Fleet) -> None:
    for name, rung in FITTING.items():
        (worker,) = fleet.agents[name].state()["workers"]
        assert (worker["memory"], worker["gpu_uuid"]) == ("vram", f"GPU-{name}")
        assert (worker["gpu_layers"], worker["offloaded_layers"]) == (31, 31)
        assert worker["simulated_offload"] is True
        assert worker["predicted_bytes"] == fleet.fits[rung]["total"]


def test_the_refusal_says_the_whole_sum(fleet: Fleet) -> None:
    (tiny,) = [result for result in fleet.deploy.json["devices"] if result["device"] == "tiny"]
    fit = {key: f"{fleet.fits['Q2_K'][key] / MIB:.0f}" for key in ("total", "weights", "kv_cache", "compute")}
    free = (fleet.fits["Q2_K"]["total"] - SHORT) / MIB
    assert tiny["reason"] == (
        "assistant: SmolLM2-135M-Instruct.Q2_K.gguf at context 512: "
        f"needs {fit['total']} MiB: weights {fit['weights']}, KV {fit['kv_cache']}, compute {fit['compute']}; "
        f"free {free:.0f} of {free + 256:.0f} after 256 kept for the driver (GPU 0, Stand-in 8)"
    )
    assert (tiny["bytes_moved"], tiny["release"]) == (0, None)


def test_nothing_was_written_to_the_refused_device(fleet: Fleet) -> None:
    assert fleet.tiny_after == fleet.tiny_before
    state = fleet.agents["tiny"].state()
    assert (state["active"], state["operation"], state["held"], state["blobs"]) == (None, None, [], [])


def test_the_plan_shows_every_candidate_that_was_tried(fleet: Fleet) -> None:
    done = fleet.edgectl.run("plan", "-f", fleet.manifest, "-o", "json")
    assert done.code == 1
    steps = {step["device"]: step for step in done.json["devices"]}
    assert [steps[name]["action"] for name in (*FITTING, "tiny")] == ["unchanged"] * 3 + ["refuse"]
    tried = [line.partition(" at ")[0].split(".")[-2] for line in steps["tiny"]["details"]]
    assert tried == ["Q8_0", "Q4_K_M", "Q2_K"]
    shown = fleet.edgectl.run("plan", "-f", fleet.manifest)
    assert re.search(r"tiny: assistant: .* needs \d+ MiB: weights", shown.out)


def test_a_model_that_must_be_on_the_gpu_is_refused_where_only_ram_would_do(
    fleet: Fleet, tmp_path: Path
) -> None:
    files = ladder()
    manifest = manifests.write(
        tmp_path / "all.yaml",
        {"assistant": manifests.model(files["Q8_0"], gpu_layers="all")},
        devices="name=middle",
    )
    before = listing(fleet.agents["middle"].state_dir)
    done = fleet.edgectl.deploy(manifest)
    assert done.code == 1
    assert done.outcomes() == {"middle": "refused"}
    assert "(GPU 0, Stand-in 8)" in done.json["devices"][0]["reason"]
    assert listing(fleet.agents["middle"].state_dir) == before
    assert served_file(fleet.agents["middle"]) == "SmolLM2-135M-Instruct.Q4_K_M.gguf"


def test_status_says_that_the_offload_is_simulated(fleet: Fleet) -> None:
    done = fleet.edgectl.run("status", "--refresh", "-o", "json")
    rows = {row["name"]: row for row in done.json["devices"]}
    assert {name: (row["state"], row["memory"]) for name, row in rows.items()} == {
        "large": ("serving", "vram"),
        "middle": ("serving", "vram"),
        "small": ("serving", "vram"),
        "tiny": ("never_deployed", None),
    }
    assert [rows[name]["simulated_offload"] for name in FITTING] == [True, True, True]
    table = fleet.edgectl.run("status").out
    assert re.search(r"^large .*GPU offload is simulated \(test switch\)$", table, re.MULTILINE)


def test_a_cpu_runtime_beside_a_gpu_is_placed_in_ram_and_everything_says_so(
    quickstart: Path, tmp_path: Path
) -> None:
    environment = gpu_environment(tmp_path, "cpu-only", 7 << 30)
    edgectl = Edgectl(tmp_path / "inventory.db")
    manifest = manifests.write(tmp_path / "m.yaml", {"assistant": manifests.model(quickstart)})
    why = "GPU 0 (Stand-in 8, 8.0 GiB) is not used: this device's llama-cpp-python was built for cpu only"
    with running_agent(tmp_path / "state", environment) as agent:
        edgectl.add("desk", agent)
        (step,) = edgectl.run("plan", "-f", manifest, "-o", "json").json["devices"]
        assert step["notes"] == [why]
        assert (step["models"][0]["memory"], step["models"][0]["gpu_layers"]) == ("ram", 0)
        assert f"desk: {why}" in edgectl.run("plan", "-f", manifest).out
        edgectl.deployed(manifest)
        (worker,) = agent.state()["workers"]
        assert (worker["memory"], worker["offloaded_layers"]) == ("ram", 0)
        assert worker["simulated_offload"] is False
        (row,) = edgectl.run("status", "--refresh", "-o", "json").json["devices"]
        assert (row["memory"], row["simulated_offload"]) == ("ram", False)
        noted = "the runtime cannot use the GPU (it was built with: cpu); models go to RAM"
        assert row["gpu_note"] == noted
        assert edgectl.run("status").out.rstrip().endswith(noted)
        doctor = subprocess.run(
            [sys.executable, "-m", "agent_daemon", "doctor", "--state-dir", str(agent.state_dir)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    assert doctor.returncode == 1
    assert (
        "FAIL  GPUs: Stand-in 8: not used, because this llama-cpp-python was built for cpu" in doctor.stdout
    )
