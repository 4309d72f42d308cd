"""The activator on this device: real journal, store and supervisor, real workers with a real model."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.activator import Activator
from agent_daemon.contract.release import DeviceRelease, Probe, Residency, ServedModel, Strategy
from agent_daemon.contract.sizes import format_size
from agent_daemon.contract.wire import ActivationEvent, Outcome, WorkerEvent, WorkerState
from agent_daemon.contract.wire import ActivationState as S
from agent_daemon.errors import (
    BlobsMissing,
    Conflict,
    JournalUnwritable,
    NotFound,
    QuarantinedRelease,
    WorkerFailure,
)
from agent_daemon.journal import Journal
from agent_daemon.preflight import Unmeasurable
from agent_daemon.residency import Residents
from agent_daemon.room import FreeMemory, Need
from agent_daemon.serving import Serving
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Load
from agent_daemon.worker_process import WorkerProcess
from tests.support.inventory_messages import device_release, digest
from tests.support.models import quickstart_model, refused_by_llama
from tests.support.releases import MIB, artifact, predicted, release, served

PLENTY = FreeMemory(ram=2**40, vram={})
NOTHING = FreeMemory(ram=0, vram={})


class Device:
    """The parts of one device over a folder; `free` is what it says that it has."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self.free = PLENTY
        self.ram: int | None = None
        """Bytes for models on this device; None: `free` is all there is to know."""
        self.takes: dict[str, Need | Exception] = {}
        """What a measurement before the activation finds, by engine key; of others, nothing can be said."""
        self.published = 0
        self.journal = Journal(folder / "journal.db")
        self.store = store
        self.serving = Serving()
        self.told: list[WorkerEvent] = []
        self.supervisor = Supervisor(self._spawn, self.told.append)
        self.residents = Residents(self.supervisor, self._free)
        self.activator = self.made()

    def made(self) -> Activator:
        """An activator, as a start of the agent makes it."""
        return Activator(
            *(self.journal, self.store, self.supervisor, self.residents, self.serving),
            *(self._free, self._publish, self._measure),
        )

    def _free(self) -> FreeMemory:
        if self.ram is None:
            return self.free
        return FreeMemory(self.ram - sum(each.ram_bytes or 0 for each in self.supervisor.status()), {})

    async def _measure(self, model: ServedModel) -> Need:
        found = self.takes.get(model.engine_key(), Unmeasurable("nobody can say"))
        if isinstance(found, Exception):
            raise found
        return found

    def _publish(self) -> None:
        self.published += 1

    async def _spawn(self, model: ServedModel) -> WorkerProcess:
        placement = model.placement
        load = Load(
            path=str(self.store.model_path(model.artifact)),
            task=model.task,
            context=placement.context,
            parallel=placement.parallel,
            kv_type=placement.kv_type,
            gpu_layers=0,
            threads=1,
        )
        return await WorkerProcess.spawn(load, self._folder / "worker.log", {})

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                await scenario()
            finally:
                await self.activator.close()
                await self.residents.close()
                await self.supervisor.close()

        asyncio.run(whole())

    async def deploy(self, wanted: DeviceRelease, *, retry: bool = False) -> list[ActivationEvent]:
        """The events of an activation from begin to end."""
        self.activator.stage(wanted, retry)
        operation = self.activator.activate(wanted.digest(), retry).id
        while not self.activator.settled(operation):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        return [event for _, event in self.journal.events(operation, 0)]

    def pids(self) -> dict[str, int | None]:
        return {name: status.pid for status in self.supervisor.status() for name in status.models}

    def close(self) -> None:
        self.journal.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Holds the quickstart model and one that llama.cpp refuses."""
    store = Store(tmp_path_factory.mktemp("store"))
    for path in (quickstart_model(), refused_by_llama(tmp_path_factory.mktemp("refused"))):
        (blob,) = artifact(path).files
        with store.open_partial(blob.digest, blob.size, 0) as partial:
            partial.write(path.read_bytes())
            partial.finish()
    return store


@pytest.fixture
def device(tmp_path: Path, store: Store) -> Iterator[Device]:
    device = Device(tmp_path, store)
    yield device
    device.close()


@pytest.fixture
def broken(tmp_path: Path) -> DeviceRelease:
    return release(served("assistant", refused_by_llama(tmp_path)), number=2)


GOOD = release(served("assistant", quickstart_model(), context=256), number=1)
ABSENT = device_release(number=7)


# -- what is refused before anything happens -------------------------------------------------------------


def test_staging_says_what_is_missing_and_how_much_of_it_is_there(device: Device) -> None:
    (file,) = ABSENT.blobs()
    staged = device.activator.stage(ABSENT, False)
    assert [(blob.digest, blob.size, blob.offset) for blob in staged.missing] == [(file.digest, 100, 0)]
    assert staged.operation is not None
    assert (staged.operation.state, staged.operation.number) == (S.STAGING, 7)
    with device.store.open_partial(file.digest, 100, 0) as partial:
        partial.write(b"x" * 40)
    again = device.activator.stage(ABSENT, False)
    assert again.operation == staged.operation
    assert again.missing[0].offset == 40
    assert device.activator.held() == ()
    with pytest.raises(BlobsMissing, match="r7 cannot be activated: 1 of 1 files are missing"):
        device.activator.activate(ABSENT.digest(), False)
    assert device.published == 1


def test_a_release_that_was_never_staged_is_not_found(device: Device) -> None:
    with pytest.raises(NotFound):
        device.activator.activate(digest("f"), False)
    assert device.journal.latest() is None


def test_another_release_supersedes_one_that_was_only_staged(device: Device) -> None:
    first = device.activator.stage(ABSENT, False).operation
    second = device.activator.stage(GOOD, False).operation
    assert first is not None
    assert second is not None
    assert second.id > first.id
    (_, last) = device.journal.events(first.id, 0)[-1]
    assert (last.outcome, last.detail) == (Outcome.SUPERSEDED, "another release came first")
    assert device.activator.settled(first.id)
    assert not device.activator.settled(second.id)
    assert device.activator.held() == (GOOD.digest(),)


@pytest.mark.parametrize("state", [S.ACTIVATING, S.PROBING, S.REVERTING])
def test_a_device_does_one_thing_at_a_time(device: Device, state: S) -> None:
    operation = device.activator.stage(ABSENT, False).operation
    assert operation is not None
    device.journal.advance(operation.id, state)
    for attempt in (
        device.activator.stage,
        lambda wanted, retry: device.activator.activate(wanted.digest(), retry),
    ):
        with pytest.raises(Conflict, match=f"this device is {state} r7"):
            attempt(GOOD, False)


def test_a_quarantined_release_is_refused_with_its_reason_until_a_person_says_retry(device: Device) -> None:
    operation = device.activator.stage(ABSENT, False).operation
    assert operation is not None
    device.journal.advance(operation.id, S.REVERTED, reason="it answered nothing")
    for attempt in (
        device.activator.stage,
        lambda wanted, retry: device.activator.activate(wanted.digest(), retry),
    ):
        with pytest.raises(QuarantinedRelease, match=r"r7 was reverted .* quarantined: it answered nothing"):
            attempt(ABSENT, False)
    assert device.activator.stage(ABSENT, True).missing
    # Staging moves bytes only: nothing is forgiven before it is tried again.
    assert [barred.release for barred in device.journal.quarantined()] == [ABSENT.digest()]
    with pytest.raises(BlobsMissing):
        device.activator.activate(ABSENT.digest(), True)


# -- what happens ----------------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_release_is_served_a_bad_one_reverts_and_a_client_would_not_have_noticed(
    device: Device, broken: DeviceRelease
) -> None:
    async def scenario() -> None:
        events = await device.deploy(GOOD)
        assert [event.state for event in events if not event.detail] == [
            S.STAGED,
            S.ACTIVATING,
            S.PROBING,
            S.COMMITTED,
        ]
        assert events[-1].outcome is Outcome.SUCCEEDED
        assert device.journal.active() == GOOD.digest()
        assert device.serving.names() == ("assistant",)
        before = device.pids()
        staged = device.activator.stage(GOOD, False)
        assert (staged.operation, staged.missing) == (None, ())

        events = await device.deploy(broken)
        assert [event.state for event in events if event.outcome] == [S.REVERTED]
        assert events[-1].outcome is Outcome.REVERTED
        assert events[-1].detail is not None
        assert events[-1].detail.startswith("assistant could not be loaded: ")
        assert "strategy: handover" in [event.detail for event in events]
        assert device.journal.active() == GOOD.digest()
        assert device.pids() == before
        route = device.serving.find("assistant")
        assert route is not None
        assert (route.release, route.number) == (GOOD.digest(), 1)
        with pytest.raises(QuarantinedRelease):
            device.activator.stage(broken, False)
        # The old one can be asked for by name without moving a byte.
        assert GOOD.digest() in device.activator.held()
        events = await device.deploy(broken, retry=True)
        assert events[-1].outcome is Outcome.REVERTED

    device.run(scenario)


@pytest.mark.engine
def test_where_both_do_not_fit_the_old_one_ends_before_the_new_one_begins(device: Device) -> None:
    larger = release(served("assistant", quickstart_model(), context=512), number=2)
    device.ram = larger.models[0].placement.predicted.total

    async def scenario() -> None:
        await device.deploy(GOOD)
        events = await device.deploy(larger)
        assert events[-1].outcome is Outcome.SUCCEEDED
        details = [event.detail for event in events]
        assert "strategy: replace" in details
        assert "not enough memory for both releases: requests wait while they are exchanged" in details
        assert device.supervisor.keys() == {larger.models[0].engine_key()}
        assert await device.serving.route("assistant") == device.serving.find("assistant")

    device.run(scenario)


@pytest.mark.engine
def test_a_release_that_only_changes_words_keeps_its_worker(device: Device) -> None:
    words = release(
        served("assistant", quickstart_model(), context=256, system_prompt="Be brief."),
        served("second-name", quickstart_model(), context=256),
        number=2,
    )

    async def scenario() -> None:
        await device.deploy(GOOD)
        (pid,) = device.pids().values()
        device.free = NOTHING
        assert (await device.deploy(words))[-1].outcome is Outcome.SUCCEEDED
        assert device.pids() == {"assistant": pid, "second-name": pid}
        route = device.serving.find("assistant")
        assert route is not None
        assert route.model.system_prompt == "Be brief."

    device.run(scenario)


@pytest.mark.engine
def test_a_model_too_slow_for_its_manifest_reverts_when_time_is_up(device: Device) -> None:
    probe = Probe(min_healthy=0, timeout=1.5, min_tokens_per_second=100_000)

    async def scenario() -> None:
        events = await device.deploy(GOOD.model_copy(update={"probe": probe}))
        assert events[-1].outcome is Outcome.REVERTED
        assert events[-1].detail is not None
        assert events[-1].detail.startswith("probe failed: not healthy within 1.5 s")
        # Nothing was served before, so nothing is the state to go back to.
        assert (device.journal.active(), device.serving.names(), device.pids()) == (None, (), {})

    device.run(scenario)


@pytest.mark.engine
@pytest.mark.parametrize("state", [S.ACTIVATING, S.PROBING, S.REVERTING])
def test_after_a_restart_what_was_half_done_is_reverted_and_the_old_one_answers(
    device: Device, broken: DeviceRelease, state: S
) -> None:
    old = device.journal.begin(device.journal.keep_release(GOOD), 1)
    device.journal.advance(old.id, S.COMMITTED)
    half = device.journal.begin(device.journal.keep_release(broken), 2)
    known = "the probe failed" if state is S.REVERTING else None
    device.journal.advance(half.id, state, reason=known)

    async def scenario() -> None:
        await device.activator.recover()
        assert device.serving.names() == ("assistant",)
        while not device.activator.settled(half.id):
            await asyncio.sleep(0.02)
        latest = device.journal.latest()
        assert latest is not None
        assert (latest.id, latest.state) == (half.id, S.REVERTED)
        assert latest.reason == (known or f"the agent was stopped while it was {state}")
        assert device.supervisor.process(GOOD.models[0].engine_key()) is not None
        assert [barred.number for barred in device.journal.quarantined()] == [2]

    device.run(scenario)


def test_after_a_restart_staging_waits_on_and_nothing_is_served(device: Device) -> None:
    operation = device.activator.stage(ABSENT, False).operation

    async def scenario() -> None:
        await device.activator.recover()
        await asyncio.sleep(0.05)
        assert device.journal.latest() == operation
        assert device.supervisor.keys() == frozenset()

    device.run(scenario)


# -- what is measured before anything changes -------------------------------------------------------------


def only(wanted: DeviceRelease) -> ServedModel:
    (model,) = wanted.models
    return model


@pytest.mark.engine
@pytest.mark.parametrize("strategy", [Strategy.HANDOVER, Strategy.REPLACE])
def test_a_release_that_takes_more_than_was_predicted_is_refused_and_nothing_changes(
    device: Device, strategy: Strategy
) -> None:
    larger = release(served("assistant", quickstart_model(), context=512), number=2, strategy=strategy)
    key, expected = only(larger).engine_key(), only(larger).placement.predicted.total
    device.takes[key] = Need(expected + 17 * MIB)

    async def scenario() -> None:
        await device.deploy(GOOD)
        before = device.pids()
        events = await device.deploy(larger)
        assert [(event.state, event.outcome) for event in events] == [
            (S.STAGED, None),
            (S.STAGED, Outcome.REFUSED),
        ]
        assert events[-1].detail == (
            f"assistant takes {format_size(expected + 17 * MIB)} of RAM by llama.cpp's own account, more than the "
            f"{format_size(expected)} that were predicted and their margin of 16.0 MiB"
        )
        assert (device.pids(), device.journal.active()) == (before, GOOD.digest())
        assert device.journal.quarantined() == ()
        # It may be asked for again, as an operation of its own, and nobody has to say --retry.
        device.takes[key] = Need(expected + 16 * MIB)
        again = await device.deploy(larger)
        assert again[-1].outcome is Outcome.SUCCEEDED, again[-1].detail
        assert again[-1].operation > events[-1].operation

    device.run(scenario)


@pytest.mark.engine
def test_memory_that_is_short_now_refuses_before_the_old_release_is_touched(device: Device) -> None:
    larger = release(served("assistant", quickstart_model(), context=512), number=2)
    wanted = only(larger).placement.predicted.total
    device.takes[only(larger).engine_key()] = Need(wanted)

    async def scenario() -> None:
        await device.deploy(GOOD)
        before = device.pids()
        held = sum(status.ram_bytes or 0 for status in device.supervisor.status())
        # Without the old release there is still a MiB too little.
        device.ram = wanted - MIB
        events = await device.deploy(larger)
        assert events[-1].outcome is Outcome.REFUSED
        detail = events[-1].detail or ""
        assert detail.startswith(f"r2 needs {format_size(wanted)} of RAM, and ")
        assert detail.endswith(f", {format_size(wanted - MIB)} without what it replaces")
        assert held > 2 * MIB
        assert (device.pids(), device.serving.names()) == (before, ("assistant",))
        device.ram = wanted
        events = await device.deploy(larger)
        assert events[-1].outcome is Outcome.SUCCEEDED, events[-1].detail
        assert "strategy: replace" in [event.detail for event in events]

    device.run(scenario)


@pytest.mark.engine
def test_under_handover_what_the_old_release_holds_does_not_count(device: Device) -> None:
    larger = release(
        served("assistant", quickstart_model(), context=512), number=2, strategy=Strategy.HANDOVER
    )
    device.ram = only(larger).placement.predicted.total

    async def scenario() -> None:
        await device.deploy(GOOD)
        events = await device.deploy(larger)
        assert events[-1].outcome is Outcome.REFUSED
        assert "without what it replaces" not in (events[-1].detail or "")

    device.run(scenario)


def test_a_file_that_llama_cpp_refuses_is_refused_with_its_reason(
    device: Device, broken: DeviceRelease
) -> None:
    device.takes[only(broken).engine_key()] = WorkerFailure("a tensor is missing")

    async def scenario() -> None:
        events = await device.deploy(broken)
        assert events[-1].outcome is Outcome.REFUSED
        assert events[-1].detail == "assistant cannot be loaded: a tensor is missing"
        assert device.told == []
        assert device.journal.quarantined() == ()
        # A restart finds it staged, and another release may take its place without a word about it.
        await device.activator.recover()
        await asyncio.sleep(0)
        latest = device.journal.latest()
        assert latest is not None
        assert latest.state is S.STAGED
        device.activator.stage(GOOD, False)
        outcomes = [event.outcome for _, event in device.journal.events(latest.id, 0) if event.outcome]
        assert outcomes == [Outcome.REFUSED]

    device.run(scenario)


@pytest.mark.engine
def test_what_cannot_be_measured_is_told_and_judged_as_predicted(device: Device) -> None:
    async def scenario() -> None:
        device.ram = only(GOOD).placement.predicted.total - 1
        assert (await device.deploy(GOOD))[-1].outcome is Outcome.REFUSED
        device.ram += 1
        events = await device.deploy(GOOD)
        assert events[-1].outcome is Outcome.SUCCEEDED
        assert "assistant could not be measured before loading: nobody can say" in [
            event.detail for event in events
        ]

    device.run(scenario)


def test_while_it_measures_the_device_is_busy_and_a_stop_leaves_it_staged(device: Device) -> None:
    asked = asyncio.Event()

    async def hang(_model: ServedModel) -> Need:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    device._measure = hang  # type: ignore[method-assign]

    async def scenario() -> None:
        device.activator = device.made()
        device.activator.stage(GOOD, False)
        operation = device.activator.activate(GOOD.digest(), False)
        await asked.wait()
        assert not device.activator.settled(operation.id)
        assert device.activator.activate(GOOD.digest(), False).id == operation.id
        with pytest.raises(Conflict, match="this device is measuring r1"):
            device.activator.stage(ABSENT, False)
        await device.activator.close()
        latest = device.journal.latest()
        assert latest is not None
        assert (latest.id, latest.state, latest.reason) == (operation.id, S.STAGED, None)

    device.run(scenario)


# -- models that do not fit together ---------------------------------------------------------------------

TWO_AT_ONCE = 2 * predicted(quickstart_model(), 1024).total
"""Room for two of these models."""
PINNED = Residency(pinned=True)
ON_DEMAND = Residency(on_demand=True)


def on_demand_release(*last: ServedModel, number: int = 1, **more: Any) -> DeviceRelease:
    """`first` is pinned, `second` and the others come and go."""
    return release(
        served("first", quickstart_model(), context=256, residency=PINNED),
        served("second", quickstart_model(), context=512, residency=ON_DEMAND),
        *last,
        number=number,
        **more,
    )


@pytest.mark.engine
def test_each_model_on_demand_is_probed_in_its_turn_beside_those_that_stay(device: Device) -> None:
    wanted = on_demand_release(served("third", quickstart_model(), context=768, residency=ON_DEMAND))
    device.ram = TWO_AT_ONCE

    async def scenario() -> None:
        events = await device.deploy(wanted)
        assert events[-1].outcome is Outcome.SUCCEEDED, events[-1].detail
        states = {name: status.state for status in device.supervisor.status() for name in status.models}
        assert states == {
            "first": WorkerState.READY,
            "second": WorkerState.UNLOADED,
            "third": WorkerState.READY,
        }
        told = [(event.what, event.model) for event in device.told if event.what in ("ready", "stopped")]
        assert told == [("ready", "first"), ("ready", "second"), ("stopped", "second"), ("ready", "third")]
        # What the probe needed in memory is free to go afterwards, and what is pinned is not.
        await device.residents.bring(wanted.models[1].engine_key())
        assert device.supervisor.process(wanted.models[2].engine_key()) is None
        assert device.supervisor.process(wanted.models[0].engine_key()) is not None

    device.run(scenario)


@pytest.mark.engine
def test_one_broken_model_on_demand_reverts_the_whole(device: Device, store: Store, tmp_path: Path) -> None:
    file = refused_by_llama(tmp_path)
    bad = on_demand_release(served("third", file, context=256, residency=ON_DEMAND), number=2)
    device.ram = TWO_AT_ONCE

    async def scenario() -> None:
        assert (await device.deploy(GOOD))[-1].outcome is Outcome.SUCCEEDED
        events = await device.deploy(bad)
        assert events[-1].outcome is Outcome.REVERTED
        assert events[-1].detail is not None
        assert events[-1].detail.startswith("probe failed: third could not be loaded: ")
        assert (device.serving.names(), set(device.pids())) == (("assistant",), {"assistant"})
        # Said again with --retry it is tried again, not refused by what is remembered.
        loads = [event.model for event in device.told].count("third")
        assert (await device.deploy(bad, retry=True))[-1].outcome is Outcome.REVERTED
        assert [event.model for event in device.told].count("third") == 2 * loads

    device.run(scenario)


@pytest.mark.engine
def test_an_idle_model_on_demand_makes_way_for_a_new_release_that_serves_it_too(device: Device) -> None:
    old = on_demand_release()
    larger = served("first", quickstart_model(), context=1024, residency=PINNED)
    new = release(larger, old.models[1], number=2)
    device.ram = TWO_AT_ONCE

    async def scenario() -> None:
        assert (await device.deploy(old))[-1].outcome is Outcome.SUCCEEDED
        assert len(device.supervisor.running()) == 2
        events = await device.deploy(new)
        assert events[-1].outcome is Outcome.SUCCEEDED, events[-1].detail
        assert "strategy: replace" in [event.detail for event in events]
        assert device.supervisor.keys() == {model.engine_key() for model in new.models}

    device.run(scenario)


@pytest.mark.engine
def test_after_a_restart_only_what_stays_is_loaded(device: Device) -> None:
    wanted = on_demand_release()
    done = device.journal.begin(device.journal.keep_release(wanted), 1)
    device.journal.advance(done.id, S.COMMITTED)

    async def scenario() -> None:
        await device.activator.recover()
        await device.supervisor.wait_ready(wanted.models[0].engine_key())
        assert device.supervisor.running() == {wanted.models[0].engine_key()}
        assert device.serving.names() == ("first", "second")
        await device.residents.bring(wanted.models[1].engine_key())
        assert len(device.supervisor.running()) == 2

    device.run(scenario)


@pytest.mark.engine
@pytest.mark.parametrize("strategy", [Strategy.HANDOVER, Strategy.REPLACE])
def test_a_journal_that_cannot_be_written_commits_nothing_and_the_old_release_answers(
    device: Device, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    larger = release(served("assistant", quickstart_model(), context=512), number=2, strategy=strategy)
    write, refused = Journal.advance, []

    def advance(journal: Journal, operation: int, state: S, **more: Any) -> Any:
        full = state is S.COMMITTED or (state in (S.REVERTING, S.REVERTED) and refused.count(state) < 2)
        if operation > 1 and full:
            refused.append(state)
            raise JournalUnwritable("the journal is full")
        return write(journal, operation, state, **more)

    async def scenario() -> None:
        await device.deploy(GOOD)
        monkeypatch.setattr(Journal, "advance", advance)
        monkeypatch.setattr("agent_daemon.activator._WRITE_AGAIN", 0.05)
        events = await device.deploy(larger)
        assert (events[-1].state, events[-1].outcome) == (S.REVERTED, Outcome.REVERTED)
        assert events[-1].detail == "the journal is full"
        assert refused == [S.COMMITTED, S.REVERTING, S.REVERTING, S.REVERTED, S.REVERTED]
        assert device.journal.active() == GOOD.digest()
        assert (device.serving.held, list(device.pids())) == (False, ["assistant"])

    device.run(scenario)


@pytest.mark.engine
def test_an_error_that_nobody_foresaw_goes_back_instead_of_leaving_requests_waiting(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = release(
        served("assistant", quickstart_model(), context=512), number=2, strategy=Strategy.REPLACE
    )

    async def scenario() -> None:
        await device.deploy(GOOD)
        with monkeypatch.context() as patch:
            patch.setattr(Residents, "keep", _surprise(Residents.keep))
            events = await device.deploy(larger)
        assert (events[-1].state, events[-1].outcome) == (S.REVERTED, Outcome.REVERTED)
        assert events[-1].detail == "an error that nobody foresaw: ZeroDivisionError: once"
        assert (device.serving.held, device.journal.active()) == (False, GOOD.digest())
        assert (await device.deploy(larger, retry=True))[-1].outcome is Outcome.SUCCEEDED

    device.run(scenario)


def _surprise(real: Callable[..., None]) -> Callable[..., None]:
    """Goes wrong once."""
    left = [ZeroDivisionError("once")]

    def keep(*arguments: Any) -> None:
        if left:
            raise left.pop()
        real(*arguments)

    return keep


@pytest.mark.engine
def test_a_start_goes_on_with_an_activation_that_was_being_measured_but_not_for_ever(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = release(served("assistant", quickstart_model(), context=512), number=2)

    async def scenario() -> None:
        await device.deploy(GOOD)
        device.activator.stage(larger, False)
        asked = asyncio.Event()

        async def measure(_activator: Activator, _operation: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(Activator, "_judge", measure)
            operation = device.activator.activate(larger.digest(), False).id
            for _ in range(3):
                await asyncio.wait_for(asked.wait(), 5)
                asked.clear()
                await device.activator.close()
                device.activator = device.made()
                await device.activator.recover()
            await asyncio.wait_for(asked.wait(), 5)
            await device.activator.close()
        device.activator = device.made()
        await device.activator.recover()
        await asyncio.sleep(0.05)
        latest = device.journal.latest()
        assert latest is not None
        assert (latest.id, latest.state, latest.reason) == (operation, S.STAGED, None)
        # Whoever asks again gets it.
        assert (await device.deploy(larger))[-1].outcome is Outcome.SUCCEEDED

    device.run(scenario)
