"""How a served model of this device's store becomes a worker, or a measurement of one: the same message for both."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import psutil

from agent_daemon.contract.release import Placement, ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.judgement import by_place
from agent_daemon.preflight import Unmeasurable
from agent_daemon.room import Need
from agent_daemon.store import Store
from agent_daemon.worker_messages import AdapterFile, Failed, Load, Unmeasured, parse_measurement
from agent_daemon.worker_process import WorkerProcess

_MEASURE_SECONDS = 60.0
"""Longest time that a measurement may take: opening a file of a slow disk, and no process that hangs."""


class Loader:
    """`logs` is the folder that workers' logs go to."""

    def __init__(self, store: Store, logs: Path) -> None:
        self._store = store
        self._logs = logs

    async def spawn(self, model: ServedModel) -> WorkerProcess:
        """Starts the worker of a model. Raises WorkerFailure, OSError."""
        load = await asyncio.to_thread(self._load, model)
        log = self._logs / f"worker-{model.engine_key().removeprefix('sha256:')[:12]}.log"
        return await WorkerProcess.spawn(load, log, _environment(model.placement))

    async def measure(self, model: ServedModel) -> Need:
        """What the worker of a model would take, by a process that allocates nothing of it. Raises Unmeasurable, and
        WorkerFailure with llama.cpp's reason where it refuses the file or the settings."""
        load = await asyncio.to_thread(self._load, model)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent_daemon.worker", "--measure"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, **_environment(model.placement)},
            )
        except OSError as error:
            raise Unmeasurable(f"no process for it could be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(_MEASURE_SECONDS):
                printed, _ = await process.communicate(load.model_dump_json().encode())
        except TimeoutError:
            raise Unmeasurable(f"llama.cpp did not answer within {_MEASURE_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return _understood(model, printed.decode(errors="replace"), process.returncode)

    def _load(self, model: ServedModel) -> Load:
        placement = model.placement
        return Load(
            path=str(self._store.model_path(model.artifact)),
            task=model.task,
            context=placement.context,
            parallel=placement.parallel,
            cells=placement.cells,
            kv_type=placement.kv_type,
            gpu_layers=placement.gpu_layers,
            split=tuple(part.layers for part in placement.gpus),
            threads=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
            adapters=tuple(
                AdapterFile(name=each.name, path=str(self._store.model_path(each.artifact)), scale=each.scale)
                for each in model.adapters
            ),
        )


def _environment(placement: Placement) -> dict[str, str]:
    """Which GPUs a process sees. Uuids, not indexes: the numbering of GPUs differs between NVML and CUDA. Their
    order is that in which the process counts them."""
    uuids = (part.uuid for part in placement.gpus) if placement.gpus else (placement.gpu_uuid,)
    named = [uuid for uuid in uuids if uuid]
    return {"CUDA_VISIBLE_DEVICES": ",".join(named)} if named else {}


def _understood(model: ServedModel, printed: str, status: int | None) -> Need:
    lines = printed.strip().splitlines()
    if status or not lines:
        raise Unmeasurable(f"the process that measures ended with status {status}")
    try:
        answer = parse_measurement(lines[-1])
        if isinstance(answer, Unmeasured):
            raise Unmeasurable(answer.message)
        if isinstance(answer, Failed):
            raise WorkerFailure(answer.message)
        return by_place(model.placement, answer)
    except ValueError:
        raise Unmeasurable("the process that measures gave an answer that makes no sense") from None
