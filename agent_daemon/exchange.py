"""One release's workers take the place of another's, and back: what an activation does to what is in memory.

No request fails for it. With `handover` the new ones answer before the old ones leave, which finish what they are
answering. With `replace` requests wait, bounded by their own time, while the old ones finish and the new ones load.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from agent_daemon.activation import needs, resident
from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.errors import WorkerFailure
from agent_daemon.preflight import Preflight
from agent_daemon.residency import LOAD_SECONDS, Residents
from agent_daemon.room import FreeMemory, Need, all_returned, short, with_returned
from agent_daemon.serving import Serving
from agent_daemon.stale import reads_deleted
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor

_SHORTEST_DRAIN = 120.0
_MEMORY_WAIT_SECONDS = 15.0
"""Drivers give memory back some time after a process has ended."""


class Failure(Exception):
    """Why a release could not be brought into memory, in one sentence."""


class Exchange:
    """`free_memory` measures what is free, in a thread."""

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        residents: Residents,
        serving: Serving,
        preflight: Preflight,
        free_memory: Callable[[], FreeMemory],
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._residents = residents
        self._serving = serving
        self._preflight = preflight
        self._free_memory = free_memory
        self._leaving: set[asyncio.Task[None]] = set()

    async def load(self, release: DeviceRelease, strategy: Strategy, note: Callable[[str], None]) -> None:
        """Everything that is to be resident is ready on return. What is loaded on demand is loaded by the probe, each in
        its turn. Raises Failure."""
        staying = frozenset(model.engine_key() for model in resident(release))
        ending = self._supervisor.running() - staying
        if strategy is Strategy.REPLACE and ending:
            note("not enough memory for both releases: requests wait while they are exchanged")
            await self._make_room(release, staying, ending)
        self._residents.keep(staying)
        await self._retire_stale(release)
        self._supervisor.start(release.models, restart=False)
        deadline = asyncio.get_running_loop().time() + LOAD_SECONDS
        for model in resident(release):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._residents.bring(model.engine_key())
            except WorkerFailure as error:
                raise Failure(f"{model.name} could not be loaded: {error}") from None
            except TimeoutError:
                raise Failure(f"{model.name} was not loaded within {LOAD_SECONDS:g} s") from None

    async def restore(self, active: DeviceRelease | None) -> None:
        """The old release alone, and answering; requests that wait go on waiting until it is ready. Where nothing was
        served before, nothing is the old state. Raises Failure."""
        self._residents.keep(frozenset())
        await self._supervisor.stop(self._others(active), drain=_SHORTEST_DRAIN)
        try:
            if active is not None:
                self._supervisor.start(active.models, restart=True)
                await self._bring_back(active)
        finally:
            await self.serve(active)

    async def _bring_back(self, active: DeviceRelease) -> None:
        for model in resident(active):
            try:
                await asyncio.wait_for(self._residents.bring(model.engine_key()), active.probe.timeout)
            except (WorkerFailure, TimeoutError) as error:
                reason = str(error) or "it was not ready in time"
                raise Failure(f"the old release did not come back: {model.name}: {reason}") from None

    async def serve(self, active: DeviceRelease | None) -> None:
        """From here on requests are answered by this release: those that wait, too."""
        if active is not None:
            self._supervisor.start(active.models, restart=True)
        await self._serving.switch(active)

    def let_go(self, active: DeviceRelease | None) -> None:
        """Whatever does not belong to this release leaves when its answers are finished, however long each of them may
        take. Nobody waits for that: the next activation finds them leaving."""
        self._residents.keep(frozenset())
        others = self._others(active)
        self._in_background(self._supervisor.stop(others, drain=self._longest(others)))

    def stale(self, release: DeviceRelease) -> frozenset[str]:
        """Workers of a release, by engine key, that read files which the store has given up."""
        keys = {model.engine_key() for model in release.models}
        pids = self._supervisor.pids()
        return frozenset(key for key in keys & pids.keys() if reads_deleted(pids[key], self._store.root))

    async def close(self) -> None:
        """Stops waiting for those that leave."""
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    # -- parts -----------------------------------------------------------------------------------------

    async def _make_room(
        self, release: DeviceRelease, staying: frozenset[str], ending: frozenset[str]
    ) -> None:
        await self._serving.hold()
        held = await asyncio.to_thread(self._preflight.held)
        free = await asyncio.to_thread(self._free_memory)
        back = sum((size for key, size in held.items() if key in ending), Need())
        others = self._supervisor.keys() - staying
        # Half of what a request may take: those that wait have the other half for theirs.
        await self._supervisor.stop(others, drain=max(_SHORTEST_DRAIN, self._longest(others) / 2))
        running = staying & self._supervisor.running()
        await self._wait_for_memory(needs(release, running, self._residents.expected()), free, back)

    async def _wait_for_memory(self, wanted: Need, before: FreeMemory, back: Need) -> None:
        """Waits until there is room for `wanted`, or what the ended workers held is `back` beside what was free
        `before`; for a while, because others may take memory meanwhile: then loading has to tell."""
        deadline = time.monotonic() + _MEMORY_WAIT_SECONDS
        whole = with_returned(before, back)
        while time.monotonic() < deadline:
            free = await asyncio.to_thread(self._free_memory)
            if short(wanted, free) is None or all_returned(whole, free):
                return
            await asyncio.sleep(0.2)

    async def _retire_stale(self, release: DeviceRelease) -> None:
        for key in await asyncio.to_thread(self.stale, release):
            await self._supervisor.retire(key, drain=_SHORTEST_DRAIN)

    def _others(self, active: DeviceRelease | None) -> frozenset[str]:
        wanted = {model.engine_key() for model in active.models} if active else set()
        return self._supervisor.keys() - wanted

    def _longest(self, keys: Iterable[str]) -> float:
        """Seconds that a request to any of these workers may take."""
        return max((self._supervisor.longest_request(key) for key in keys), default=0.0)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
