"""What keeps this device from serving, each with its remedy."""

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from agent_daemon.contract.wire import Check, GpuFacts, RuntimeFacts
from agent_daemon.gpus import detect_gpus
from agent_daemon.runtime_probe import probe_runtime
from agent_daemon.settings import Settings

_SPACE = 2 * 1024**3
"""Free bytes below which a device can hardly take a model."""


async def examine(settings: Settings) -> tuple[Check, ...]:
    """All checks, in the order in which to mend them. Changes nothing."""
    runtime = await probe_runtime()
    gpus, problem = detect_gpus()
    return (
        check_state_dir(settings.state_dir),
        check_space(settings.state_dir),
        check_runtime(runtime),
        check_gpus(gpus, problem, runtime),
        check_agent(settings.socket),
    )


def check_state_dir(path: Path) -> Check:
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Check(name="state directory", ok=True, finding=str(path))
    return Check(
        name="state directory",
        ok=False,
        finding=f"{nearest} cannot be written by this user",
        remedy="name another one with --state-dir, or change its owner",
    )


def check_space(path: Path) -> Check:
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    finding = f"{free / 2**30:.1f} GiB free at {nearest}"
    if free >= _SPACE:
        return Check(name="disk space", ok=True, finding=finding)
    return Check(
        name="disk space", ok=False, finding=finding, remedy="free some, models take 0.1 to 10 GiB each"
    )


def check_runtime(runtime: RuntimeFacts) -> Check:
    if runtime.error:
        return Check(
            name="runtime",
            ok=False,
            finding=runtime.error,
            remedy="install llama-cpp-python for this CPU and Python (make setup builds it)",
        )
    finding = f"llama-cpp-python {runtime.version}, backends: {', '.join(runtime.backends)}"
    if runtime.simulated_offload:
        return Check(name="runtime", ok=None, finding=f"{finding}; offload is SIMULATED by the test switch")
    return Check(name="runtime", ok=True, finding=finding)


def check_gpus(gpus: Sequence[GpuFacts], problem: str | None, runtime: RuntimeFacts) -> Check:
    if problem:
        return Check(
            name="GPUs",
            ok=False,
            finding=problem,
            remedy="check the driver (nvidia-smi, dmesg); the CPU is used meanwhile",
        )
    if not gpus:
        return Check(name="GPUs", ok=None, finding="none found; models are placed in RAM")
    names = ", ".join(gpu.name or f"GPU {gpu.index}" for gpu in gpus)
    if runtime.offloads:
        return Check(name="GPUs", ok=True, finding=names)
    return Check(
        name="GPUs",
        ok=False,
        finding=f"{names}: not used, because this llama-cpp-python was built for {', '.join(runtime.backends) or 'nothing'}",
        remedy="install a llama-cpp-python built for this GPU (CUDA, ROCm or Vulkan)",
    )


def check_agent(path: Path) -> Check:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            return Check(
                name="agent",
                ok=None,
                finding=f"not running here ({path}: {os.strerror(error.errno or 0).lower()})",
                remedy="start it with: edgectl-agent run --state-dir DIR",
            )
    return Check(name="agent", ok=True, finding=f"answers at {path}")
