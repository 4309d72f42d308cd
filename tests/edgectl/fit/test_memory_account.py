"""What is kept of each memory of a device, learned or by default, and how a device's memories are accounted for."""

from typing import Any

import pytest

from agent_daemon.contract.fit import MIB, VRAM_RESERVE
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from edgectl.fit.device_memory import device_memory, margin_of
from edgectl.fit.margins import Margin
from edgectl.fit.memory_account import memories

GIB = 2**30
LEARNED = {
    "NVIDIA L4, cuda": Margin(300 * MIB, 5, learned=True),
    "NVIDIA L4, vulkan": Margin(90 * MIB, 3, learned=True),
    "NVIDIA A2, cuda": Margin(VRAM_RESERVE, 2, learned=False),
    "RAM, x86_64": Margin(400 * MIB, 4, learned=True),
}


def gpu(index: int, name: str | None, **more: Any) -> GpuFacts:
    return GpuFacts(
        index=index,
        uuid=f"GPU-{index}",
        vendor="nvidia",
        name=name,
        vram_total=24 * GIB,
        vram_free=20 * GIB,
        **more,
    )


def device(*gpus: GpuFacts, **more: Any) -> Facts:
    known = {
        "arch": "x86_64",
        "ram_total": 32 * GIB,
        "ram_available": 20 * GIB,
        "runtime": RuntimeFacts(backends=("cpu", "cuda")),
    }
    return Facts(agent_id="a", agent_version="1", gpus=gpus, **(known | more))


def test_each_gpu_keeps_what_its_class_was_seen_to_need() -> None:
    facts = device(gpu(0, "NVIDIA L4"), gpu(1, "NVIDIA A2"), gpu(2, "NVIDIA H100"), gpu(3, None))
    memory = device_memory(facts, margins=LEARNED)
    assert [found.reserve for found in memory.gpus] == [300 * MIB, VRAM_RESERVE, VRAM_RESERVE, VRAM_RESERVE]
    assert [found.reserve for found in device_memory(facts).gpus] == [VRAM_RESERVE] * 4
    other = facts.model_copy(update={"runtime": RuntimeFacts(backends=("vulkan", "cpu"))})
    assert device_memory(other, margins=LEARNED).gpus[0].reserve == 90 * MIB


@pytest.mark.parametrize(
    ("total", "kept"), [(32 * GIB, 400 * MIB), (2 * GIB, 2 * GIB // 10), (None, 400 * MIB)]
)
def test_ram_keeps_what_was_seen_and_at_most_a_tenth(total: int | None, kept: int) -> None:
    facts = device(ram_total=total)
    assert device_memory(facts, margins=LEARNED).ram_margin == kept
    assert device_memory(facts).ram_margin == 0
    assert device_memory(device(arch="aarch64"), margins=LEARNED).ram_margin == 0
    assert margin_of(None, facts, LEARNED) == Margin(kept, 4, learned=True)


@pytest.mark.parametrize(
    ("more", "free", "bound"),
    [
        ({"ram_bound_by": "system"}, 20 * GIB, "system"),
        ({"ram_bound_by": "cgroup"}, 20 * GIB, "cgroup"),
        ({"ram_bound_by": "rlimit", "ram_limit": 25 * GIB}, 20 * GIB, "rlimit"),
        ({"ram_bound_by": "cgroup", "ram_limit": 8 * GIB}, 8 * GIB, "owner"),
        ({"ram_available": 40 * GIB, "ram_bound_by": "system"}, 32 * GIB, "system"),
        ({"ram_available": None, "ram_limit": 8 * GIB}, None, None),
        ({}, 20 * GIB, None),
    ],
)
def test_what_is_free_of_ram_and_what_bounds_it(
    more: dict[str, Any], free: int | None, bound: str | None
) -> None:
    (ram,) = memories(device(**more), {})
    assert (ram["memory"], ram["free"], ram["bound_by"]) == ("RAM", free, bound)


def test_a_gpu_never_has_more_free_than_it_has() -> None:
    odd = gpu(0, "NVIDIA L4").model_copy(update={"vram_free": 30 * GIB, "vram_others": GIB})
    unknown = gpu(1, None).model_copy(update={"vram_free": None})
    _, first, second = memories(device(odd, unknown), LEARNED)
    assert (first["free"], first["others"], first["margin"]["class"]) == (24 * GIB, GIB, "NVIDIA L4, cuda")
    assert first["margin"]["bytes"] == device_memory(device(odd), margins=LEARNED).gpus[0].reserve
    assert (second["memory"], second["free"], second["margin"]) == (
        "GPU 1",
        None,
        {"class": None, "bytes": VRAM_RESERVE, "learned": False, "pairs": 0},
    )
