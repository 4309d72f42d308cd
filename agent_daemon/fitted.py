"""What a loaded model takes, beside what was expected of it: the record from which margins are learned. PURE."""

from agent_daemon.contract.fit_margin import device_class
from agent_daemon.contract.release import ServedModel
from agent_daemon.contract.wire import Facts, Fitted, WorkerStatus
from agent_daemon.room import Need


def fitted(
    model: ServedModel, status: WorkerStatus, planned: Need | None, seconds: float, facts: Facts
) -> Fitted | None:
    """The record of one load, from the worker's `status` after its first answer; `planned` is the measurement from
    before the load. None where nothing can be learned: offload was simulated, or the GPU has no name."""
    placement = model.placement
    on_gpu = placement.memory == "vram"
    name = next((gpu.name for gpu in facts.gpus if gpu.uuid == placement.gpu_uuid), None) if on_gpu else None
    if status.simulated_offload or (on_gpu and name is None):
        return None
    expected = None
    if planned is not None:
        expected = sum(planned.vram.values()) if on_gpu else planned.ram
    return Fitted(
        model=model.name,
        engine_key=status.engine_key,
        memory=placement.memory,
        device_class=device_class(gpu=name, backends=facts.runtime.backends, arch=facts.arch),
        context=placement.context,
        parallel=placement.parallel,
        kv_type=placement.kv_type,
        gpu_layers=placement.gpu_layers,
        gpus=max(1, len(placement.gpus)),
        predicted=placement.predicted.total,
        planned=expected,
        measured=status.vram_bytes if on_gpu else _in_ram(status),
        loaded_in=seconds,
    )


def _in_ram(status: WorkerStatus) -> int | None:
    """Without the pages that the kernel may drop because what is in them was laid out anew elsewhere."""
    return None if status.ram_bytes is None else max(0, status.ram_bytes - status.ram_repacked_bytes)
