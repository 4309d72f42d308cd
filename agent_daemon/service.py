"""One running agent: what it is made of, in which order it starts, and how it stops."""

import asyncio
import fcntl
import logging
import os
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path

from starlette.types import ASGIApp

from agent_daemon import control_api
from agent_daemon.activator import Activator
from agent_daemon.bandwidth import BandwidthProbe
from agent_daemon.checkin import CheckInLoop
from agent_daemon.contract.release import Access, ServedModel
from agent_daemon.contract.wire import Facts, HubStatus, RuntimeFacts, WorkerStatus
from agent_daemon.counting import Counting
from agent_daemon.disk_room import DiskRoom
from agent_daemon.doctor import examine
from agent_daemon.drift import DriftWatch
from agent_daemon.errors import UsageProblem
from agent_daemon.facts import detect_facts
from agent_daemon.fitted import fitted
from agent_daemon.free_memory import free_ram
from agent_daemon.gateway.app import Gateway, build
from agent_daemon.gpus import detect_gpus
from agent_daemon.installed import ROOT
from agent_daemon.integrity import Integrity
from agent_daemon.journal import Journal
from agent_daemon.listener import Server, bind_control, bind_gateway, server
from agent_daemon.loading import Loader
from agent_daemon.measured import Measurements, library
from agent_daemon.pull import Puller
from agent_daemon.pull_memory import PullMemory
from agent_daemon.reporting import Reporting
from agent_daemon.residency import Residents
from agent_daemon.room import FreeMemory
from agent_daemon.runtime_probe import probe_runtime
from agent_daemon.service_manager import keep_alive, notify
from agent_daemon.serving import Serving
from agent_daemon.settings import Settings
from agent_daemon.spool import Spool
from agent_daemon.staging import Staging
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor
from agent_daemon.swarming import Swarms
from agent_daemon.wellness import WellnessFile

_log = logging.getLogger(__name__)
_FINISH_SECONDS = 15
"""That answers under way have when the agent is to end; a service manager waits twice as long before it kills."""
_RAM_RESERVE = 512 * 1024 * 1024
"""Bytes of free RAM that two releases side by side must leave to everything else on the machine."""


class Service:
    """Everything that one state directory belongs to. Raises UsageProblem when it cannot start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        settings.logs.mkdir(exist_ok=True)
        self._lock = _lock(settings.state_dir)
        self.agent_id = _identity(settings.state_dir)
        self._runtime = RuntimeFacts()
        self._journal = Journal(settings.state_dir / "journal.db")
        self._spool = Spool(settings.state_dir / "spool.db")
        self._store = Store(settings.state_dir / "store")
        self._swarms = Swarms(settings.state_dir / "store", settings.logs, settings.swarm_rate)
        self._reporting = Reporting(
            self._journal,
            self._spool,
            self._facts,
            lambda: self._supervisor.status(),
            self._wake_checkin,
            lambda: self._drift.glance(),
        )
        self._checkin = self._to_hub()
        measurements = Measurements(settings.state_dir / "measured.json", library())
        self._loader = Loader(self._store, settings.logs, measurements)
        self._supervisor = Supervisor(self._loader.spawn, self._reporting.worker, self._fitted)
        self._counting = Counting(self._spool, self._supervisor)
        self._residents = Residents(self._supervisor, self._free_memory)
        self._serving = Serving()
        self._activator = Activator(
            *(self._journal, self._store, self._supervisor, self._residents, self._serving),
            *(self._free_memory, self._reporting.publish, self._loader.measure),
        )
        self._room = DiskRoom(self._journal, self._store)
        self._integrity = Integrity(self._store, self._answering, self._reporting.drifted)
        self._staging = Staging(self._activator, self._room, self._integrity)
        self._drift = DriftWatch(
            *(ROOT, self._journal, self._store, self._activator.stale, self._reporting.drifted)
        )
        self._wellness = WellnessFile(
            *(settings.state_dir, settings.socket, self._journal),
            *(self._supervisor.status, self._supervisor.changes),
        )
        self._puller = self._from_hub()
        self._bandwidth = BandwidthProbe(
            settings.state_dir / "bandwidth.json", self._supervisor, at_work=self._activator.at_work
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set."""
        self._check_access()
        control_socket = bind_control(self._settings.socket)
        gateway_socket = bind_gateway(self._settings.listen)
        servers = [server(self._control_app()), server(self._gateway_app(), _FINISH_SECONDS)]
        tasks = [
            asyncio.create_task(each.serve(sockets=[bound]))
            for each, bound in zip(servers, (control_socket, gateway_socket), strict=True)
        ]
        self._reporting.publish()
        # Before a model is loaded, which takes as long as it takes.
        notify("READY=1")
        await self._activator.recover()
        loops = [asyncio.create_task(each) for each in self._loops()]
        port = gateway_socket.getsockname()[1]
        _log.info(
            "serving on %s:%s, control socket %s", self._settings.listen.host, port, self._settings.socket
        )
        try:
            await stop.wait()
        finally:
            notify("STOPPING=1")
            for loop in loops:
                loop.cancel()
            await self._shut_down(servers, tasks)

    async def _shut_down(self, servers: list[Server], tasks: list[asyncio.Task[None]]) -> None:
        for each in servers:
            each.should_exit = True
        await self._activator.close()
        await asyncio.wait(tasks, timeout=_FINISH_SECONDS + 5)
        await self._swarms.close()
        await self._residents.close()
        await self._loader.close()
        await self._supervisor.close()
        self._settings.socket.unlink(missing_ok=True)
        self._spool.close()
        self._journal.close()

    def _control_app(self) -> ASGIApp:
        return control_api.build(
            control_api.ControlApi(
                self.agent_id,
                self._journal,
                self._store,
                self._spool,
                self._supervisor,
                self._activator,
                self._settings.logs,
                self._facts,
                self._reporting.flush,
                self._hub_status,
                lambda: examine(self._settings),
                self._counting.scrape,
                self._swarms,
                self._staging,
                self._room,
                self._drift.glance,
            )
        )

    def _gateway_app(self) -> ASGIApp:
        return build(
            Gateway(
                *(self._serving, self._supervisor, self._residents),
                *(self._counting.count, self._counting.scrape),
            ),
            loopback=self._settings.listen.loopback,
            key_hashes=self._settings.key_hashes,
            access=self._access,
        )

    def _access(self) -> Access:
        return self._serving.release.access if self._serving.release else Access()

    def _check_access(self) -> None:
        active = self._journal.active()
        keys = self._settings.key_hashes or (active and self._journal.release(active).access.key_hashes)
        if not self._settings.listen.loopback and not keys:
            raise UsageProblem(
                f"--listen {self._settings.listen.host} can be reached from outside, and there is no API key",
                "name a file of key hashes with --api-keys (edgectl access new-key makes one), or listen on"
                " 127.0.0.1",
            )

    def _to_hub(self) -> CheckInLoop | None:
        hub = self._settings.hub
        if hub is None:
            return None
        return CheckInLoop(
            *(hub.url, hub.token_file.read_text, self.agent_id, self._spool, self._reporting.flush),
            has=lambda: self._puller.has() if self._puller else None,
            wanted=lambda wanted: self._puller.want(wanted) if self._puller else None,
        )

    def _from_hub(self) -> Puller | None:
        hub = self._settings.hub
        if hub is None:
            return None
        return Puller(
            hub.url,
            hub.token_file.read_text,
            *(
                self._staging,
                self._activator,
                self._journal,
                self._store,
                self._spool,
                self._reporting.publish,
            ),
            PullMemory(self._settings.state_dir / "pull.json"),
        )

    def _hub_status(self) -> HubStatus | None:
        if self._checkin is None or self._puller is None:
            return None
        return self._checkin.status.model_copy(update={"delivery": self._puller.status})

    def _loops(self) -> Iterator[Coroutine[None, None, None]]:
        """What goes on beside serving, until the end."""
        yield self._reporting.tell()
        yield self._reporting.beat()
        yield self._residents.run()
        yield self._bandwidth.run(self._facts, self._reporting.facts)
        yield self._wellness.run()
        yield self._drift.run()
        yield self._room.sweep()
        yield self._integrity.watch()
        yield self._integrity.scrub()
        yield self._swarms.run()
        yield keep_alive()
        if self._checkin is not None:
            yield self._checkin.run()
        if self._puller is not None:
            yield self._puller.run()

    def _wake_checkin(self) -> None:
        if self._checkin is not None:
            self._checkin.wake()

    def _answering(self) -> bool:
        return any(each.active for each in self._supervisor.occupants())

    # -- what the parts ask for ------------------------------------------------------------------------

    def _free_memory(self) -> FreeMemory:
        workers = self._supervisor.status()
        free = free_ram()
        ram = free.shared
        if ram is not None:
            # Weights that are mapped from a file are counted as available, although they are in use.
            mapped = sum((each.ram_bytes or 0) - (each.ram_private_bytes or 0) for each in workers)
            ram -= mapped + _RAM_RESERVE - self._loader.waiting()
        if ram is not None and self._settings.ram_limit is not None:
            ours = sum(each.ram_bytes or 0 for each in workers)
            ram = min(ram, self._settings.ram_limit - ours)
        gpus, _problem = detect_gpus()
        return FreeMemory(ram=ram, vram={gpu.uuid: gpu.vram_free for gpu in gpus if gpu.uuid}, each=free.each)

    async def _fitted(self, model: ServedModel, status: WorkerStatus, seconds: float) -> None:
        planned = self._residents.expected().get(status.engine_key)
        if record := fitted(model, status, planned, seconds, await self._facts()):
            self._reporting.fitted(record)

    async def _facts(self) -> Facts:
        if self._runtime.version is None and self._runtime.error is None:
            self._runtime = await probe_runtime()
        facts = await asyncio.to_thread(
            detect_facts,
            agent_id=self.agent_id,
            state_dir=self._settings.state_dir,
            ram_limit=self._settings.ram_limit,
            runtime=self._runtime,
            gateway_url=self._settings.listen.url,
            holders=_holders(self._supervisor),
        )
        return self._bandwidth.known(facts)


def _holders(supervisor: Supervisor) -> dict[str, frozenset[int]]:
    """The workers' processes on each GPU, by its uuid."""
    found: dict[str, set[int]] = {}
    for key, pid in supervisor.pids().items():
        placement = supervisor.seated(key).placement
        for gpu in (part.uuid for part in placement.gpus) if placement.gpus else (placement.gpu_uuid,):
            found.setdefault(gpu or "", set()).add(pid)
    return {gpu: frozenset(pids) for gpu, pids in found.items()}


def _lock(state_dir: Path) -> int:
    """An exclusive lock that the kernel gives up with the process, however it ends."""
    descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageProblem(
            f"another agent is running with the state directory {state_dir}",
            "stop it, or give this one a directory of its own with --state-dir",
        ) from None
    return descriptor


def _identity(state_dir: Path) -> str:
    """The agent's name for itself, made once and kept with its state."""
    path = state_dir / "agent-id"
    try:
        return path.read_text().strip() or _new_identity(path)
    except FileNotFoundError:
        return _new_identity(path)


def _new_identity(path: Path) -> str:
    identity = str(uuid.uuid4())
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(identity + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return identity
