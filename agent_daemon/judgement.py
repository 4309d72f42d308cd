"""Whether a staged release may be activated: what llama.cpp says that it takes, against what was predicted and against
the memory that is free now. PURE.

A refusal is one sentence with both figures. It changes nothing: the release stays staged.
"""

from collections.abc import Mapping, Sequence

from agent_daemon.activation import needs, resident
from agent_daemon.contract.release import DeviceRelease, Placement, ServedModel, Strategy
from agent_daemon.contract.sizes import format_size
from agent_daemon.room import FreeMemory, Need, known_short, need, with_returned
from agent_daemon.worker_messages import Measured

MIB = 1024 * 1024
SLACK = 16 * MIB
"""Bytes by which a measurement may exceed the prediction in any memory, however small the model."""
SLACK_PART = 50
"""One part in so many of the prediction by which it may, where that is more."""


def by_place(placement: Placement, measured: Measured) -> Need:
    """A measurement as the memory that it is of. Raises ValueError where it names other GPUs than the placement."""
    if placement.gpus:
        uuids = [part.uuid for part in placement.gpus]
    else:
        uuids = [placement.gpu_uuid or ""] if placement.memory == "vram" else []
    parts = zip(uuids, measured.gpus, strict=True)
    return Need(measured.host.total, {uuid: share.total for uuid, share in parts})


def mismatch(model: ServedModel, measured: Need) -> str | None:
    """Why a model takes more than was predicted for it and the margin, in any of its memories; None if it does not.
    A margin of the prediction counts in full in each memory: where it will be needed is not known."""
    predicted = need(model.placement)
    for name, taken, expected in _memories(measured, predicted):
        margin = max(model.placement.predicted.margin, expected // SLACK_PART, SLACK)
        if taken > expected + margin:
            return (
                f"{model.name} takes {format_size(taken)} of {name} by llama.cpp's own account, more than the "
                f"{format_size(expected)} that were predicted and their margin of {format_size(margin)}"
            )
    return None


def _memories(measured: Need, predicted: Need) -> list[tuple[str, int, int]]:
    gpus = [(_gpu(uuid), size, predicted.vram.get(uuid, 0)) for uuid, size in measured.vram.items()]
    return [*gpus, ("RAM", measured.ram, predicted.ram)]


def _gpu(uuid: str) -> str:
    return uuid or "the GPU"


def shortage(
    release: DeviceRelease, sizes: Mapping[str, Need], free: FreeMemory, running: Mapping[str, Need]
) -> str | None:
    """Why a release has no room now, or None. `sizes` are what its workers take, by engine key, and `running` what
    the end of each worker that is in memory gives back. That counts only where they are ended first: under
    `replace`, or where `auto` comes to it. Memory whose free bytes are not known refuses nothing."""
    for model in release.models:
        taken = sizes.get(model.engine_key()) or need(model.placement)
        if free.each is not None and taken.ram > free.each and model.engine_key() not in running:
            return (
                f"{model.name} needs {format_size(taken.ram)} of RAM, and the process limits of the agent "
                f"(RLIMIT_AS, RLIMIT_DATA) leave a worker {format_size(free.each)}"
            )
    wanted, room, returned = needs(release, frozenset(running), sizes), free, Need()
    if known_short(wanted, room) is None:
        return None
    if release.strategy is not Strategy.HANDOVER:
        staying = running.keys() & {model.engine_key() for model in resident(release)}
        returned = sum((size for key, size in running.items() if key not in staying), Need())
        wanted, room = needs(release, frozenset(staying), sizes), with_returned(free, returned)
    missing = known_short(wanted, room)
    if missing is None:
        return None
    short = [("RAM", wanted.ram, free.ram or 0, returned.ram)] * bool(missing.ram)
    short += [
        (_gpu(uuid), wanted.vram[uuid], free.vram[uuid] or 0, returned.vram.get(uuid, 0))
        for uuid in sorted(missing.vram)
    ]
    return f"{release.label} needs {_sum_in_words(short)}"


def _sum_in_words(short: Sequence[tuple[str, int, int, int]]) -> str:
    parts = []
    for name, wanted, free, returned in short:
        text = f"{format_size(wanted)} of {name}, and {format_size(max(0, free))} are free now"
        if returned:
            text += f", {format_size(max(0, free + returned))} without what it replaces"
        parts.append(text)
    return "; and ".join(parts)
