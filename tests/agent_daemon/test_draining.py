"""Workers that are to leave: they finish what they answer, may be wanted again, and end when their time is up."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent_daemon.contract.release import ServedModel
from agent_daemon.contract.wire import WorkerEvent, WorkerState
from agent_daemon.stale import reads_deleted
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess
from tests.support.idle_worker import spawn_idle
from tests.support.inventory_messages import device_release

(MODEL,) = device_release().models
KEY = MODEL.engine_key()


def run(scenario: Callable[[Supervisor, list[WorkerEvent]], Awaitable[None]]) -> None:
    async def spawn(_model: ServedModel) -> WorkerProcess:
        return await spawn_idle(1 << 20)

    async def whole() -> None:
        told: list[WorkerEvent] = []
        supervisor = Supervisor(spawn, told.append)
        supervisor.start((MODEL,), restart=True)
        await supervisor.wait_ready(KEY)
        try:
            await scenario(supervisor, told)
        finally:
            await supervisor.close()
        assert supervisor.keys() == frozenset()

    asyncio.run(asyncio.wait_for(whole(), 60))


def state(supervisor: Supervisor) -> WorkerState:
    return supervisor.seated(KEY).state


def test_one_that_is_wanted_again_before_it_has_left_stays_the_same_process() -> None:
    async def scenario(supervisor: Supervisor, _told: list[WorkerEvent]) -> None:
        pid = supervisor.pids()[KEY]
        supervisor.begin_request(KEY)
        leaving = asyncio.create_task(supervisor.stop((KEY,), drain=60))
        await asyncio.sleep(0.01)
        assert state(supervisor) is WorkerState.DRAINING
        supervisor.start((MODEL,), restart=True)
        await asyncio.wait_for(leaving, 5)
        supervisor.end_request(KEY, None)
        assert (state(supervisor), supervisor.pids()[KEY]) == (WorkerState.READY, pid)

    run(scenario)


def test_a_second_stop_waits_for_the_answers_too_and_both_return_when_it_is_gone() -> None:
    async def scenario(supervisor: Supervisor, told: list[WorkerEvent]) -> None:
        supervisor.begin_request(KEY)
        stops = [asyncio.create_task(supervisor.stop((KEY,), drain=60)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(stop.done() for stop in stops)
        supervisor.end_request(KEY, None)
        await asyncio.gather(*stops)
        assert supervisor.keys() == frozenset()
        assert [event.what for event in told].count("stopped") == 1

    run(scenario)


def test_one_that_is_ended_while_somebody_waits_for_it_ends_for_both() -> None:
    async def scenario(supervisor: Supervisor, _told: list[WorkerEvent]) -> None:
        supervisor.begin_request(KEY)
        patient = asyncio.create_task(supervisor.stop((KEY,), drain=60))
        await asyncio.sleep(0.01)
        await supervisor.stop((KEY,), drain=0)
        await asyncio.wait_for(patient, 5)
        assert supervisor.keys() == frozenset()

    run(scenario)


def test_a_stop_that_is_cancelled_can_be_made_again() -> None:
    async def scenario(supervisor: Supervisor, _told: list[WorkerEvent]) -> None:
        for pause in (0, 0.01):
            stop = asyncio.create_task(supervisor.stop((KEY,), drain=60))
            await asyncio.sleep(pause)
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)
        await supervisor.stop((KEY,), drain=60)
        assert supervisor.keys() == frozenset()

    run(scenario)


def test_a_retired_worker_keeps_its_place_and_comes_back_as_another_process() -> None:
    async def scenario(supervisor: Supervisor, _told: list[WorkerEvent]) -> None:
        pid = supervisor.pids()[KEY]
        supervisor.begin_request(KEY)
        retiring = asyncio.create_task(supervisor.retire(KEY, drain=60))
        await asyncio.sleep(0.05)
        assert not retiring.done()
        supervisor.end_request(KEY, None)
        await retiring
        assert state(supervisor) is WorkerState.UNLOADED
        supervisor.load(KEY)
        await supervisor.wait_ready(KEY)
        assert supervisor.pids()[KEY] != pid

    run(scenario)


def test_a_process_that_maps_a_file_which_was_given_up_is_stale(tmp_path: Path) -> None:
    store, proc = tmp_path / "store", tmp_path / "proc"
    (proc / "7").mkdir(parents=True)
    line = "7f0000000000-7f0000001000 r--s 00000000 08:01 42"

    def stale(*paths: str) -> bool:
        (proc / "7" / "maps").write_text("".join(f"{line}                 {path}\n" for path in ("", *paths)))
        return reads_deleted(7, store, proc)

    assert not stale(f"{store}/blobs/aa/aabb", "/usr/lib/libc.so (deleted)", f"{store}x/blobs/aa (deleted)")
    assert stale(f"{store}/blobs/aa/aabb (deleted)")
    assert stale(f"{store}/going/aabb.17")
    assert not reads_deleted(8, store, proc)
