"""Whether what a release lacks on a device fits on that device's disk. PURE."""

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.sizes import format_size
from agent_daemon.contract.wire import DeviceState


def lacking(release: DeviceRelease, state: DeviceState) -> int:
    """Bytes of a release that a device does not hold yet, in whole or in part."""
    held = frozenset(state.blobs)
    return sum(
        max(blob.size - state.arrived.get(blob.digest, 0), 0)
        for blob in release.blobs()
        if blob.digest not in held
    )


def shortage(device: str, release: DeviceRelease, state: DeviceState, *, prune: bool) -> str | None:
    """Why what is lacking does not fit, with the arithmetic and what to do; None where it does, or where the device does
    not tell. With `prune` what it keeps for nothing counts as room."""
    disk, needed = state.disk, lacking(release, state)
    if disk is None or needed <= disk.usable:
        return None
    kept, spare = frozenset(state.blobs), frozenset(disk.spare)
    # What the release itself is made of stays, whatever it was kept for.
    reused = sum(
        blob.size if blob.digest in kept else state.arrived.get(blob.digest, 0)
        for blob in release.blobs()
        if blob.digest in spare
    )
    freed = max(disk.prunable + disk.superseded - reused, 0)
    if prune and needed <= disk.usable + freed:
        return None
    missing = needed - disk.usable
    if missing <= disk.prunable - reused:
        todo = f"make room: edgectl prune {device}, or prune: true under rollout in the manifest"
    elif missing <= freed:
        todo = "let the deploy make room: prune: true under rollout in the manifest"
    else:
        todo = f"free {format_size(missing - freed)} more on it: pruning alone is not enough"
    return (
        f"its disk is too small by {format_size(missing)}: it needs {format_size(needed)} more, and of the"
        f" {format_size(disk.free)} that are free at {disk.path} {format_size(disk.reserve)} stay free; a prune would free"
        f" {format_size(freed)}; {todo}"
    )
