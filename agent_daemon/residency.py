"""Which models are in memory: brings them in when they are asked for, and sends idle ones out.

Loads are made one after another, in the order in which they were first asked for: only then does the memory that
was measured for one stay its own until it is taken.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agent_daemon.contract.release import Placement
from agent_daemon.contract.sizes import format_size
from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.errors import WorkerFailure
from agent_daemon.eviction import Tenant, Verdict, choose, idle_until
from agent_daemon.room import FreeMemory, Need, all_returned, frees, need, short, with_returned
from agent_daemon.supervisor import FIRST_DELAY, LONGEST_DELAY, Occupancy, Supervisor
from agent_daemon.worker_process import WorkerProcess

GRACE = 3.0
"""Seconds for which a busy model still takes new requests while another waits for its memory. After that they queue
behind the other's load, or two models that take turns would starve one another."""
LOAD_SECONDS = 1800.0
"""Longest time that one model may take to load: 30 GiB from a slow disk, and no worker that hangs."""
_MEMORY_WAIT_SECONDS = 15.0
"""Drivers give memory back some time after a process has ended."""
_POLL, _LOOK_AGAIN = 0.2, 1.0


class NotLoaded(WorkerFailure):
    """Why a model could not be loaded. `retry_after`: seconds until it is tried again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _Abandoned(WorkerFailure):
    """Everybody who wanted a model loaded has left."""


@dataclass(frozen=True)
class _Fault:
    """A load that failed: why, and until when (`time.monotonic`) nobody tries it again."""

    reason: str
    delay: float
    until: float


@dataclass
class _Loading:
    """The load whose turn it is, and since when. It waits for the workers `blocked_by` as long as they are busy."""

    key: str
    since: float
    blocked_by: tuple[str, ...] = ()


class Residents:
    """`free_memory` measures, in a thread. `grace` is seconds (see GRACE)."""

    def __init__(
        self, supervisor: Supervisor, free_memory: Callable[[], FreeMemory], grace: float = GRACE
    ) -> None:
        self._supervisor = supervisor
        self._free_memory = free_memory
        self._grace = grace
        self._changes = supervisor.changes
        self._kept: frozenset[str] = frozenset()
        self._wanted: Counter[str] = Counter()
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._loading: _Loading | None = None
        self._faults: dict[str, _Fault] = {}
        self._sizes: dict[str, Need] = {}

    def expect(self, sizes: Mapping[str, Need]) -> None:
        """From here on these workers, by engine key, are expected to take what was measured, and no more what was
        predicted for them."""
        known = self._supervisor.keys()
        self._sizes = {key: size for key, size in self._sizes.items() if key in known} | dict(sizes)

    def expected(self) -> Mapping[str, Need]:
        """What was measured of workers before they were loaded, by engine key."""
        return dict(self._sizes)

    def _need(self, key: str, placement: Placement) -> Need:
        return self._sizes[key] if key in self._sizes else need(placement)

    def keep(self, keys: frozenset[str]) -> None:
        """From here on these workers are not unloaded, as if they were pinned: a probe watches them. What went
        wrong with workers that were given up is forgotten."""
        self._kept = keys
        known = self._supervisor.keys()
        self._faults = {key: fault for key, fault in self._faults.items() if key in known}

    async def acquire(self, key: str) -> WorkerProcess:
        """The process of a worker, which is loaded for it if need be, with one more request running on it:
        `Supervisor.end_request` gives it back. Raises WorkerFailure when there is no such worker or it stays
        down, NotLoaded when it cannot be loaded."""
        await self._changes.until(lambda: not self._closed(key))
        with self._wanting(key):
            while (process := self._supervisor.process(key)) is None:
                await self._bring(key)
            self._supervisor.begin_request(key)
            return process

    async def bring(self, key: str) -> None:
        """Returns once the worker has been ready. Raises what `acquire` raises."""
        await self.acquire(key)
        self._supervisor.end_request(key, None)

    def obstacle(self, key: str) -> str | None:
        """What a request for this worker waits for at this moment, in words; None when nothing is in its way."""
        loading = self._loading
        if loading is None:
            return None
        if loading.key == key or key in self._loads:
            if loading.blocked_by:
                return f"it waits for memory that {self._names(loading.blocked_by)} holds while it answers"
            if loading.key == key:
                return "it is being loaded"
        if loading.key != key and (self._closed(key) or key in self._loads):
            return f"it waits until {self._names((loading.key,))} is loaded"
        return None

    async def run(self) -> None:
        """Unloads what has been idle for its time, until cancelled."""
        while True:
            tenants = [self._tenant(each) for each in self._supervisor.occupants()]
            due = {each.key: end for each in tenants if (end := idle_until(each)) is not None}
            now = time.monotonic()
            over = [key for key, end in due.items() if end <= now]
            for key in over:
                await self._supervisor.unload(key, "it was idle for its idle_ttl")
            if not over:
                await self._changes.next(min(due.values()) - now if due else None)

    async def close(self) -> None:
        """Ends all loads."""
        loads = list(self._loads.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    # -- one load for all who ask ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _wanting(self, key: str) -> Iterator[None]:
        self._wanted[key] += 1
        try:
            yield
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]
                self._changes.tell()

    def _closed(self, key: str) -> bool:
        """Whether new requests of a worker wait, because another model has waited long enough for its memory."""
        loading = self._loading
        return (
            loading is not None
            and key in loading.blocked_by
            and time.monotonic() - loading.since >= self._grace
        )

    async def _bring(self, key: str) -> None:
        if key not in self._loads:
            state = await self._supervisor.settled(key)
            if state is WorkerState.READY:
                return
            if state is WorkerState.STOPPED:
                await self._supervisor.wait_ready(key)
        load = self._loads.get(key)
        if load is None:
            self._refuse_too_soon(key)
            load = self._loads[key] = asyncio.create_task(self._load(key))
            load.add_done_callback(lambda done: self._loaded(key, done))
        # Shielded: who leaves does not take the load from the others.
        with contextlib.suppress(_Abandoned):
            await asyncio.shield(load)

    def _loaded(self, key: str, load: asyncio.Task[None]) -> None:
        del self._loads[key]
        if not load.cancelled():
            load.exception()

    def _refuse_too_soon(self, key: str) -> None:
        if (fault := self._faults.get(key)) and (left := fault.until - time.monotonic()) > 0:
            raise NotLoaded(fault.reason, left)

    async def _load(self, key: str) -> None:
        async with self._turn:
            self._loading = _Loading(key, time.monotonic())
            try:
                await self._make_room(key, self._loading)
                self._loading.blocked_by = ()
                self._supervisor.load(key)
                await asyncio.wait_for(self._supervisor.loaded(key), LOAD_SECONDS)
                self._faults.pop(key, None)
            except TimeoutError:
                await self._supervisor.abandon(key)
                raise self._fault(key, f"it was not ready within {LOAD_SECONDS:g} s") from None
            except _Abandoned:
                raise
            except WorkerFailure as failure:
                raise self._fault(key, str(failure)) from None
            finally:
                self._loading = None
                self._changes.tell()

    def _fault(self, key: str, reason: str) -> NotLoaded:
        before = self._faults.get(key)
        delay = min(before.delay * 2, LONGEST_DELAY) if before else FIRST_DELAY
        self._faults[key] = _Fault(reason, delay, time.monotonic() + delay)
        return NotLoaded(reason, delay)

    # -- memory ----------------------------------------------------------------------------------------

    async def _make_room(self, key: str, loading: _Loading) -> None:
        """Returns when the model fits. Raises WorkerFailure when it never will, however long it waits."""
        wanted = self._need(key, self._supervisor.seated(key).placement)
        while True:
            if not self._wanted[key]:
                raise _Abandoned("nobody waits for it any more")
            free, measured = await self._measure()
            tenants = [self._tenant(each, measured.get(each.key)) for each in self._supervisor.occupants()]
            choice = choose(wanted, free, tenants)
            if choice.verdict is Verdict.FITS:
                return
            if choice.verdict is Verdict.NEVER:
                raise WorkerFailure(_shortage(wanted, free))
            loading.blocked_by = choice.keys if choice.verdict is Verdict.WAIT else ()
            if choice.verdict is Verdict.EVICT and await self._evict(choice.keys, key):
                back = sum((each.frees for each in tenants if each.key in choice.keys), Need())
                await self._until_given_back(wanted, with_returned(free, back))
            elif choice.verdict is Verdict.WAIT:
                # Not for ever: somebody else on this machine may give memory back without telling.
                await self._changes.next(_LOOK_AGAIN)

    async def _evict(self, keys: tuple[str, ...], guest: str) -> bool:
        why = f"{self._names((guest,))} needs its memory"
        return all(await asyncio.gather(*(self._supervisor.unload(key, why) for key in keys)))

    async def _until_given_back(self, wanted: Need, whole: FreeMemory) -> None:
        """Returns once it fits, or as much is free as there can be (`whole`), or after a while: somebody else may
        have taken it."""
        deadline = time.monotonic() + _MEMORY_WAIT_SECONDS
        while time.monotonic() < deadline:
            free, _ = await self._measure()
            if choose(wanted, free, ()).verdict is Verdict.FITS or all_returned(whole, free):
                return
            await asyncio.sleep(_POLL)

    async def _measure(self) -> tuple[FreeMemory, dict[str, WorkerStatus]]:
        """What is free, less what workers that are being loaded have not taken yet; and what each holds."""
        free = await asyncio.to_thread(self._free_memory)
        statuses = await asyncio.to_thread(self._supervisor.status)
        coming = sum(
            (self._need(each.key, each.placement) for each in self._supervisor.occupants() if each.coming),
            Need(),
        )
        ram = None if free.ram is None else free.ram - coming.ram
        vram = {
            uuid: None if size is None else size - coming.vram.get(uuid, 0)
            for uuid, size in free.vram.items()
        }
        return FreeMemory(ram, vram), {each.engine_key: each for each in statuses}

    def _tenant(self, seat: Occupancy, status: WorkerStatus | None = None) -> Tenant:
        return Tenant(
            key=seat.key,
            frees=frees(need(seat.placement), status),
            used=seat.used,
            busy=seat.state is not WorkerState.READY or seat.active > 0 or self._wanted[seat.key] > 0,
            pinned=seat.state is not WorkerState.DRAINING
            and (seat.residency.pinned or seat.key in self._kept),
            idle_ttl=seat.residency.idle_ttl,
        )

    def _names(self, keys: tuple[str, ...]) -> str:
        known = self._supervisor.keys()
        names = ["/".join(self._supervisor.seated(key).names) for key in keys if key in known]
        return " and ".join(names) or "another model"


def _shortage(wanted: Need, free: FreeMemory) -> str:
    missing = short(wanted, free) or Need()
    parts = [f"{format_size(wanted.ram)} of RAM, {format_size(free.ram or 0)} are free"] * bool(missing.ram)
    parts += [
        f"{format_size(wanted.vram[uuid])} of {uuid or 'a GPU'}, {format_size(free.vram.get(uuid) or 0)} are free"
        for uuid in missing.vram
    ]
    return f"it needs {' and '.join(parts)}, and no other model can make room"
