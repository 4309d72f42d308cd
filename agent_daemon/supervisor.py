"""All workers of this device, and the only owner of their state: start, watch, restart, drain, stop.

A worker is known by its engine key (`ServedModel.engine_key`): models that need the same weights and settings
share it, across releases too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from agent_daemon import telemetry
from agent_daemon.contract.release import ServedModel
from agent_daemon.contract.wire import WorkerEvent, WorkerState, WorkerStatus
from agent_daemon.errors import WorkerFailure
from agent_daemon.worker_messages import Ready
from agent_daemon.worker_process import WorkerProcess

Spawn = Callable[[ServedModel], Awaitable[WorkerProcess]]
Report = Callable[[WorkerEvent], None]

FIRST_DELAY, LONGEST_DELAY, STEADY_AFTER = 0.5, 30.0, 60.0
"""Seconds: the wait before the first restart, which doubles up to the longest and starts over after a
worker has run steadily."""


@dataclass
class _Seat:
    """One worker's place: its processes come and go, the seat stays until it is given up."""

    model: ServedModel
    names: tuple[str, ...]
    restart: bool
    state: WorkerState = WorkerState.STARTING
    process: WorkerProcess | None = None
    ready: Ready | None = None
    base: tuple[int, int] = (0, 0)
    restarts: int = 0
    error: str | None = None
    tokens_per_second: float | None = None
    active: int = 0
    task: asyncio.Task[None] | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class Supervisor:
    """Starts processes with `spawn` and tells `report` what happens to them."""

    def __init__(self, spawn: Spawn, report: Report) -> None:
        self._spawn = spawn
        self._report = report
        self._seats: dict[str, _Seat] = {}

    def keys(self) -> frozenset[str]:
        """Engine keys of all workers that exist in whatever state."""
        return frozenset(self._seats)

    def start(self, models: Iterable[ServedModel], *, restart: bool) -> None:
        """Gives every model a worker, keeping those that exist. With `restart` false a worker that ends stays
        down: that is what a probe wants to see."""
        names: dict[str, list[str]] = {}
        wanted: dict[str, ServedModel] = {}
        for model in models:
            names.setdefault(model.engine_key(), []).append(model.name)
            wanted[model.engine_key()] = model
        for key, model in wanted.items():
            seat = self._seats.get(key)
            if seat is None or (seat.task is not None and seat.task.done()):
                seat = _Seat(model=model, names=tuple(names[key]), restart=restart)
                self._seats[key] = seat
                seat.task = asyncio.create_task(self._keep(seat))
            else:
                seat.names = tuple(names[key])
                seat.restart = seat.restart or restart

    async def wait_ready(self, key: str) -> WorkerProcess:
        """The worker's process once it can serve. Raises WorkerFailure when it ended instead of becoming ready
        and is not started again."""
        seat = self._seat(key)
        async with seat.changed:
            await seat.changed.wait_for(lambda: seat.state in (WorkerState.READY, WorkerState.STOPPED))
            if seat.state is WorkerState.READY and seat.process is not None:
                return seat.process
            raise WorkerFailure(seat.error or "the worker was stopped")

    def process(self, key: str) -> WorkerProcess | None:
        """The process if it can serve at this moment."""
        seat = self._seats.get(key)
        return seat.process if seat and seat.state is WorkerState.READY else None

    def begin_request(self, key: str) -> None:
        """Counts a request as running on this worker, so that a drain waits for it."""
        self._seat(key).active += 1

    async def end_request(self, key: str, tokens_per_second: float | None) -> None:
        """The other half of `begin_request`; may be called after the worker is gone."""
        if seat := self._seats.get(key):
            seat.active -= 1
            if tokens_per_second is not None:
                seat.tokens_per_second = tokens_per_second
            async with seat.changed:
                seat.changed.notify_all()

    async def stop(self, keys: Iterable[str], *, drain: float) -> None:
        """Ends workers, each after its running requests, waiting at most `drain` seconds for them."""
        await asyncio.gather(*(self._stop(key, drain) for key in list(keys) if key in self._seats))

    async def _stop(self, key: str, drain: float) -> None:
        seat = self._seats[key]
        seat.restart = False
        async with seat.changed:
            serving = seat.state is WorkerState.READY
            # Whatever it was doing: an end that was asked for is no crash.
            seat.state = WorkerState.DRAINING
            if serving:
                try:
                    await asyncio.wait_for(seat.changed.wait_for(lambda: seat.active <= 0), drain)
                except TimeoutError:
                    seat.error = f"{seat.active} requests were still running after {drain:g} s"
        if seat.process is not None:
            await seat.process.stop()
        if seat.task is not None:
            seat.task.cancel()
            await asyncio.gather(seat.task, return_exceptions=True)
        async with seat.changed:
            seat.state = WorkerState.STOPPED
            seat.changed.notify_all()
        if self._seats.get(key) is seat:
            del self._seats[key]
        self._tell(seat, "stopped", None)

    async def close(self) -> None:
        """Ends everything, now."""
        await self.stop(self.keys(), drain=0)

    def status(self) -> tuple[WorkerStatus, ...]:
        """Every worker as it is now, with memory measured at this moment."""
        return tuple(self._status(key, seat) for key, seat in self._seats.items())

    def _status(self, key: str, seat: _Seat) -> WorkerStatus:
        pid = seat.process.pid if seat.process and not seat.process.ended.is_set() else None
        placement = seat.model.placement
        ram = private = vram = None
        if pid is not None and seat.ready is not None and (measured := telemetry.process_memory(pid)):
            ram = max(0, measured.rss - seat.base[0])
            private = None if measured.private is None else max(0, measured.private - seat.base[1])
            vram = telemetry.process_vram(pid) if placement.memory == "vram" else None
        return WorkerStatus(
            models=seat.names,
            engine_key=key,
            state=seat.state,
            pid=pid,
            restarts=seat.restarts,
            memory=placement.memory,
            gpu_uuid=placement.gpu_uuid,
            gpu_layers=placement.gpu_layers,
            offloaded_layers=seat.ready.offloaded_layers if seat.ready else None,
            simulated_offload=seat.ready.simulated_offload if seat.ready else False,
            predicted_bytes=placement.predicted.total,
            ram_bytes=ram,
            ram_private_bytes=private,
            vram_bytes=vram,
            tokens_per_second=seat.tokens_per_second,
            active_requests=seat.active,
            error=seat.error,
        )

    def _seat(self, key: str) -> _Seat:
        seat = self._seats.get(key)
        if seat is None:
            raise WorkerFailure("there is no such worker")
        return seat

    async def _keep(self, seat: _Seat) -> None:
        delay = FIRST_DELAY
        while True:
            self._tell(seat, "started", None)
            began = time.monotonic()
            await self._run_once(seat)
            if not seat.restart:
                await self._set(seat, WorkerState.STOPPED)
                return
            if time.monotonic() - began > STEADY_AFTER:
                delay = FIRST_DELAY
            seat.restarts += 1
            await self._set(seat, WorkerState.BACKOFF)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            await self._set(seat, WorkerState.STARTING)

    async def _run_once(self, seat: _Seat) -> None:
        """One process from start to end, whatever the reason of its end."""
        try:
            process = seat.process = await self._spawn(seat.model)
            ready = await process.ready()
            if measured := telemetry.process_memory(process.pid):
                private = measured.private or ready.ram_private_bytes
                seat.base = (measured.rss - ready.ram_bytes, private - ready.ram_private_bytes)
            seat.ready, seat.error = ready, None
            await self._set(seat, WorkerState.READY)
            self._tell(seat, "ready", f"{ready.offloaded_layers} layers offloaded")
            await process.ended.wait()
            seat.error = process.end_reason
        except (WorkerFailure, OSError) as error:
            seat.error = str(error)
        seat.ready = None
        if seat.state is not WorkerState.DRAINING:
            self._tell(seat, "crashed", seat.error)

    async def _set(self, seat: _Seat, state: WorkerState) -> None:
        async with seat.changed:
            seat.state = state
            seat.changed.notify_all()

    def _tell(self, seat: _Seat, what: str, detail: str | None) -> None:
        for name in seat.names:
            self._report(WorkerEvent.model_validate({"model": name, "what": what, "detail": detail}))
