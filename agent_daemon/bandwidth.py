"""How fast this device reads weights: measured once, by a process of its own and in a quiet moment, and kept.

What was measured holds for a runtime and its devices: with another of either it is measured again. It never competes
with serving: it waits until no worker is busy, and is broken off when one gets busy meanwhile.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent_daemon.contract.wire import Facts, GpuFacts, WorkerState
from agent_daemon.free_memory import free_ram
from agent_daemon.gpus import pci_addresses
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Bandwidth, Bandwidths, parse_bandwidths

CALM = 5.0
"""Seconds for which nothing must have been loaded or asked before the measurement begins."""
_LOOK, _POLL = 0.5, 0.05
_LONGEST = 60.0
_RETRY, _TRIES = 600.0, 3
"""Seconds until a device that could not be measured, for want of room, is tried again; and how often in all."""
_log = logging.getLogger(__name__)


class BandwidthProbe:
    """`file` keeps what was measured. `calm` is seconds (see CALM); `at_work`: a release is on its way, which the
    measurement would hold up."""

    def __init__(
        self,
        file: Path,
        supervisor: Supervisor,
        calm: float = CALM,
        at_work: Callable[[], bool] = lambda: False,
    ) -> None:
        self._at_work = at_work
        self._file = file
        self._supervisor = supervisor
        self._calm = calm
        self._kept: tuple[str, Bandwidths] | None = _read(file)
        self._pci: tuple[str | None, ...] = ()

    def known(self, facts: Facts) -> Facts:
        """The facts, with the bandwidths that are known for them."""
        if self._kept is None or self._kept[0] != identity(facts):
            return facts
        devices = self._kept[1].devices
        ram = next((each.bytes_per_second for each in devices if each.ram), None)
        speeds = by_gpu(devices, facts.gpus, self._pci)
        gpus = tuple(
            gpu.model_copy(update={"bandwidth": speed}) for gpu, speed in zip(facts.gpus, speeds, strict=True)
        )
        return facts.model_copy(update={"ram_bandwidth": ram, "gpus": gpus})

    async def run(self, facts: Callable[[], Awaitable[Facts]], tell: Callable[[], Awaitable[None]]) -> None:
        """Measures what is not known yet, and calls `tell` when something has become known."""
        for _ in range(_TRIES):
            current = await facts()
            if current.runtime.version is None:
                return
            self._pci = await asyncio.to_thread(pci_addresses)
            if complete(self.known(current)):
                break
            measured = await self._measure()
            if measured.devices:
                self._kept = (identity(current), measured)
                await asyncio.to_thread(_write, self._file, *self._kept)
            if complete(self.known(current)):
                break
            await asyncio.sleep(_RETRY)
        if self._kept is not None:
            await tell()

    async def _measure(self) -> Bandwidths:
        """Tries until it was left undisturbed."""
        while True:
            await self._quiet()
            # What the owner lets models have is not asked: this is over in a moment.
            free = (await asyncio.to_thread(free_ram)).free
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent_daemon.worker", "--probe-bandwidth"),
                *("--most", str((free or 0) // 4)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            answer = asyncio.create_task(process.communicate())
            try:
                if await self._undisturbed(answer):
                    printed, _ = answer.result()
                    return _understood(printed)
            finally:
                answer.cancel()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _undisturbed(self, answer: "asyncio.Task[tuple[bytes, bytes]]") -> bool:
        deadline = time.monotonic() + _LONGEST
        while not answer.done():
            if not self._idle():
                return False
            if time.monotonic() > deadline:
                answer.cancel()
                raise TimeoutError(f"no bandwidth was measured within {_LONGEST:g} s")
            await asyncio.wait({answer}, timeout=_POLL)
        return True

    async def _quiet(self) -> None:
        since = time.monotonic()
        while time.monotonic() - since < self._calm:
            if not self._idle():
                since = time.monotonic()
            await asyncio.sleep(min(_LOOK, self._calm))

    def _idle(self) -> bool:
        return not self._at_work() and all(
            each.state is WorkerState.READY
            and each.active == 0
            and time.monotonic() - each.used >= min(self._calm, _LOOK)
            for each in self._supervisor.occupants()
        )


def identity(facts: Facts) -> str:
    """What a measurement holds for: the runtime's version and backends, the processor and the GPUs."""
    gpus = [[gpu.uuid, gpu.name] for gpu in facts.gpus]
    runtime = [facts.runtime.version, *facts.runtime.backends]
    return json.dumps([runtime, facts.cpu_model, facts.cpu_cores, gpus])


def complete(facts: Facts) -> bool:
    """Whether every bandwidth is known that could be."""
    offloads = facts.runtime.offloads and not facts.runtime.simulated_offload
    return facts.ram_bandwidth is not None and (
        not offloads or all(gpu.bandwidth is not None for gpu in facts.gpus)
    )


def by_gpu(
    devices: Sequence[Bandwidth], gpus: Sequence[GpuFacts], addresses: Sequence[str | None]
) -> tuple[int | None, ...]:
    """The bandwidth of each GPU in the order of the facts; `addresses` are their PCI addresses. Without one a device
    is taken for a GPU only where there is one of each. None where unsure."""
    measured = [each for each in devices if not each.ram]
    if len(measured) == len(gpus) == 1 and (measured[0].pci is None or not any(addresses)):
        return (measured[0].bytes_per_second,)
    known = {each.pci: each.bytes_per_second for each in measured if each.pci is not None}
    padded = (*addresses, *(None for _ in gpus))[: len(gpus)]
    return tuple(None if address is None else known.get(address) for address in padded)


def _understood(printed: bytes) -> Bandwidths:
    try:
        return parse_bandwidths(printed.strip().splitlines()[-1])
    except (ValueError, IndexError):
        _log.warning("how fast memory is read could not be measured")
        return Bandwidths()


def _read(file: Path) -> tuple[str, Bandwidths] | None:
    """What was kept; None where there is nothing, or nothing that makes sense."""
    try:
        kept = json.loads(file.read_text())
        return str(kept["identity"]), parse_bandwidths(json.dumps(kept["measured"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, name: str, measured: Bandwidths) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("w") as out:
        json.dump({"identity": name, "measured": json.loads(measured.json())}, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
