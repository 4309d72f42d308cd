"""What models take of a device's memory, and what is missing. PURE. Sizes are bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_daemon.contract.release import Placement
from agent_daemon.contract.wire import WorkerStatus


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that are free right now. None: unknown, which is never taken for enough."""

    ram: int | None
    vram: Mapping[str, int | None]
    """By GPU uuid."""
    each: int | None = None
    """RAM that one process may take by its own limits, whatever is free; None: as much as there is."""


@dataclass(frozen=True)
class Need:
    """Bytes that something takes, or gives back when it ends."""

    ram: int = 0
    vram: Mapping[str, int] = field(default_factory=dict)
    """By GPU uuid; a GPU that is not named is the empty text."""

    def __add__(self, other: "Need") -> "Need":
        uuids = self.vram.keys() | other.vram.keys()
        vram = {uuid: self.vram.get(uuid, 0) + other.vram.get(uuid, 0) for uuid in uuids}
        return Need(self.ram + other.ram, vram)

    def less(self, other: "Need") -> "Need":
        """What is left of it where `other` is there already, in each memory."""
        vram = {uuid: max(0, size - other.vram.get(uuid, 0)) for uuid, size in self.vram.items()}
        return Need(max(0, self.ram - other.ram), vram)

    def or_more(self, other: "Need") -> "Need":
        """In each memory the larger of both: what has room for either, one at a time."""
        uuids = self.vram.keys() | other.vram.keys()
        vram = {uuid: max(self.vram.get(uuid, 0), other.vram.get(uuid, 0)) for uuid in uuids}
        return Need(max(self.ram, other.ram), vram)


def need(placement: Placement) -> Need:
    """What one placed model takes, as it was predicted."""
    predicted = placement.predicted
    if placement.gpus:
        parts = zip(placement.gpus, predicted.gpus, strict=True)
        return Need(predicted.host, {part.uuid: size for part, size in parts})
    if placement.memory == "vram":
        return Need(predicted.host, {placement.gpu_uuid or "": predicted.total})
    return Need(predicted.total)


def short(wanted: Need, free: FreeMemory) -> Need | None:
    """What is missing in each memory, or None when `wanted` fits. Of a memory whose free bytes are not known,
    all is missing."""
    ram = max(0, wanted.ram - (free.ram or 0))
    vram = {uuid: size - (free.vram.get(uuid) or 0) for uuid, size in wanted.vram.items()}
    vram = {uuid: size for uuid, size in vram.items() if size > 0}
    return Need(ram, vram) if ram or vram else None


def frees(predicted: Need, status: WorkerStatus | None) -> Need:
    """What a worker's end gives back: by measurement, and by prediction where nothing was measured."""
    if status is None:
        return predicted
    ram = predicted.ram if status.ram_bytes is None else status.ram_bytes
    if len(predicted.vram) < 2:
        return Need(ram, {uuid: status.vram_bytes or size for uuid, size in predicted.vram.items()})
    return Need(ram, {uuid: status.gpu_vram.get(uuid) or size for uuid, size in predicted.vram.items()})


def with_returned(free: FreeMemory, returned: Need) -> FreeMemory:
    """What is free once `returned` has been given back. What is not known stays unknown."""
    vram = {
        uuid: None if size is None else size + returned.vram.get(uuid, 0) for uuid, size in free.vram.items()
    }
    return FreeMemory(None if free.ram is None else free.ram + returned.ram, vram, free.each)


def known_short(wanted: Need, free: FreeMemory) -> Need | None:
    """What is certainly missing: `short`, without the memories whose free bytes nobody knows."""
    ram = 0 if free.ram is None else max(0, wanted.ram - free.ram)
    vram = {
        uuid: size - known
        for uuid, size in wanted.vram.items()
        if (known := free.vram.get(uuid)) is not None and size > known
    }
    return Need(ram, vram) if ram or vram else None


def all_returned(expected: FreeMemory, free: FreeMemory) -> bool:
    """Whether as much is free as was expected, in every memory of which that is known."""
    pairs = [(expected.ram, free.ram), *((size, free.vram.get(uuid)) for uuid, size in expected.vram.items())]
    return all(now is not None and now >= size for size, now in pairs if size is not None)
