"""A bounded number of requests inside, each with the worker of its release, and nobody waiting for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import Adapter, DeviceRelease, Limits, Residency, ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.admission import Admission, Ticket, bound, retry_after, waiting_limit
from agent_daemon.gateway.errors import ApiError
from agent_daemon.residency import Residents
from agent_daemon.room import FreeMemory
from agent_daemon.serving import Serving
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Choosing, Done, Generate, Load
from agent_daemon.worker_process import WorkerProcess
from tests.support.idle_worker import spawn_idle
from tests.support.inventory_messages import device_release
from tests.support.models import quickstart_model
from tests.support.releases import release, served

RELEASE = device_release()
KEY = RELEASE.models[0].engine_key()


async def never(_model: ServedModel) -> WorkerProcess:
    await asyncio.Event().wait()
    raise AssertionError


async def broken(_model: ServedModel) -> WorkerProcess:
    raise WorkerFailure("llama.cpp gave no reason")


def limited(parallel: int = 1, **limits: Any) -> DeviceRelease:
    """The release with another number of sequences, and with limits of its own."""
    (model,) = RELEASE.models
    placement = model.placement.model_copy(update={"parallel": parallel})
    model = model.model_copy(update={"placement": placement, "limits": Limits(**limits)})
    return RELEASE.model_copy(update={"models": (model,)})


async def idle(_model: ServedModel) -> WorkerProcess:
    return await spawn_idle(1 << 20)


def run(
    scenario: Callable[[Admission, Serving, Supervisor], Awaitable[None]],
    spawn: Callable[[ServedModel], Awaitable[WorkerProcess]] = never,
    *,
    serve: DeviceRelease | None = RELEASE,
    patience: float = 60,
) -> None:
    async def whole() -> None:
        serving, supervisor = Serving(), Supervisor(spawn, lambda _event: None)
        residents = Residents(supervisor, lambda: FreeMemory(2**40, {}))
        if serve:
            await serving.switch(serve)
            supervisor.start(serve.models, restart=False)
        try:
            await scenario(Admission(serving, supervisor, residents, patience), serving, supervisor)
        finally:
            await residents.close()
            await supervisor.close()

    asyncio.run(whole())


async def refusal(admission: Admission, name: str, key: str = "") -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with admission.ticket(name, key):
            raise AssertionError("was let in")
    return caught.value


class Holder:
    """Requests that hold their tickets until they are told to end."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._tasks: list[asyncio.Task[None]] = []
        self.inside: list[Ticket] = []

    async def ask(self, name: str, key: str = "", *, times: int = 1) -> None:
        """Returns once they all have got in."""
        wanted = len(self.inside) + times
        self._tasks += [asyncio.create_task(self._hold(name, key)) for _ in range(times)]
        while len(self.inside) < wanted:
            await asyncio.sleep(0.001)
            assert not any(task.done() for task in self._tasks)

    async def _hold(self, name: str, key: str) -> None:
        async with self._admission.ticket(name, key) as ticket:
            self.inside.append(ticket)
            await asyncio.Event().wait()

    async def leave(self, count: int) -> None:
        """As many clients hang up, the first to come first."""
        gone, self._tasks = self._tasks[:count], self._tasks[count:]
        del self.inside[:count]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)


def test_more_may_wait_where_more_is_computed_at_once() -> None:
    assert [waiting_limit(parallel) for parallel in (1, 2, 8)] == [12, 16, 40]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    async def scenario(admission: Admission, serving: Serving, _: Supervisor) -> None:
        error = await refusal(admission, "other")
        assert (error.status, str(error)) == (
            404,
            "this device serves no model named 'other'; it serves chat",
        )
        await serving.switch(None)
        error = await refusal(admission, "chat")
        assert str(error).endswith("it serves no model yet")

    run(scenario)


def test_whoever_waits_longer_than_patience_is_sent_away_and_leaves_no_trace() -> None:
    async def scenario(admission: Admission, _serving: Serving, supervisor: Supervisor) -> None:
        for _ in range(3):
            error = await refusal(admission, "chat")
            assert (error.status, error.retry_after) == (503, 2)
            assert "no worker was ready within 0.05 s" in str(error)
        assert [status.active_requests for status in supervisor.status()] == [0]

    run(scenario, patience=0.05)


def test_a_worker_that_stays_down_is_said_at_once() -> None:
    async def scenario(admission: Admission, _serving: Serving, _supervisor: Supervisor) -> None:
        error = await refusal(admission, "chat")
        assert (error.status, error.body["error"]["code"]) == (503, "model_unavailable")
        assert "its worker is not running" in str(error)

    run(scenario, broken)


def test_a_worker_gets_more_requests_than_it_computes_and_the_fourteenth_is_told_when_to_come_again() -> None:
    async def scenario(admission: Admission, _serving: Serving, supervisor: Supervisor) -> None:
        holder = Holder(admission)
        await holder.ask("chat", times=13)
        assert [status.active_requests for status in supervisor.status()] == [13]
        error = await refusal(admission, "chat")
        assert (error.status, error.retry_after, error.body["error"]["type"]) == (429, 4, "rate_limit_error")
        assert str(error) == "chat is busy and 12 requests wait already; try again in a moment"
        await holder.leave(2)
        assert [status.active_requests for status in supervisor.status()] == [11]
        await holder.ask("chat", times=2)
        assert (await refusal(admission, "chat")).status == 429
        await holder.leave(13)
        assert [status.active_requests for status in supervisor.status()] == [0]

    run(scenario, idle)


def test_who_waits_for_a_worker_that_is_not_there_yet_is_counted_and_makes_room_by_leaving() -> None:
    async def scenario(admission: Admission, _serving: Serving, _supervisor: Supervisor) -> None:
        waiting = [asyncio.create_task(refusal(admission, "chat")) for _ in range(3)]
        await asyncio.sleep(0)
        assert (await refusal(admission, "chat")).status == 429
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        another = asyncio.create_task(refusal(admission, "chat"))
        await asyncio.sleep(0)
        assert not another.done()
        assert (await refusal(admission, "chat")).status == 429
        for task in (*waiting, another):
            task.cancel()
        await asyncio.gather(*waiting, another, return_exceptions=True)

    run(scenario, serve=limited(queue=2))


@pytest.mark.parametrize(
    ("parallel", "limits", "expected"),
    [(1, {}, 13), (2, {}, 18), (4, {"queue": 0}, 4), (1, {"queue": 100}, 101)],
)
def test_the_bound_is_what_runs_and_what_may_wait(parallel: int, limits: Any, expected: int) -> None:
    (model,) = limited(parallel, **limits).models
    assert bound(model) == expected


def test_an_api_key_has_its_own_bound_and_those_of_others_are_not_touched() -> None:
    async def scenario(admission: Admission, _serving: Serving, _supervisor: Supervisor) -> None:
        holder = Holder(admission)
        await holder.ask("chat", "alice", times=2)
        error = await refusal(admission, "chat", "alice")
        assert (error.status, error.body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert str(error) == (
            "this API key has 2 requests to chat inside already, and may have 2; try again in a moment"
        )
        await holder.ask("chat", "bob")
        # Where no key is needed nobody is anybody's neighbour.
        await holder.ask("chat", "", times=3)
        await holder.leave(1)
        await holder.ask("chat", "alice")
        assert (await refusal(admission, "chat", "alice")).status == 429

    run(scenario, idle, serve=limited(parallel=8, queue_per_key=2))


def test_adapters_share_the_bound_and_the_worker_of_their_model() -> None:
    (model,) = limited(queue=2).models
    adapters = tuple(Adapter(name=name, artifact=model.artifact) for name in ("legal", "brief"))
    wanted = RELEASE.model_copy(update={"models": (model.model_copy(update={"adapters": adapters}),)})

    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        assert serving.names() == ("chat", "chat:legal", "chat:brief")
        holder = Holder(admission)
        for name in serving.names():
            await holder.ask(name)
        assert [ticket.route.adapter for ticket in holder.inside] == [None, "legal", "brief"]
        assert len({ticket.process.pid for ticket in holder.inside}) == 1
        assert (await refusal(admission, "chat:legal")).status == 429
        error = await refusal(admission, "chat:other")
        assert str(error).endswith("it serves chat, chat:legal, chat:brief")
        assert [status.models for status in supervisor.status()] == [("chat",)]

    run(scenario, idle, serve=wanted)


@pytest.mark.parametrize(
    ("inside", "parallel", "durations", "expected"),
    [
        # Nothing is known yet: a quarter of a second for each that waits.
        (13, 1, (), 4),
        (2, 2, (), 1),
        # 12 of 13 wait, 13 leave in 26 s: half of the queue has gone in 12 s.
        (13, 1, (26.0,), 12),
        (13, 1, (20.0, 32.0), 12),
        (20, 10, (8.0,), 2),
        (101, 1, (3000.0,), 120),
        (13, 1, (0.01,), 1),
        (1, 1, (50.0,), 1),
        (0, 4, (50.0,), 1),
    ],
)
def test_when_to_come_again_follows_from_how_long_the_last_requests_took(
    inside: int, parallel: int, durations: tuple[float, ...], expected: int
) -> None:
    assert retry_after(inside, parallel, durations) == expected


def test_a_model_that_cannot_be_loaded_says_why_and_when_it_is_tried_again() -> None:
    (model,) = RELEASE.models
    absent = model.model_copy(update={"residency": Residency(on_demand=True)})

    async def scenario(admission: Admission, _serving: Serving, supervisor: Supervisor) -> None:
        for _ in range(2):
            error = await refusal(admission, "chat")
            assert (error.status, error.retry_after) == (503, 1)
            assert str(error) == (
                "chat cannot answer at this moment: it could not be loaded: llama.cpp gave no reason"
            )
        assert [status.active_requests for status in supervisor.status()] == [0]

    run(scenario, broken, serve=RELEASE.model_copy(update={"models": (absent,)}))


def test_who_waits_in_vain_for_a_load_is_told_what_it_waited_for() -> None:
    (model,) = RELEASE.models
    absent = model.model_copy(update={"residency": Residency(on_demand=True)})

    async def scenario(admission: Admission, _serving: Serving, _supervisor: Supervisor) -> None:
        error = await refusal(admission, "chat")
        assert (error.status, error.retry_after) == (503, 2)
        assert str(error).endswith("no worker was ready within 0.3 s: it is being loaded")

    run(scenario, serve=RELEASE.model_copy(update={"models": (absent,)}), patience=0.3)


def test_a_request_that_meets_an_exchange_of_releases_waits_and_does_not_hold_it_up() -> None:
    new = RELEASE.model_copy(update={"number": 2})

    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        await supervisor.wait_ready(KEY)
        await serving.hold()
        holder = Holder(admission)
        asking = asyncio.create_task(holder.ask("chat"))
        await asyncio.sleep(0.02)
        assert (holder.inside, [each.active_requests for each in supervisor.status()]) == ([], [0])
        await serving.switch(new)
        await asking
        assert [ticket.route.number for ticket in holder.inside] == [2]

    run(scenario, idle)


def test_a_model_that_leaves_the_release_while_a_request_waits_is_unknown_to_it() -> None:
    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        await serving.hold()
        waiting = asyncio.create_task(refusal(admission, "chat"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await serving.switch(device_release(model="other"))
        assert (await waiting).status == 404

    run(scenario)


@pytest.mark.engine
def test_requests_follow_the_release_to_its_new_worker_and_those_that_run_finish_on_the_old(
    tmp_path: Path,
) -> None:
    path = quickstart_model()
    old, new = release(served("m", path, context=256)), release(served("m", path, context=512), number=2)

    async def spawn(model: ServedModel) -> WorkerProcess:
        placement = model.placement
        load = Load(
            path=str(path),
            task="chat",
            context=placement.context,
            parallel=placement.parallel,
            kv_type="f16",
            gpu_layers=0,
            threads=1,
        )
        return await WorkerProcess.spawn(load, tmp_path / "log", {})

    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        old_key, new_key = (each.models[0].engine_key() for each in (old, new))
        async with admission.ticket("m") as first:
            supervisor.start(new.models, restart=False)
            await supervisor.wait_ready(new_key)
            await serving.switch(new)
            draining = asyncio.create_task(supervisor.stop([old_key], drain=60))
            async with admission.ticket("m") as second:
                assert (first.route.number, second.route.number) == (1, 2)
                assert second.process.pid != first.process.pid
            assert not draining.done()
            request = Generate(id=0, prompt="1 2 3", max_tokens=4, sampling=Choosing(temperature=0))
            last = [event async for event in first.process.generate(request)][-1]
            assert isinstance(last, Done)
        await draining
        assert supervisor.keys() == {new_key}

    run(scenario, spawn, serve=old)


def test_while_releases_are_exchanged_requests_wait_beyond_the_bounds_and_beyond_patience() -> None:
    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        await supervisor.wait_ready(KEY)
        await serving.hold()
        many = 3 * bound(RELEASE.models[0])
        waiting = [asyncio.create_task(_ask(admission)) for _ in range(many)]
        # Twice as long as a worker that restarts may take.
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        await serving.switch(RELEASE)
        assert await asyncio.gather(*waiting) == [RELEASE.digest()] * many

    run(scenario, idle, patience=0.1)


async def _ask(admission: Admission) -> str:
    async with admission.ticket("chat") as ticket:
        return ticket.route.release


def test_what_waited_for_an_exchange_takes_nobody_s_place_afterwards() -> None:
    async def scenario(admission: Admission, serving: Serving, supervisor: Supervisor) -> None:
        await supervisor.wait_ready(KEY)
        await serving.hold()
        held, most = Holder(admission), bound(RELEASE.models[0])
        waiting = asyncio.create_task(held.ask("chat", times=most))
        await asyncio.sleep(0.01)
        await serving.switch(RELEASE)
        await waiting
        after = Holder(admission)
        await after.ask("chat", times=most)
        assert (await refusal(admission, "chat")).status == 429
        await held.leave(most)
        await after.leave(most)

    run(scenario, idle)
