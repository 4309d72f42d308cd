"""PURE: the columns that the views need, taken out of a message once, when it is stored."""

import json
from collections.abc import Iterable
from typing import Any

from agent_daemon.contract.wire import Facts, Heartbeat, WorkerState, WorkerStatus

_LEAVING = (WorkerState.DRAINING, WorkerState.STOPPED)


def facts_columns(facts: Facts) -> dict[str, Any]:
    """Columns of `device_facts`."""
    return {
        "facts": facts.model_dump_json(),
        "hostname": facts.hostname,
        "os": facts.os,
        "cpu_model": facts.cpu_model,
        "cpu_threads": facts.cpu_threads,
        "ram_total": facts.ram_total,
        "ram_available": facts.ram_available,
        "vram_total": total(gpu.vram_total for gpu in facts.gpus),
        "vram_free": total(gpu.vram_free for gpu in facts.gpus),
        "gpus": ", ".join(gpu.name or f"{gpu.vendor} GPU" for gpu in facts.gpus) or None,
        "gpu_note": gpu_note(facts),
        "backends": ",".join(facts.runtime.backends) or None,
        "agent_version": facts.agent_version,
        "agent_build": facts.agent_build,
        "gateway_url": facts.gateway_url,
        "simulated_offload": facts.runtime.simulated_offload,
    }


def gpu_note(facts: Facts) -> str | None:
    """Why a GPU that is there does not count, in one sentence; None when all is well or there is none."""
    if facts.gpus and not facts.runtime.offloads and not facts.runtime.simulated_offload:
        built = ", ".join(facts.runtime.backends) or "none"
        return f"the runtime cannot use the GPU (it was built with: {built}); models go to RAM"
    return facts.gpu_error


def heartbeat_columns(heartbeat: Heartbeat) -> dict[str, Any]:
    """Columns of `device_heartbeat`. Workers that are on their way out do not count, and those that a request
    would load count as served only: they are not missing from memory."""
    staying = [worker for worker in heartbeat.workers if worker.state not in _LEAVING]
    needed = [worker for worker in staying if not _at_rest(worker)]
    names = [name for worker in staying for name in worker.models]
    speeds = [worker.tokens_per_second for worker in staying if worker.tokens_per_second is not None]
    return {
        "uptime": heartbeat.uptime,
        "active_number": heartbeat.active_number,
        "active_digest": heartbeat.active,
        "state": heartbeat.state.value if heartbeat.state else None,
        "models": ", ".join(names) or None,
        "memory": ", ".join(sorted({worker.memory for worker in staying})) or None,
        "workers": json.dumps([worker.model_dump(mode="json") for worker in heartbeat.workers]),
        "workers_total": len(needed),
        "workers_ready": sum(worker.state is WorkerState.READY for worker in needed),
        "predicted_bytes": total(worker.predicted_bytes for worker in needed),
        "measured_bytes": total(measured(worker) for worker in needed),
        "ram_available": heartbeat.ram_available,
        "tokens_per_second": max(speeds, default=None),
        "simulated_offload": any(worker.simulated_offload for worker in staying),
        "problem": next((worker.error for worker in staying if worker.error), None),
        "reports_dropped": heartbeat.spool_dropped,
        "drift": "; ".join(each.sentence for each in heartbeat.drift) or None,
    }


def _at_rest(worker: WorkerStatus) -> bool:
    """Whether a worker is not in memory because nobody asks for it, or only just has. One that failed is not: it
    should be seen."""
    if worker.error is not None:
        return False
    loading = worker.on_demand and worker.state is WorkerState.STARTING
    return loading or worker.state is WorkerState.UNLOADED


def measured(worker: WorkerStatus) -> int | None:
    """Bytes that a worker really takes of the memory it was placed in; under the test switch that is RAM."""
    if worker.memory == "vram" and not worker.simulated_offload:
        return worker.vram_bytes
    return worker.ram_bytes


def total(sizes: Iterable[int | None]) -> int | None:
    """The sum, or None when there is nothing or any part is unknown: half a sum would pass for the whole."""
    known = list(sizes)
    return sum(size for size in known if size is not None) if known and None not in known else None
