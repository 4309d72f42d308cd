"""How a device's memories, and the loads that were measured on it, look as tables."""

from collections.abc import Sequence
from typing import Any

from edgectl.cli.cells import byte_size
from edgectl.cli.output import Column, say, show_table
from edgectl.fit.margins import ENOUGH

_MEMORY = (
    Column("memory", "MEMORY"),
    Column("free", "FREE", "bytes"),
    Column("bound", "BOUND BY"),
    Column("total", "TOTAL", "bytes"),
    Column("others", "USED BY OTHERS", "bytes"),
    Column("speed", "BANDWIDTH"),
    Column("kept", "MARGIN", "bytes"),
    Column("source", "WHICH IS"),
    Column("class", "OF THE CLASS"),
)
_LOADS = (
    Column("received_at", "LOADED", "age"),
    Column("model", "MODEL"),
    Column("where", "IN"),
    Column("context", "CONTEXT"),
    Column("kv_type", "KV"),
    Column("predicted", "PREDICTED", "bytes"),
    Column("planned", "PLANNED", "bytes"),
    Column("measured", "MEASURED", "bytes"),
    Column("error", "OFF BY"),
    Column("loaded_in", "TOOK", "seconds"),
)
_BOUNDS = {
    "system": "what the system has left",
    "cgroup": "the agent's cgroup",
    "rlimit": "the agent's process limits",
    "owner": "the owner's limit",
}


def show_memories(memories: Sequence[dict[str, Any]], loads: Sequence[dict[str, Any]]) -> None:
    """Both tables on stdout; that of the loads only where there were any."""
    say()
    show_table([_memory(each) for each in memories], _MEMORY)
    if loads:
        say()
        show_table([_load(each) for each in loads], _LOADS)


def _memory(memory: dict[str, Any]) -> dict[str, Any]:
    margin, speed = memory["margin"], memory["bandwidth"]
    return {
        **memory,
        "bound": _BOUNDS.get(memory["bound_by"], memory["bound_by"]),
        "speed": None if speed is None else f"{byte_size(speed)}/s",
        "kept": margin["bytes"],
        "source": _source(margin),
        "class": margin["class"],
    }


def _source(margin: dict[str, Any]) -> str:
    loads = f"{margin['pairs']} load{'' if margin['pairs'] == 1 else 's'}"
    if margin["learned"]:
        return f"learned from {loads}"
    return f"the default ({loads} measured, {ENOUGH} are needed)"


def _load(load: dict[str, Any]) -> dict[str, Any]:
    where = "RAM" if load["memory"] == "ram" else f"VRAM, {load['gpu_layers']} layers"
    if load["gpus"] > 1:
        where += f" on {load['gpus']} GPUs"
    error = load["error_percent"]
    several = f" x {load['parallel']}" if load["parallel"] > 1 else ""
    return {
        **load,
        "where": where,
        "context": f"{load['context']}{several}",
        "error": None if error is None else f"{error:+.1f} %",
    }
