"""Measures a staged release before anything changes, and judges whether it may be activated.

Every model that is not in memory yet is opened by a process of its own that allocates nothing; then `judgement`
compares. The old release serves on all the while.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent_daemon import judgement
from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.room import FreeMemory, Need, frees, need
from agent_daemon.supervisor import Supervisor

_SETTLE_SECONDS, _POLL = 3.0, 0.2
"""Seconds for which memory that is short is looked at again: drivers give back late what a process held that has
ended."""


class Unmeasurable(Exception):
    """This device cannot say what a model would take; the message is why. It says nothing about the model."""


Measure = Callable[[ServedModel], Awaitable[Need]]
"""What a model would take. Raises Unmeasurable, and WorkerFailure with llama.cpp's reason where it refuses the file."""


@dataclass(frozen=True)
class Finding:
    """`refusal` is why the release may not be activated, or None. `sizes` are what was measured, by engine key."""

    refusal: str | None = None
    sizes: dict[str, Need] = field(default_factory=dict)


class Preflight:
    """`free_memory` measures what is free now, in a thread."""

    def __init__(
        self, supervisor: Supervisor, measure: Measure, free_memory: Callable[[], FreeMemory]
    ) -> None:
        self._supervisor = supervisor
        self._measure = measure
        self._free_memory = free_memory

    async def examine(self, release: DeviceRelease, note: Callable[[str], None]) -> Finding:
        """Measures and judges; what could not be measured is told to `note` and judged as predicted."""
        sizes: dict[str, Need] = {}
        running = self._supervisor.running()
        coming = {model.engine_key(): model for model in release.models}
        for key, model in coming.items():
            if key in running:
                continue
            try:
                sizes[key] = await self._measure(model)
            except Unmeasurable as why:
                note(f"{model.name} could not be measured before loading: {why}")
                continue
            except WorkerFailure as error:
                return Finding(f"{model.name} cannot be loaded: {error}", sizes)
            if refusal := judgement.mismatch(model, sizes[key]):
                return Finding(refusal, sizes)
        return Finding(await self._shortage(release, sizes), sizes)

    async def _shortage(self, release: DeviceRelease, sizes: dict[str, Need]) -> str | None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            free = await asyncio.to_thread(self._free_memory)
            held = await asyncio.to_thread(self.held)
            shortage = judgement.shortage(release, sizes, free, held)
            if shortage is None or time.monotonic() > deadline:
                return shortage
            await asyncio.sleep(_POLL)

    def held(self) -> dict[str, Need]:
        """What the end of each worker that is in memory would give back, by engine key."""
        statuses = {each.engine_key: each for each in self._supervisor.status()}
        return {
            each.key: frees(need(each.placement), statuses.get(each.key))
            for each in self._supervisor.occupants()
        }
