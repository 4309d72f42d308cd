"""Live memory: of this process, of a child, of stand-in GPUs."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon import telemetry
from tests.support import nvml
from tests.support.nvml import DRIVER_NOT_LOADED, GPU_IS_LOST, GpuMachine, gpu

MIB = 1024**2


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[GpuMachine]:
    with GpuMachine(tmp_path / "gpus.txt") as process:
        yield process


def test_available_ram_is_the_kernels_estimate() -> None:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    available = telemetry.ram_available()
    assert available is not None
    assert abs(available - int(line.split()[1]) * 1024) < 2048 * MIB


def test_private_memory_grows_with_what_a_process_allocates() -> None:
    before = telemetry.process_memory(os.getpid())
    held = bytearray(os.urandom(MIB) * 64)
    after = telemetry.process_memory(os.getpid())
    assert before is not None
    assert after is not None
    assert before.private is not None
    assert after.private is not None
    assert after.private - before.private > 48 * MIB
    assert len(held) == 64 * MIB


def test_pages_of_a_file_are_resident_but_not_private(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(MIB) * 64)
    before = telemetry.process_memory(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[at] for at in range(0, len(mapped), mmap.PAGESIZE)) > 0
        after = telemetry.process_memory(os.getpid())
    assert before is not None
    assert after is not None
    assert before.private is not None
    assert after.private is not None
    assert after.rss - before.rss > 48 * MIB
    assert after.private - before.private < 16 * MIB


def test_a_process_that_has_ended_has_no_memory_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert telemetry.process_memory(child.pid) is None
    child.communicate()
    assert telemetry.process_memory(child.pid) is None


@pytest.mark.parametrize("pid", [-1, 2**31 - 1, 2**70])
def test_a_process_that_cannot_be_has_no_memory(pid: int) -> None:
    assert telemetry.process_memory(pid) is None


def test_free_gpu_memory_follows_the_gpu_while_the_process_runs(machine: GpuMachine, tmp_path: Path) -> None:
    question = f"telemetry.gpu_free(Path({str(tmp_path)!r}))"
    machine.set(gpu(0, 1000, 900), gpu(1, 2000, 1900))
    assert machine.ask(question) == [900, 1900]
    machine.set(gpu(0, 1000, 100), gpu(1, 2000, 1900), f"fail nvmlDeviceGetMemoryInfo {GPU_IS_LOST} 1")
    assert machine.ask(question) == [100, None]
    machine.set(f"fail nvmlInitWithFlags {DRIVER_NOT_LOADED}")
    assert machine.ask(question) == []
    machine.set(gpu(0, 1000, 800))
    assert machine.ask(question) == [800]


def test_a_processs_vram_is_told_for_each_gpu(machine: GpuMachine) -> None:
    machine.set(
        gpu(0, 1000, 400, uuid="GPU-a", process="70:500 process=71:100"),
        gpu(1, 1000, 700, uuid="GPU-b", process="70:250 process=72:50"),
    )
    assert machine.ask("telemetry.process_vram(70)") == {"GPU-a": 500, "GPU-b": 250}
    assert machine.ask("telemetry.process_vram(71)") == {"GPU-a": 100}


def test_vram_that_the_driver_does_not_tell_is_unknown(machine: GpuMachine) -> None:
    machine.set(gpu(0, 1000, 400, process="70:unknown process=71:100"))
    assert machine.ask("telemetry.process_vram(70)") is None
    assert machine.ask("telemetry.process_vram(999)") is None


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetComputeRunningProcesses_v3"]
)
def test_a_sum_with_a_gpu_missing_is_unknown(machine: GpuMachine, function: str) -> None:
    machine.set(gpu(0, 1000, 400, process="70:500"), gpu(1, 1000, 700), f"fail {function} {GPU_IS_LOST} 1")
    assert machine.ask("telemetry.process_vram(70)") is None


def test_without_nvml_vram_is_unknown(tmp_path: Path) -> None:
    with GpuMachine(tmp_path / "unused", nvml.environment_without_library(tmp_path)) as machine:
        assert machine.ask("telemetry.process_vram(1)") is None
