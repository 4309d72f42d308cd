"""The doctor: each finding, each with its remedy, and an exit code for scripts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent_daemon.contract.wire import GpuFacts, RuntimeFacts
from agent_daemon.doctor import check_agent, check_gpus, check_runtime, check_space, check_state_dir
from tests.support import nvml
from tests.support.agent import AgentProcess

CPU = RuntimeFacts(version="0.3.36", backends=("cpu",))
CUDA = RuntimeFacts(version="0.3.36", backends=("cuda", "cpu"))
CARD = GpuFacts(index=0, vendor="nvidia", name="RTX 4060")


def test_a_runtime_is_described_by_its_version_and_backends() -> None:
    check = check_runtime(CUDA)
    assert (check.ok, check.finding) == (True, "llama-cpp-python 0.3.36, backends: cuda, cpu")


def test_a_runtime_that_does_not_load_fails_with_its_reason() -> None:
    check = check_runtime(RuntimeFacts(error="llama-cpp-python does not load: no module"))
    assert (check.ok, check.finding) == (False, "llama-cpp-python does not load: no module")
    assert "make setup" in (check.remedy or "")


def test_simulated_offload_is_never_taken_for_real() -> None:
    check = check_runtime(RuntimeFacts(version="1", backends=("cpu", "simulated"), simulated_offload=True))
    assert check.ok is None
    assert check.finding.endswith("offload is SIMULATED by the test switch")


def test_a_gpu_that_the_runtime_cannot_use_is_a_failure() -> None:
    check = check_gpus((CARD,), None, CPU)
    assert check.ok is False
    assert check.finding == "RTX 4060: not used, because this llama-cpp-python was built for cpu"
    assert "CUDA" in (check.remedy or "")
    assert check_gpus((CARD,), None, RuntimeFacts()).finding.endswith("built for nothing")


def test_gpus_that_are_used_and_a_machine_without_any() -> None:
    unnamed = GpuFacts(index=1, vendor="amd")
    assert check_gpus((CARD, unnamed), None, CUDA).model_dump() == {
        "name": "GPUs",
        "ok": True,
        "finding": "RTX 4060, GPU 1",
        "remedy": None,
    }
    assert check_gpus((), None, CPU).ok is None


def test_a_driver_that_fails_halfway_is_a_failure_even_with_a_gpu_found() -> None:
    check = check_gpus((CARD,), "GPU 1: lost", CUDA)
    assert (check.ok, check.finding) == (False, "GPU 1: lost")


def test_a_state_directory_that_is_still_to_be_made_is_judged_by_what_is_there(tmp_path: Path) -> None:
    assert check_state_dir(tmp_path / "a" / "b").ok is True
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch(mode=0o400)
    check = check_state_dir(tmp_path / "file" / "state")
    assert (check.ok, check.finding) == (False, f"{tmp_path / 'file'} cannot be written by this user")


def test_space_is_what_is_free_where_the_state_will_be(tmp_path: Path) -> None:
    check = check_space(tmp_path / "later")
    assert check.finding.endswith(f"GiB free at {tmp_path}")
    assert check.ok is (shutil.disk_usage(tmp_path).free >= 2 * 2**30)


def test_an_agent_that_answers_and_one_that_does_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    absent = check_agent(path)
    assert absent.ok is None
    assert "no such file" in absent.finding
    assert "edgectl-agent run" in (absent.remedy or "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        assert check_agent(path).ok is True


def doctor(state_dir: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_daemon", "doctor", "--state-dir", str(state_dir), *more],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.engine
def test_the_command_examines_this_machine_and_changes_nothing(
    tmp_path: Path, served_agent: AgentProcess
) -> None:
    without = nvml.environment_without_library(tmp_path)
    done = doctor(tmp_path / "state", "-o", "json", **without)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(checks) == ["state directory", "disk space", "runtime", "GPUs", "agent"]
    assert "backends: cpu" in checks["runtime"]["finding"]
    assert checks["agent"]["ok"] is None
    assert done.returncode == (1 if any(check["ok"] is False for check in checks.values()) else 0)
    assert not (tmp_path / "state").exists()
    table = doctor(served_agent.state_dir, **without).stdout
    assert f"ok    agent: answers at {served_agent.state_dir / 'agent.sock'}" in table


@pytest.mark.engine
def test_the_command_fails_where_a_gpu_lies_idle(tmp_path: Path) -> None:
    state = tmp_path / "gpus"
    state.write_text(nvml.gpu(0, total=8 * 2**30, free=7 * 2**30, name="RTX 4060") + "\n")
    done = doctor(tmp_path, **nvml.environment(state))
    assert done.returncode == 1
    assert "FAIL  GPUs: RTX 4060: not used, because this llama-cpp-python was built for cpu" in done.stdout
    assert "\n      install a llama-cpp-python built for this GPU" in done.stdout
