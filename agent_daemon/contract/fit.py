"""Whether a model fits, and with which split. PURE.

All sizes are bytes, contexts are tokens. What is needed is counted in `need`; here it meets the memory that is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_daemon.contract.fit_report import GIB, MIB, FitReport
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.kv_cache import BLOCKS
from agent_daemon.contract.need import Need, Share, Split, layers, need
from agent_daemon.contract.serve_options import ServeOptions

__all__ = [
    "GIB",
    "MIB",
    "VRAM_RESERVE",
    "WORKER_RESERVE",
    "FitReport",
    "Room",
    "ServeOptions",
    "fit",
    "most_layers",
    "ram_reserve",
    "unsupported",
]

VRAM_RESERVE = 256 * MIB
"""Kept of the free VRAM for what the driver's "free" does not include yet and no buffer shows: the context that each
process opens on a GPU, and the work space of its kernels. Where loads on the same kind of device were measured, what
they took replaces it (`fit_margin`)."""
WORKER_RESERVE = 96 * MIB
"""Kept of a RAM limit that the device's owner set, for the worker process itself: interpreter and runtime."""


def ram_reserve(ram_total: int | None) -> int:
    """Bytes of RAM left to the system where the owner set no limit: 5% of the total, at least 512 MiB."""
    return max(512 * MIB, (ram_total or 0) // 20)


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes of one memory, and those of them that must stay free."""

    free: int
    reserve: int = 0

    @property
    def budget(self) -> int:
        return max(0, self.free - self.reserve)


def unsupported(facts: GgufFacts, options: ServeOptions) -> str | None:
    """Why these options can never serve this model, whatever the memory, or None."""
    if facts.unservable_reason is not None:
        return facts.unservable_reason
    if facts.encoder_only and options.task == "chat":
        return f"it is an embedding model ({facts.architecture}) and cannot generate text"
    block = BLOCKS[options.kv_type][0]
    if block > 1 and not options.flash_attention:
        return f"a cache of {options.kv_type} needs flash attention"
    heads = {facts.key_length, facts.value_length, facts.key_length_sliding, facts.value_length_sliding}
    for length in sorted(heads):
        if length % block:
            return f"its heads of {length} elements are no multiple of {block}, as {options.kv_type} needs"
    return None


def fit(
    facts: GgufFacts,
    options: ServeOptions,
    split: Split = (),
    *,
    gpus: Sequence[Room] = (),
    ram: Room | None = None,
) -> FitReport:
    """Bytes that serving takes in this split, against the room on those GPUs (one for each part of the split) and in
    RAM (None: not known; RAM is then judged only where nothing else is, and found wanting)."""
    wanted = need(facts, options, split)
    if not split:
        return _in_ram(facts, wanted, ram or Room(0))
    parts = wanted.gpus
    shared = -(-wanted.margin // len(parts))
    missing = sum(max(0, part.total + shared - room.budget) for part, room in zip(parts, gpus, strict=True))
    together = _sum(parts)
    return FitReport(
        weights=together.weights,
        kv_cache=together.kv_cache,
        compute=together.compute,
        adapters=together.adapters,
        gpu_layers=sum(split),
        layers=layers(facts),
        memory="vram",
        free=sum(room.free for room in gpus),
        reserve=sum(room.reserve for room in gpus),
        missing=missing,
        margin=shared * len(parts),
        host=wanted.host.total,
        host_free=None if ram is None else ram.budget,
        split=split,
        parts=tuple(part.total for part in parts),
        uncertain=wanted.uncertain,
    )


def _in_ram(facts: GgufFacts, wanted: Need, room: Room) -> FitReport:
    share = wanted.host
    return FitReport(
        weights=share.weights,
        kv_cache=share.kv_cache,
        compute=share.compute,
        adapters=share.adapters,
        gpu_layers=0,
        layers=layers(facts),
        memory="ram",
        free=room.free,
        reserve=room.reserve,
        missing=max(0, share.total + wanted.margin - room.budget),
        margin=wanted.margin,
        uncertain=wanted.uncertain,
    )


def _sum(parts: Sequence[Share]) -> Share:
    return Share(
        sum(part.weights for part in parts),
        sum(part.kv_cache for part in parts),
        sum(part.compute for part in parts),
        sum(part.adapters for part in parts),
    )


def most_layers(facts: GgufFacts, options: ServeOptions, gpus: Sequence[Room]) -> Split:
    """The split with the most layers that fits on these GPUs, the last layers as llama.cpp takes them; empty where
    not one fits. Each GPU is filled before the next; the last in the list holds the output layer."""
    most = layers(facts)
    best: Split = ()
    low, high = 1, most
    while low <= high:
        middle = (low + high) // 2
        found = _filled(facts, options, gpus, middle)
        if found is None:
            high = middle - 1
        else:
            best, low = found, middle + 1
    return best


def whole(facts: GgufFacts, options: ServeOptions, gpus: Sequence[Room]) -> Split | None:
    """A split of all layers over these GPUs, each with a layer at least, or None where they do not fit."""
    return _filled(facts, options, gpus, layers(facts))


def _filled(facts: GgufFacts, options: ServeOptions, gpus: Sequence[Room], count: int) -> Split | None:
    """`count` layers over all GPUs, each as full as it gets, from the last one backwards."""
    if count < len(gpus):
        return None
    if len(gpus) == 1:
        return (count,) if _fits(facts, options, (count,), gpus) else None
    # from the back, because the last one holds the output layer; the first takes what is left
    taken: list[int] = []
    left = count
    for place in range(len(gpus) - 1, 0, -1):
        low, high, here = 1, left - place, 0
        while low <= high:
            middle = (low + high) // 2
            head = left - middle
            if _part_fits(facts, options, (head, middle, *taken), 1, gpus[place]):
                here, low = middle, middle + 1
            else:
                high = middle - 1
        if not here:
            return None
        taken.insert(0, here)
        left -= here
    split = (left, *taken)
    return split if _fits(facts, options, split, gpus) else None


def _part_fits(facts: GgufFacts, options: ServeOptions, split: Split, place: int, room: Room) -> bool:
    wanted = need(facts, options, split)
    return wanted.gpus[place].total + -(-wanted.margin // len(split)) <= room.budget


def _fits(facts: GgufFacts, options: ServeOptions, split: Split, gpus: Sequence[Room]) -> bool:
    wanted = need(facts, options, split)
    shared = -(-wanted.margin // len(split))
    return all(part.total + shared <= room.budget for part, room in zip(wanted.gpus, gpus, strict=True))
