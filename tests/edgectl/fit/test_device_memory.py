"""Which memory a release may use, and why the rest is not counted."""

from dataclasses import replace
from typing import Any

import pytest

from agent_daemon.contract.fit import MIB, VRAM_RESERVE, WORKER_RESERVE
from agent_daemon.contract.release import Strategy
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts, WorkerState, WorkerStatus
from edgectl.fit.device_memory import DeviceMemory, GpuMemory, device_memory

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
    left = memory.less(vram={"GPU-1": 2 * GIB}, ram=GIB)
    assert [found.free for found in left.gpus] == [11 * GIB, 9 * GIB - VRAM_RESERVE]
    assert left.ram_free == 19 * GIB
    assert [found.uuid for found in left.by_room] == ["GPU-0", "GPU-1"]
    limited = device_memory(device(ram_limit=8 * GIB)).less(vram={}, ram=GIB)
    assert limited.ram_free == 7 * GIB - WORKER_RESERVE
    both = memory.less(vram={"GPU-0": GIB, "GPU-1": 2 * GIB}, ram=0)
    assert [found.free for found in both.gpus] == [10 * GIB - VRAM_RESERVE, 9 * GIB - VRAM_RESERVE]


def test_what_each_worker_takes_besides_is_used_up_with_it() -> None:
    memory = replace(device_memory(device(gpus=(gpu(),))), ram_margin=300 * MIB)
    memory = replace(memory, gpus=(replace(memory.gpus[0], reserve=GIB),))
    assert memory.gpus[0].budget == 10 * GIB
    left = memory.less(vram={"GPU-0": 2 * GIB}, ram=0)
    assert (left.gpus[0].free, left.gpus[0].budget) == (8 * GIB, 7 * GIB)
    assert memory.less(vram={}, ram=GIB, in_ram=True).ram_free == 19 * GIB - 300 * MIB
    assert memory.less(vram={}, ram=GIB).ram_free == 19 * GIB
    assert memory.less(vram={"GPU-0": 20 * GIB}, ram=50 * GIB).ram_free == 0


def test_the_gpu_with_the_most_room_is_not_always_the_one_with_the_most_free() -> None:
    memory = DeviceMemory(
        gpus=(GpuMemory(0, "a", None, 8 * GIB, reserve=GIB), GpuMemory(1, "b", None, 7 * GIB))
    )
    assert [found.uuid for found in memory.by_room] == ["a", "b"]
    more = replace(memory, gpus=(replace(memory.gpus[0], reserve=2 * GIB), memory.gpus[1]))
    assert [found.uuid for found in more.by_room] == ["b", "a"]


def test_under_handover_the_old_workers_stay() -> None:
    busy = device(gpus=(gpu(vram_free=5 * GIB),), ram_available=10 * GIB)
    old = worker(memory="vram", gpu_uuid="GPU-0", vram_bytes=4 * GIB, ram_private_bytes=GIB)
    for strategy in (Strategy.AUTO, Strategy.REPLACE):
        memory = device_memory(busy, [old], strategy=strategy)
        assert (memory.gpus[0].free, memory.ram_free, memory.notes) == (9 * GIB, 11 * GIB, ())
    memory = device_memory(busy, [old], strategy=Strategy.HANDOVER)
    assert (memory.gpus[0].free, memory.ram_free) == (5 * GIB, 10 * GIB)
    assert memory.notes == (
        "strategy handover: what is served now stays in memory until the new release answers",
    )
    assert device_memory(busy, strategy=Strategy.HANDOVER).notes == ()
    # what stays counts against the owner's limit too
    limited = device(ram_limit=8 * GIB, ram_available=20 * GIB)
    in_ram = worker(ram_bytes=3 * GIB, ram_private_bytes=GIB)
    assert device_memory(limited, [in_ram], strategy=Strategy.HANDOVER).ram_free == 5 * GIB
    assert device_memory(limited, [in_ram]).ram_free == 8 * GIB


def test_a_worker_over_several_gpus_gives_back_on_each() -> None:
    busy = device(gpus=(gpu(0, vram_free=GIB), gpu(1, vram_free=2 * GIB)))
    split = worker(
        memory="vram", gpu_uuid="GPU-0", gpu_vram={"GPU-0": 3 * GIB, "GPU-1": 4 * GIB}, vram_bytes=7 * GIB
    )
    assert [found.free for found in device_memory(busy, [split]).gpus] == [4 * GIB, 6 * GIB]


@pytest.mark.parametrize(
    ("others", "told"), [(None, False), (255 * MIB, False), (256 * MIB, True), (3 * GIB, True)]
)
def test_what_others_use_of_a_gpu_is_told_when_it_is_considerable(others: int | None, told: bool) -> None:
    memory = device_memory(device(gpus=(gpu(vram_others=others),)))
    assert memory.gpus[0].free == 11 * GIB
    assert len(memory.notes) == told
    if others == 3 * GIB:
        assert memory.notes == ("GPU 0 (RTX 4070, 12.0 GiB): 3.0 GiB of its memory are in use by others",)


def test_which_limit_bounds_ram_is_told() -> None:
    held = worker(ram_private_bytes=GIB)
    free = device(ram_available=4 * GIB, ram_bound_by="system")
    assert (device_memory(free, [held]).ram_free, device_memory(free, [held]).notes) == (5 * GIB, ())
    within = device_memory(device(ram_available=4 * GIB, ram_bound_by="cgroup"), [held])
    assert within.ram_free == 5 * GIB
    assert within.notes == (
        "RAM: 5.0 GiB may be used, which is what the cgroup of the agent leaves (MemoryMax, or a container's limit)",
    )
    # a limit on each process leaves none more when another one ends
    each = device_memory(device(ram_available=4 * GIB, ram_bound_by="rlimit"), [held])
    assert each.ram_free == 4 * GIB
    assert each.notes == (
        "RAM: 4.0 GiB may be used, which is what the process limits of the agent leave (RLIMIT_AS, RLIMIT_DATA)",
    )


def test_what_was_measured_of_speed_is_carried_along() -> None:
    memory = device_memory(device(gpus=(gpu(bandwidth=400), gpu(1)), ram_bandwidth=50))
    assert [found.bandwidth for found in memory.gpus] == [400, None]
    assert memory.ram_bandwidth == 50


def test_a_gpu_that_failed_halfway_is_left_out_and_the_other_one_used() -> None:
    memory = device_memory(
        device(gpus=(gpu(0, vram_free=None, vram_total=None), gpu(1)), gpu_error="GPU 0: NVML: unknown error")
    )
    assert [found.uuid for found in memory.gpus] == ["GPU-1"]
    assert memory.notes == (
        "GPU 0 (RTX 4070) is not used: how much of its memory is free is not known",
        "the list of GPUs may be incomplete: GPU 0: NVML: unknown error",
    )
