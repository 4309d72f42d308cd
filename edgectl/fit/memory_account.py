"""A device's memories as people ask for them: what is free, what bounds it, who else is there, what is kept. PURE.

Sizes are bytes, bandwidths bytes a second; None is unknown.
"""

from collections.abc import Mapping
from typing import Any

from agent_daemon.contract.wire import Facts, GpuFacts
from edgectl.fit.device_memory import class_of, margin_of
from edgectl.fit.margins import Margin


def memories(facts: Facts, margins: Mapping[str, Margin]) -> list[dict[str, Any]]:
    """RAM first, then each GPU. `free` is by the device's own account, the smallest of its bounds; `bound_by` says
    which that is; `margin` is kept free for each model besides what is counted for it."""
    return [_ram(facts, margins), *(_gpu(gpu, facts, margins) for gpu in facts.gpus)]


def _ram(facts: Facts, margins: Mapping[str, Margin]) -> dict[str, Any]:
    free, limit = facts.ram_available, facts.ram_limit
    owned = free is not None and limit is not None and limit < free
    bounds = [bound for bound in (free, limit, facts.ram_total) if bound is not None]
    return {
        "memory": "RAM",
        "free": None if free is None else min(bounds),
        "bound_by": "owner" if owned else facts.ram_bound_by,
        "total": facts.ram_total,
        "others": None,
        "bandwidth": facts.ram_bandwidth,
        "margin": _margin(None, facts, margins),
    }


def _gpu(gpu: GpuFacts, facts: Facts, margins: Mapping[str, Margin]) -> dict[str, Any]:
    free, total = gpu.vram_free, gpu.vram_total
    return {
        "memory": f"GPU {gpu.index}" + (f", {gpu.name}" if gpu.name else ""),
        "free": free if free is None or total is None else min(free, total),
        "bound_by": None,
        "total": total,
        "others": gpu.vram_others,
        "bandwidth": gpu.bandwidth,
        "margin": _margin(gpu, facts, margins),
    }


def _margin(gpu: GpuFacts | None, facts: Facts, margins: Mapping[str, Margin]) -> dict[str, Any]:
    kept = margin_of(gpu, facts, margins)
    kind = class_of(gpu, facts)
    return {"class": kind, "bytes": kept.bytes, "learned": kept.learned, "pairs": kept.pairs}
