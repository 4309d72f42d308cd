"""How a served model of this device's store becomes a worker, or a measurement of one: the same message for both."""

import asyncio
from pathlib import Path

from agent_daemon.contract.release import Placement, ServedModel
from agent_daemon.cores import usable_cores
from agent_daemon.errors import BlobsMissing, WorkerFailure
from agent_daemon.judgement import by_place
from agent_daemon.measured import Measurements
from agent_daemon.preflight import Unmeasurable
from agent_daemon.room import Need
from agent_daemon.store import Store
from agent_daemon.telemetry import process_memory
from agent_daemon.worker_messages import AdapterFile, Failed, Load, Measurement, Unmeasured
from agent_daemon.worker_process import WorkerProcess

_MEASURE_SECONDS = 60.0
"""Longest time that a measurement may take: opening a file of a slow disk, and no process that hangs."""
_WAIT_SECONDS = 60.0
"""How long a process that has measured a model waits to load it."""


class Loader:
    """`logs` is the folder that workers' logs go to. A process that has measured a model in RAM waits a while to become
    its worker: starting one takes longer than loading a small model."""

    def __init__(self, store: Store, logs: Path, measurements: Measurements | None = None) -> None:
        """`measurements` are kept from one activation to the next; without them everything is measured anew."""
        self._store = store
        self._logs = logs
        self._measurements = measurements
        self._waiting: dict[str, WorkerProcess] = {}
        self._ending: asyncio.Task[None] | None = None

    async def spawn(self, model: ServedModel) -> WorkerProcess:
        """Starts the worker of a model. Raises WorkerFailure, OSError."""
        load = await asyncio.to_thread(self._load, model)
        process = self._waiting.pop(model.engine_key(), None)
        if process is None or process.ended.is_set():
            process = await self._start(model)
        process.load(load)
        return process

    def waiting(self) -> int:
        """Bytes of RAM that processes hold which have no model yet: they become workers, or end soon."""
        held = (process_memory(process.pid) for process in tuple(self._waiting.values()))
        return sum(each.private or 0 for each in held if each is not None)

    async def close(self) -> None:
        """Ends the processes that wait."""
        waiting, self._waiting = self._waiting, {}
        for process in waiting.values():
            await process.stop(grace=1.0)

    async def measure(self, model: ServedModel) -> Need:
        """What the worker of a model would take, by a process that allocates nothing of it. Raises Unmeasurable, and
        WorkerFailure with llama.cpp's reason where it refuses the file or the settings."""
        load = await asyncio.to_thread(self._load, model)
        key = model.engine_key()
        if self._measurements is not None and (known := self._measurements.known(key)) is not None:
            return known
        try:
            process = await self._start(model)
        except OSError as error:
            raise Unmeasurable(f"no process for it could be started: {error.strerror}") from None
        kept = False
        try:
            answer = await _answer(process, load)
            kept = not isinstance(answer, Failed) and self._keep(model, process)
            need = understood(model, answer)
            if self._measurements is not None:
                self._measurements.keep(key, need)
            return need
        finally:
            if not kept:
                await process.stop(grace=1.0)

    def _keep(self, model: ServedModel, process: WorkerProcess) -> bool:
        """On a GPU it would hold memory that is about to be judged; what is loaded on demand may be long in coming."""
        if model.placement.gpu_layers or model.residency.on_demand:
            return False
        key = model.engine_key()
        if key in self._waiting:
            return False
        self._waiting[key] = process
        asyncio.get_running_loop().call_later(_WAIT_SECONDS, self._give_up, key, process)
        return True

    def _give_up(self, key: str, process: WorkerProcess) -> None:
        if self._waiting.get(key) is process:
            del self._waiting[key]
            self._ending = asyncio.get_running_loop().create_task(process.stop(grace=1.0))

    async def _start(self, model: ServedModel) -> WorkerProcess:
        log = self._logs / f"worker-{model.engine_key().removeprefix('sha256:')[:12]}.log"
        return await WorkerProcess.spawn(None, log, _environment(model.placement))

    def _load(self, model: ServedModel) -> Load:
        try:
            return self._message(model)
        except BlobsMissing as error:
            raise WorkerFailure(error.message) from None

    def _message(self, model: ServedModel) -> Load:
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
            threads=usable_cores(),
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


async def _answer(process: WorkerProcess, load: Load) -> Measurement:
    try:
        async with asyncio.timeout(_MEASURE_SECONDS):
            return await process.measure(load)
    except TimeoutError:
        raise Unmeasurable(f"llama.cpp did not answer within {_MEASURE_SECONDS:g} s") from None
    except WorkerFailure as error:
        raise Unmeasurable(f"the process that measures a model has no answer: {error}") from None


def understood(model: ServedModel, answer: Measurement) -> Need:
    """A measurement's answer. Raises Unmeasurable, and WorkerFailure where llama.cpp refuses the model."""
    if isinstance(answer, Unmeasured):
        raise Unmeasurable(answer.message)
    if isinstance(answer, Failed):
        raise WorkerFailure(answer.message)
    try:
        return by_place(model.placement, answer)
    except ValueError:
        raise Unmeasurable("the process that measures gave an answer that makes no sense") from None
