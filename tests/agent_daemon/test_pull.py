"""What a device takes from its hub, and what it gives up on: a real hub, journal, store and activator."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.activator import Activator
from agent_daemon.checkin import Pace
from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.contract.wire import ActivationEvent, ActivationState, Desired, Outcome, RecordKind
from agent_daemon.disk_room import DiskRoom
from agent_daemon.errors import WorkerFailure
from agent_daemon.integrity import Integrity
from agent_daemon.journal import Journal
from agent_daemon.preflight import Unmeasurable
from agent_daemon.pull import Puller, PullPace
from agent_daemon.pull_memory import PullMemory, Tries
from agent_daemon.residency import Residents
from agent_daemon.room import FreeMemory, Need
from agent_daemon.serving import Serving
from agent_daemon.spool import Spool
from agent_daemon.staging import Staging
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess
from edgectl.inventory.repository import Repository
from tests.edgectl.hub.test_files import Source
from tests.support.checkins import until
from tests.support.hub import HubProcess, running_hub
from tests.support.inventory_messages import digest, facts

MIB = 1 << 20
PACE = PullPace(hub=Pace(shortest=0.05, longest=0.3, apart=0.01), again=(0.02, 0.05), busy=0.1, quiet=0.3)


class Device:
    """The parts of a device that take a release; its workers never start."""

    def __init__(self, folder: Path, url: str, token: str, name: str) -> None:
        self.folder, self.url, self.token, self.name = folder, url, token, name
        folder.mkdir(exist_ok=True)
        self.journal = Journal(folder / "journal.db")
        self.store = Store(folder / "store")
        self.spool = Spool(folder / "spool.db")
        self.spawned = 0
        supervisor = Supervisor(self._spawn, lambda _: None)
        self.residents, self.supervisor = Residents(supervisor, _plenty), supervisor
        self.activator = Activator(
            *(self.journal, self.store, supervisor, self.residents, Serving()),
            *(_plenty, self._publish, _unmeasured),
        )
        room = DiskRoom(self.journal, self.store)
        self.staging = Staging(self.activator, room, Integrity(self.store, lambda: False, _nothing))
        self.puller = self.made()

    def made(self) -> Puller:
        """As a start of the agent makes it."""
        return Puller(
            self.url,
            lambda: self.token,
            *(self.staging, self.activator, self.journal, self.store, self.spool, self._publish),
            PullMemory(self.folder / "pull.json"),
            pace=PACE,
        )

    async def _spawn(self, _model: ServedModel) -> WorkerProcess:
        self.spawned += 1
        raise WorkerFailure("it does not start here")

    def _publish(self) -> None:
        for identity, at, event in self.journal.unreported():
            self.spool.append(RecordKind.ACTIVATION, event, at)
            self.journal.reported(identity)

    def ends(self) -> list[ActivationEvent]:
        """The last words that wait to be reported."""
        records = self.spool.check_in("a").records
        events = [ActivationEvent.model_validate(each.body) for each in records]
        return [event for event in events if event.outcome is not None]

    def during(self, work: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            task = asyncio.create_task(self.puller.run())
            try:
                await work()
            finally:
                task.cancel()
                await self.activator.close()
                await self.residents.close()
                await self.supervisor.close()

        asyncio.run(whole())


def _plenty() -> FreeMemory:
    return FreeMemory(ram=2**40, vram={})


async def _unmeasured(_model: ServedModel) -> Need:
    raise Unmeasurable("nobody can say")


async def _nothing() -> None:
    pass


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "inventory.db"


@pytest.fixture(scope="module")
def repository(database: Path) -> Iterator[Repository]:
    with Repository(database) as opened:
        yield opened


@pytest.fixture(scope="module")
def hub(repository: Repository, database: Path) -> Iterator[HubProcess]:
    with running_hub(database) as running:
        yield running


_NUMBERS = count(1)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path, "model.gguf", 2 * MIB)


@pytest.fixture
def device(tmp_path: Path, hub: HubProcess, repository: Repository) -> Device:
    name = f"m{next(_NUMBERS)}"
    repository.add_device(name, {"kind": "local"}, facts=facts(f"agent-{name}"))
    return Device(tmp_path / "device", hub.url, repository.mint_token(name, 1), name)


def wanted(
    repository: Repository, device: Device, release: DeviceRelease, rollout: int = 1, **more: Any
) -> Desired:
    number = repository.record_release("m", {"is": release.digest()}, {device.name: release}).number
    return Desired(rollout=rollout, release=release.model_copy(update={"number": number}), **more)


def test_it_comes_whole_and_is_activated_by_itself(
    device: Device, repository: Repository, source: Source
) -> None:
    desired = wanted(repository, device, source.release())

    async def work() -> None:
        device.puller.want(desired)
        await until(lambda: device.puller.has().over == 1)

    device.during(work)
    assert device.store.path(source.digest).read_bytes() == source.data
    # No worker can start here: the device's own verdict says so.
    (end,) = device.ends()
    assert (end.release, end.outcome) == (desired.release.digest(), Outcome.REVERTED)
    assert "could not be loaded" in str(end.detail)
    assert device.puller.has().quarantine == (desired.release.digest(),)


def test_what_is_no_longer_wanted_stops_and_what_came_is_kept(
    device: Device, repository: Repository, tmp_path: Path
) -> None:
    large = Source(tmp_path, "large.gguf", 8 * MIB)
    desired = wanted(repository, device, large.release(), limit_rate=2 * MIB)

    async def work() -> None:
        device.puller.want(desired)
        await until(lambda: device.store.offset(large.digest) > MIB)
        device.puller.want(None)
        await until(lambda: device.puller.status is None)
        held = device.store.offset(large.digest)
        await asyncio.sleep(0.5)
        assert device.store.offset(large.digest) == held
        assert not device.store.receiving(large.digest)
        # Wanted again, without a bound, it goes on from there.
        device.puller.want(desired.model_copy(update={"limit_rate": None, "rollout": 2}))
        await until(device.ends)

    device.during(work)
    assert device.store.path(large.digest).read_bytes() == large.data


def test_the_bound_on_its_own_link_is_kept(device: Device, repository: Repository, source: Source) -> None:
    desired = wanted(repository, device, source.release(), limit_rate=1 * MIB)

    async def work() -> None:
        began = asyncio.get_running_loop().time()
        device.puller.want(desired)
        await until(lambda: device.store.has(source.digest))
        assert 1.2 < asyncio.get_running_loop().time() - began < 6

    device.during(work)


def test_wrong_bytes_are_never_kept_and_are_not_asked_for_for_ever(
    device: Device, hub: HubProcess, repository: Repository, source: Source
) -> None:
    desired = wanted(repository, device, source.release())
    assert hub.process is not None

    async def work() -> None:
        # The hub has checked the file once; then the disk changes a byte of it, and nothing of its looks.
        await asyncio.to_thread(_fetch_once, hub, device.token, source)
        rotten = bytearray(source.data)
        rotten[1000] ^= 4
        source.path.write_bytes(rotten)
        os.utime(source.path, (1, 1))
        device.puller.want(desired)
        await until(device.ends)
        # Offered again it is left alone, also by the next start of the agent.
        device.puller.want(None)
        device.puller.want(desired)
        again = device.made()
        again.want(desired)
        assert again.has().over == 1
        await asyncio.sleep(0.3)

    device.during(work)
    (end,) = device.ends()
    assert (end.outcome, end.state) == (Outcome.FAILED_UNCHANGED, ActivationState.STAGING)
    assert "what had arrived is deleted" in str(end.detail)
    assert hub.log.read_text().count(f"{device.name} fetches") == 1 + 3
    assert not device.store.has(source.digest)
    assert device.store.offset(source.digest) == 0
    assert device.spawned == 0


def _fetch_once(hub: HubProcess, token: str, source: Source) -> None:
    from tests.edgectl.hub.test_files import get

    assert get(hub, token, source.digest)[1] == source.data


def test_a_file_that_the_hub_has_not_right_is_waited_for(
    device: Device, repository: Repository, source: Source
) -> None:
    source.path.write_bytes(b"something else entirely")
    desired = wanted(repository, device, source.release())

    async def work() -> None:
        device.puller.want(desired)
        await until(lambda: "missing, damaged or changed" in str(device.puller.status))

    device.during(work)
    assert device.ends() == []
    assert device.puller.has().over is None


def test_what_does_not_fit_on_the_disk_is_refused_after_some_tries(
    device: Device, repository: Repository, source: Source
) -> None:
    release = source.release()
    (model,) = release.models
    (file,) = model.artifact.files
    huge = model.artifact.model_copy(update={"files": (file.model_copy(update={"size": 2**60}),)})
    desired = wanted(
        repository,
        device,
        release.model_copy(update={"models": (model.model_copy(update={"artifact": huge}),)}),
        prune=True,
    )

    async def work() -> None:
        device.puller.want(desired)
        await until(device.ends)

    device.during(work)
    (end,) = device.ends()
    assert (end.outcome, end.release) == (Outcome.REFUSED, desired.release.digest())
    assert "are free at" in str(end.detail)
    assert device.puller.has().over == 1
    assert PullMemory(device.folder / "pull.json").of(1, desired.release.digest()).failures == 2


def test_a_quarantined_release_is_refused_at_once_and_taken_when_it_is_to_be_retried(
    device: Device, repository: Repository, source: Source
) -> None:
    desired = wanted(repository, device, source.release())
    barred = desired.release.digest()
    operation = device.journal.begin(barred, desired.release.number)
    device.journal.advance(operation.id, ActivationState.REVERTED, outcome=Outcome.REVERTED)
    assert device.puller.has().quarantine == (barred,)

    async def work() -> None:
        device.puller.want(desired)
        await until(device.ends)
        assert device.store.offset(source.digest) == 0
        device.puller.want(wanted(repository, device, source.release(), rollout=2, retry=True))
        await until(lambda: len(device.ends()) == 3)

    device.during(work)
    refused, _reverted_before, reverted = sorted(
        device.ends(), key=lambda end: end.outcome != Outcome.REFUSED
    )
    assert (refused.outcome, refused.operation) == (Outcome.REFUSED, operation.id)
    assert "is quarantined" in str(refused.detail)
    assert reverted.outcome is Outcome.REVERTED
    assert reverted.operation > operation.id


def test_a_refused_token_is_waited_out(
    device: Device, repository: Repository, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    desired = wanted(repository, device, source.release())
    good, device.token = device.token, "edgectl-dev_" + "x" * 43

    async def work() -> None:
        device.puller.want(desired)
        await until(lambda: "the hub refused this device" in str(device.puller.status))
        assert device.store.offset(source.digest) == 0
        device.token = good
        await until(lambda: device.store.has(source.digest))

    device.during(work)
    assert "edgectl-dev_" not in caplog.text


def test_what_it_cannot_read_is_said_and_nothing_is_done(device: Device) -> None:
    device.puller.want({"rollout": 12, "release": {"hologram": True}})
    assert device.puller.has().unread == 12
    device.puller.want(None)
    assert device.puller.has().unread is None
    device.puller.want({"rollout": "twelve"})
    assert device.puller.has().unread is None


def test_nothing_is_begun_while_somebody_pushes(
    device: Device, repository: Repository, source: Source, tmp_path: Path
) -> None:
    desired = wanted(repository, device, source.release())
    other = Source(tmp_path, "other.gguf", 1000)
    pushed = other.release().model_copy(update={"number": 7})

    async def work() -> None:
        device.activator.stage(pushed, retry=False)
        partial = device.store.open_partial(other.digest, 1000, 0)
        device.puller.want(desired)
        await until(lambda: "somebody else brings a release" in str(device.puller.status))
        # Longer than it is quiet after a push: the file is still on its way.
        await asyncio.sleep(0.8)
        latest = device.journal.latest()
        assert latest is not None
        assert latest.number == 7
        assert device.store.offset(source.digest) == 0
        # Whoever pushed has gone without an end.
        partial.close()
        await until(lambda: device.store.has(source.digest))

    device.during(work)
    assert device.ends()[0].outcome is Outcome.SUPERSEDED


# -- what it remembers -----------------------------------------------------------------------------------


def test_it_remembers_the_latest_only(tmp_path: Path) -> None:
    path = tmp_path / "pull.json"
    memory = PullMemory(path)
    assert memory.of(1, digest("a")) == Tries(1, digest("a"))
    assert memory.last_over is None
    memory.keep(Tries(1, digest("a"), failures=2))
    assert PullMemory(path).of(1, digest("a")).failures == 2
    assert PullMemory(path).last_over is None
    memory.keep(Tries(2, digest("a"), over=True))
    again = PullMemory(path)
    assert (again.last_over, again.of(2, digest("a")).over) == (2, True)
    assert again.of(1, digest("a")) == Tries(1, digest("a"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rollout": "x"}', "\x00\xff"])
def test_a_memory_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pull.json"
    path.write_text(text)
    assert PullMemory(path).of(1, digest("a")) == Tries(1, digest("a"))
