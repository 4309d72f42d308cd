"""All workers of this device, and the only owner of their state: start, watch, restart, drain, unload, stop.

A worker is known by its engine key (`ServedModel.engine_key`): models that need the same weights and settings
share it, across releases too. Which of them are in memory is decided elsewhere (`residency.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from agent_daemon import telemetry
from agent_daemon.changes import Changes
from agent_daemon.contract.release import Placement, Residency, ServedModel
from agent_daemon.contract.wire import WorkerEvent, WorkerState, WorkerStatus
from agent_daemon.errors import WorkerFailure
from agent_daemon.shared_worker import placed_vram, together
from agent_daemon.worker_messages import Ready
from agent_daemon.worker_process import WorkerProcess

Spawn = Callable[[ServedModel], Awaitable[WorkerProcess]]
Report = Callable[[WorkerEvent], None]
Fitted = Callable[[ServedModel, WorkerStatus, float], Awaitable[None]]
"""Told once for each load, when the worker has answered for the first time: its model, how it is then, memory included,
and the seconds that loading took."""

FIRST_DELAY, LONGEST_DELAY, STEADY_AFTER = 0.5, 30.0, 60.0
"""Seconds: the wait before the first restart, which doubles up to the longest and starts over after a
worker has run steadily."""


@dataclass
class _Seat:
    """One worker's place: its processes come and go, the seat stays until it is given up."""

    model: ServedModel
    names: tuple[str, ...]
    residency: Residency
    restart: bool
    state: WorkerState = WorkerState.UNLOADED
    process: WorkerProcess | None = None
    ready: Ready | None = None
    base: tuple[int, int] = (0, 0)
    restarts: int = 0
    error: str | None = None
    tokens_per_second: float | None = None
    active: int = 0
    used: float = 0.0
    task: asyncio.Task[None] | None = None
    ending: bool = False
    """Whether its process is being ended for good."""


@dataclass(frozen=True)
class Occupancy:
    """One worker's place and how it is used: `used` is when its last request began or ended, or when it became
    ready, in seconds of `time.monotonic`."""

    key: str
    names: tuple[str, ...]
    placement: Placement
    residency: Residency
    state: WorkerState
    active: int
    used: float

    @property
    def coming(self) -> bool:
        """Whether it is about to take memory that it does not hold yet."""
        return self.state in (WorkerState.STARTING, WorkerState.BACKOFF)


_OUT = (WorkerState.UNLOADED, WorkerState.STOPPED)


async def _untold(_model: ServedModel, _status: WorkerStatus, _seconds: float) -> None:
    """Nobody wants to know what loads take."""


class Supervisor:
    """Starts processes with `spawn`, tells `report` what happens to them and `fitted` what they take."""

    def __init__(self, spawn: Spawn, report: Report, fitted: Fitted = _untold) -> None:
        self._spawn = spawn
        self._report = report
        self._fitted = fitted
        self._seats: dict[str, _Seat] = {}
        self.changes = Changes()
        """Told whenever a worker changes its state, and whenever a request ends."""

    def keys(self) -> frozenset[str]:
        """Engine keys of all workers that are known, in memory or not."""
        return frozenset(self._seats)

    def running(self) -> frozenset[str]:
        """Engine keys of those that are in memory, or on their way into it or out of it."""
        return frozenset(key for key, seat in self._seats.items() if seat.state not in _OUT)

    def start(self, models: Iterable[ServedModel], *, restart: bool) -> None:
        """Gives every model a place, and those that are not on demand a worker, keeping what exists. With
        `restart` false a worker that ends stays down: that is what a probe wants to see."""
        sharing: dict[str, list[ServedModel]] = {}
        for model in models:
            sharing.setdefault(model.engine_key(), []).append(model)
        for key, sharers in sharing.items():
            names, residency = tuple(model.name for model in sharers), together(sharers)
            seat = self._seats.get(key)
            if seat is None or seat.state is WorkerState.STOPPED or seat.ending:
                self._seats[key] = _Seat(sharers[-1], names, residency, restart)
                if not residency.on_demand:
                    self.load(key)
            else:
                seat.model, seat.names, seat.residency = sharers[-1], names, residency
                seat.restart = seat.restart or restart
                if seat.state is WorkerState.DRAINING and seat.ready is not None:
                    # It was to go when its answers are finished, and is wanted again before.
                    self._set(seat, WorkerState.READY)

    def load(self, key: str) -> None:
        """Begins to load a worker that is not in memory; `settled` waits for what comes of it. Raises
        WorkerFailure when there is no such worker."""
        seat = self._seat(key)
        if seat.state is WorkerState.UNLOADED:
            seat.error = None
            self._set(seat, WorkerState.STARTING)
            seat.task = asyncio.create_task(self._keep(seat))

    async def settled(self, key: str) -> WorkerState:
        """Waits until a worker is ready, or neither in memory nor on its way there or out, and says which.
        Raises WorkerFailure when there is no such worker."""
        seat = self._seat(key)
        await self.changes.until(lambda: seat.state is WorkerState.READY or seat.state in _OUT)
        return seat.state

    async def wait_ready(self, key: str) -> WorkerProcess:
        """The worker's process once it can serve. Raises WorkerFailure when it ended instead of becoming ready
        and is not started again, and when nobody has asked for it to be loaded."""
        seat = self._seat(key)
        if await self.settled(key) is WorkerState.READY and seat.process is not None:
            return seat.process
        raise WorkerFailure(seat.error or f"the worker was {seat.state}")

    async def loaded(self, key: str) -> None:
        """Waits until a load has come to its end: the worker is ready, or waits for its next restart. Raises
        WorkerFailure when it ended and is not started again."""
        seat = self._seat(key)
        await self.changes.until(lambda: seat.state is not WorkerState.STARTING)
        if seat.state in _OUT:
            raise WorkerFailure(seat.error or f"the worker was {seat.state}")

    def process(self, key: str) -> WorkerProcess | None:
        """The process if it can serve at this moment."""
        seat = self._seats.get(key)
        return seat.process if seat and seat.state is WorkerState.READY else None

    def available(self, key: str) -> bool:
        """Whether a worker can serve, or could as soon as somebody asks for it to be loaded."""
        seat = self._seats.get(key)
        return seat is not None and seat.state in (WorkerState.READY, WorkerState.UNLOADED)

    def begin_request(self, key: str) -> None:
        """Counts a request as running on this worker, so that nobody ends it before the request has."""
        seat = self._seat(key)
        seat.active += 1
        seat.used = time.monotonic()

    def end_request(self, key: str, tokens_per_second: float | None) -> None:
        """The other half of `begin_request`; may be called after the worker is gone."""
        if seat := self._seats.get(key):
            seat.active = max(0, seat.active - 1)
            seat.used = time.monotonic()
            if tokens_per_second is not None:
                seat.tokens_per_second = tokens_per_second
            self.changes.tell()

    async def unload(self, key: str, why: str) -> bool:
        """Takes a worker out of memory and keeps its place, if it is ready and idle at this moment; else does
        nothing and returns False. Returns once its process is gone."""
        seat = self._seats.get(key)
        if seat is None or seat.state is not WorkerState.READY or seat.active > 0:
            return False
        self._set(seat, WorkerState.DRAINING)
        await self._end(seat)
        self._set(seat, WorkerState.UNLOADED)
        self._tell(seat, "stopped", f"unloaded: {why}")
        return True

    async def abandon(self, key: str) -> None:
        """Ends a worker that does not get ready, and keeps its place."""
        if (seat := self._seats.get(key)) and seat.state in (WorkerState.STARTING, WorkerState.BACKOFF):
            self._set(seat, WorkerState.DRAINING)
            await self._end(seat)
            self._set(seat, WorkerState.UNLOADED)

    async def retire(self, key: str, *, drain: float) -> None:
        """Takes a worker out of memory after its running requests, waiting at most `drain` seconds for them, and keeps
        its place: who asks for it meanwhile waits until it is loaded again."""
        seat = self._seats.get(key)
        if seat is None or seat.state is not WorkerState.READY:
            return
        self._set(seat, WorkerState.DRAINING)
        if await self._drained(seat, drain):
            await self._end(seat)
            self._set(seat, WorkerState.UNLOADED)
            self._tell(seat, "stopped", "its file was replaced")

    async def stop(self, keys: Iterable[str], *, drain: float) -> None:
        """Ends workers, each after its running requests, waiting at most `drain` seconds for them. One that is wanted
        again meanwhile (`start`) stays."""
        await asyncio.gather(*(self._stop(key, drain) for key in list(keys) if key in self._seats))

    async def _stop(self, key: str, drain: float) -> None:
        seat = self._seats[key]
        if seat.ending and await self._ended(seat):
            return
        seat.restart = False
        before = seat.state
        # Whatever it was doing: an end that was asked for is no crash.
        self._set(seat, WorkerState.DRAINING)
        if not await self._drained(seat, drain) and (not seat.ending or await self._ended(seat)):
            return
        seat.ending = True
        try:
            await self._end(seat)
        finally:
            # Also where this is cancelled: then the next one ends it.
            seat.ending = False
            self.changes.tell()
        self._set(seat, WorkerState.STOPPED)
        if self._seats.get(key) is seat:
            del self._seats[key]
        if before is not WorkerState.UNLOADED:
            self._tell(seat, "stopped", None)

    async def _ended(self, seat: _Seat) -> bool:
        """Waits for somebody else who is ending a worker; whether it is gone then."""
        await self.changes.until(lambda: not seat.ending)
        return seat.process is None

    async def _drained(self, seat: _Seat, seconds: float) -> bool:
        """True once a draining worker has no request, or has had its time; false if it is wanted again or ended already."""
        if seat.active <= 0:
            return True
        try:
            await asyncio.wait_for(
                self.changes.until(lambda: seat.active <= 0 or seat.state is not WorkerState.DRAINING),
                seconds,
            )
        except TimeoutError:
            seat.error = f"{seat.active} requests were still running after {seconds:g} s"
        return seat.state is WorkerState.DRAINING and not seat.ending

    async def _end(self, seat: _Seat) -> None:
        if seat.process is not None:
            await seat.process.stop()
        if seat.task is not None:
            seat.task.cancel()
            await asyncio.gather(seat.task, return_exceptions=True)
        seat.ready = seat.process = seat.task = None

    async def close(self) -> None:
        """Ends everything, now."""
        await self.stop(self.keys(), drain=0)

    def status(self) -> tuple[WorkerStatus, ...]:
        """Every worker as it is now, with memory measured at this moment."""
        # A copy, because threads that measure memory ask too.
        return tuple(self._status(key, seat) for key, seat in tuple(self._seats.items()))

    def pids(self) -> dict[str, int]:
        """The processes of all workers that have one, by engine key."""
        seats = tuple(self._seats.items())
        return {
            key: seat.process.pid for key, seat in seats if seat.process and not seat.process.ended.is_set()
        }

    def occupants(self) -> tuple[Occupancy, ...]:
        """Every worker that is in memory, or on its way into it or out of it."""
        return tuple(self.seated(key) for key in self.running())

    def longest_request(self, key: str) -> float:
        """Seconds that a request to a worker may take at most. Raises WorkerFailure when there is no such worker."""
        return self._seat(key).model.limits.request_timeout

    def seated(self, key: str) -> Occupancy:
        """A worker's place, in memory or not. Raises WorkerFailure when there is no such worker."""
        seat = self._seat(key)
        return Occupancy(
            *(key, seat.names, seat.model.placement, seat.residency, seat.state, seat.active, seat.used)
        )

    def _status(self, key: str, seat: _Seat) -> WorkerStatus:
        pid = seat.process.pid if seat.process and not seat.process.ended.is_set() else None
        placement = seat.model.placement
        ram = private = None
        vram: dict[str, int] | None = None
        if pid is not None and seat.ready is not None and (measured := telemetry.process_memory(pid)):
            ram = max(0, measured.rss - seat.base[0])
            private = None if measured.private is None else max(0, measured.private - seat.base[1])
            vram = telemetry.process_vram(pid) if placement.memory == "vram" else None
        return WorkerStatus(
            models=seat.names,
            engine_key=key,
            state=seat.state,
            on_demand=seat.residency.on_demand,
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
            ram_repacked_bytes=seat.ready.ram_repacked_bytes if seat.ready else 0,
            gpu_vram=vram or {},
            vram_bytes=placed_vram(placement, vram),
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
            if seat.state is WorkerState.DRAINING:
                return
            if seat.residency.on_demand:
                # The next request loads it again: nobody else would have a use for it.
                self._set(seat, WorkerState.UNLOADED)
                return
            if not seat.restart:
                self._set(seat, WorkerState.STOPPED)
                return
            if time.monotonic() - began > STEADY_AFTER:
                delay = FIRST_DELAY
            seat.restarts += 1
            self._set(seat, WorkerState.BACKOFF)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            self._set(seat, WorkerState.STARTING)

    async def _run_once(self, seat: _Seat) -> None:
        """One process from start to end, whatever the reason of its end."""
        try:
            began = time.monotonic()
            process = seat.process = await self._spawn(seat.model)
            ready = await process.ready()
            if measured := telemetry.process_memory(process.pid):
                private = measured.private or ready.ram_private_bytes
                seat.base = (measured.rss - ready.ram_bytes, private - ready.ram_private_bytes)
            seat.ready, seat.error, seat.used = ready, None, time.monotonic()
            self._set(seat, WorkerState.READY)
            self._tell(seat, "ready", f"{ready.offloaded_layers} layers offloaded")
            loaded_in = time.monotonic() - began
            if await process.first_answer():
                status = await asyncio.to_thread(self._status, seat.model.engine_key(), seat)
                await self._fitted(seat.model, status, loaded_in)
            await process.ended.wait()
            reason = process.end_reason
        except (WorkerFailure, OSError) as error:
            reason = str(error)
        seat.ready = None
        if seat.state is not WorkerState.DRAINING:
            seat.error = reason
            self._tell(seat, "crashed", reason)

    def _set(self, seat: _Seat, state: WorkerState) -> None:
        seat.state = state
        self.changes.tell()

    def _tell(self, seat: _Seat, what: str, detail: str | None) -> None:
        for name in seat.names:
            self._report(WorkerEvent.model_validate({"model": name, "what": what, "detail": detail}))
