"""What follows for one worker from the models that share it. PURE."""

from collections.abc import Mapping, Sequence

from agent_daemon.contract.release import Placement, Residency, ServedModel


def placed_vram(placement: Placement, held: Mapping[str, int] | None) -> int | None:
    """What a worker holds of the GPUs that it was placed on; None unless that is known of each."""
    if held is None:
        return None
    uuids = [part.uuid for part in placement.gpus]
    if not uuids:
        return sum(held.values())
    return sum(held[uuid] for uuid in uuids) if all(uuid in held for uuid in uuids) else None


def together(sharers: Sequence[ServedModel]) -> Residency:
    """What a worker has to be so that every model that shares it has what it asks for."""
    idle = [model.residency.idle_ttl for model in sharers]
    longest = [each for each in idle if each is not None]
    return Residency(
        pinned=any(model.residency.pinned for model in sharers),
        on_demand=all(model.residency.on_demand for model in sharers),
        idle_ttl=max(longest) if len(longest) == len(idle) else None,
    )
