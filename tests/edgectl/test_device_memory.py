"""Which memory a release may use, and why the rest is not counted."""

from typing import Any

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE, WORKER_RESERVE
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts, WorkerState, WorkerStatus
from edgectl.device_memory import device_memory

GIB = 2**30
KEY = "sha256:" + "0" * 64
CUDA = RuntimeFacts(backends=("cpu", "cuda"))


def gpu(index: int = 0, **fields: Any) -> GpuFacts:
    known = {"uuid": f"GPU-{index}", "name": "RTX 4070", "vram_total": 12 * GIB, "vram_free": 11 * GIB}
    return GpuFacts(index=index, vendor="nvidia", **(known | fields))


def device(**fields: Any) -> Facts:
    known = {"ram_total": 32 * GIB, "ram_available": 20 * GIB, "runtime": CUDA}
    return Facts(agent_id="a", agent_version="1", **(known | fields))


def worker(state: WorkerState = WorkerState.READY, **fields: Any) -> WorkerStatus:
    return WorkerStatus(models=("m",), engine_key=KEY, state=state, **fields)


def test_a_gpu_counts_when_the_runtime_can_use_it() -> None:
    memory = device_memory(device(gpus=(gpu(),)))
    assert [(found.uuid, found.free, found.label) for found in memory.gpus] == [
        ("GPU-0", 11 * GIB, "GPU 0, RTX 4070")
    ]
    assert (memory.ram_free, memory.ram_reserve) == (20 * GIB, 32 * GIB // 20)
    assert memory.notes == ()


def test_a_cpu_runtime_leaves_the_gpu_out_and_says_so() -> None:
    memory = device_memory(device(gpus=(gpu(),), runtime=RuntimeFacts(backends=("cpu",))))
    assert memory.gpus == ()
    assert memory.notes == (
        "GPU 0 (RTX 4070, 12.0 GiB) is not used: this device's llama-cpp-python was built for cpu only",
    )


def test_unknown_free_memory_is_not_used() -> None:
    memory = device_memory(device(gpus=(gpu(vram_free=None),), ram_available=None))
    assert memory.gpus == ()
    assert memory.ram_free is None
    assert memory.notes == (
        "GPU 0 (RTX 4070, 12.0 GiB) is not used: how much of its memory is free is not known",
        "RAM is not used: how much is free is not known",
    )


def test_a_runtime_that_does_not_load_is_the_reason() -> None:
    broken = RuntimeFacts(error="libggml is missing")
    assert (
        "does not load (libggml is missing)" in device_memory(device(gpus=(gpu(),), runtime=broken)).notes[0]
    )


def test_more_free_than_there_is_is_clamped() -> None:
    memory = device_memory(device(gpus=(gpu(vram_free=13 * GIB),), ram_available=40 * GIB))
    assert (memory.gpus[0].free, memory.ram_free) == (12 * GIB, 32 * GIB)


def test_what_our_own_workers_hold_counts_as_free() -> None:
    busy = device(gpus=(gpu(vram_free=5 * GIB),), ram_available=10 * GIB)
    memory = device_memory(
        busy, [worker(memory="vram", gpu_uuid="GPU-0", vram_bytes=4 * GIB, ram_private_bytes=GIB)]
    )
    assert (memory.gpus[0].free, memory.ram_free) == (9 * GIB, 11 * GIB)


def test_a_simulated_worker_holds_no_vram() -> None:
    busy = device(gpus=(gpu(vram_free=5 * GIB),))
    simulated = worker(memory="vram", gpu_uuid="GPU-0", predicted_bytes=4 * GIB, simulated_offload=True)
    assert device_memory(busy, [simulated]).gpus[0].free == 5 * GIB
    unmeasured = worker(memory="vram", gpu_uuid="GPU-0", predicted_bytes=4 * GIB)
    assert device_memory(busy, [unmeasured]).gpus[0].free == 9 * GIB


@pytest.mark.parametrize("state", [WorkerState.UNLOADED, WorkerState.BACKOFF, WorkerState.STOPPED])
def test_a_worker_that_is_not_loaded_holds_nothing(state: WorkerState) -> None:
    idle = device(gpus=(gpu(vram_free=5 * GIB),), ram_available=10 * GIB)
    gone = worker(state, memory="vram", gpu_uuid="GPU-0", predicted_bytes=4 * GIB, ram_private_bytes=GIB)
    memory = device_memory(idle, [gone])
    assert (memory.gpus[0].free, memory.ram_free) == (5 * GIB, 10 * GIB)


def test_with_several_gpus_a_worker_counts_where_it_is_known_to_be() -> None:
    busy = device(gpus=(gpu(0, vram_free=GIB), gpu(1, vram_free=GIB)))
    unknown = worker(memory="vram", vram_bytes=4 * GIB)
    assert [found.free for found in device_memory(busy, [unknown]).gpus] == [GIB, GIB]
    second = worker(memory="vram", gpu_uuid="GPU-1", vram_bytes=4 * GIB)
    assert [found.free for found in device_memory(busy, [second]).gpus] == [GIB, 5 * GIB]


def test_a_limit_replaces_the_reserve_for_the_system() -> None:
    memory = device_memory(device(ram_limit=8 * GIB))
    assert (memory.ram_free, memory.ram_reserve) == (8 * GIB, WORKER_RESERVE)
    assert device_memory(device(ram_limit=8 * GIB, ram_available=3 * GIB)).ram_free == 3 * GIB


def test_what_is_left_beside_a_worker() -> None:
    memory = device_memory(device(gpus=(gpu(0), gpu(1))))
    left = memory.less(gpu_uuid="GPU-1", vram=2 * GIB, ram=GIB)
    assert [found.free for found in left.gpus] == [11 * GIB, 9 * GIB - VRAM_RESERVE]
    assert left.ram_free == 19 * GIB
    assert left.roomiest is not None
    assert left.roomiest.uuid == "GPU-0"
    limited = device_memory(device(ram_limit=8 * GIB)).less(gpu_uuid=None, vram=0, ram=GIB)
    assert limited.ram_free == 7 * GIB - WORKER_RESERVE
