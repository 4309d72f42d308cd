"""Turns: as many as the worker computes at once, a bounded number waiting, and nobody for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.admission import Admission, waiting_limit
from agent_daemon.gateway.errors import ApiError
from agent_daemon.serving import Serving
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Load
from agent_daemon.worker_process import WorkerProcess
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


def run(
    scenario: Callable[[Admission, Serving, Supervisor], Awaitable[None]],
    spawn: Callable[[ServedModel], Awaitable[WorkerProcess]] = never,
    *,
    serve: DeviceRelease | None = RELEASE,
    patience: float = 60,
) -> None:
    async def whole() -> None:
        serving, supervisor = Serving(), Supervisor(spawn, lambda _event: None)
        if serve:
            await serving.switch(serve)
            supervisor.start(serve.models, restart=False)
        try:
            await scenario(Admission(serving, supervisor, patience), serving, supervisor)
        finally:
            await supervisor.close()

    asyncio.run(whole())


async def refusal(admission: Admission, name: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with admission.ticket(name):
            raise AssertionError("was let in")
    return caught.value


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


def test_the_thirteenth_that_would_wait_is_told_when_to_come_again() -> None:
    async def scenario(admission: Admission, _serving: Serving, _supervisor: Supervisor) -> None:
        waiting = [asyncio.create_task(refusal(admission, "chat")) for _ in range(12)]
        await asyncio.sleep(0)
        error = await refusal(admission, "chat")
        assert (error.status, error.retry_after, error.body["error"]["type"]) == (429, 4, "rate_limit_error")
        for task in waiting[:4]:
            task.cancel()
        await asyncio.gather(*waiting[:4], return_exceptions=True)
        # Who gave up makes room.
        others = [asyncio.create_task(refusal(admission, "chat")) for _ in range(4)]
        await asyncio.sleep(0)
        assert (await refusal(admission, "chat")).status == 429
        for task in (*waiting[4:], *others):
            task.cancel()
        await asyncio.gather(*waiting[4:], *others, return_exceptions=True)

    run(scenario)


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
def test_turns_are_given_one_by_one_and_follow_the_release_to_its_new_worker(tmp_path: Path) -> None:
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
        released = asyncio.Event()
        order: list[tuple[str, int]] = []

        async def use(name: str) -> None:
            async with admission.ticket("m") as ticket:
                order.append((name, ticket.route.number))
                (status,) = [
                    each for each in supervisor.status() if each.engine_key == ticket.route.engine_key
                ]
                assert status.active_requests == 1
                await released.wait()
                ticket.tokens_per_second = 40.0

        first = asyncio.create_task(use("first"))
        while not order:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(use("second"))
        await asyncio.sleep(0.05)
        assert order == [("first", 1)]
        supervisor.start(new.models, restart=False)
        await supervisor.wait_ready(new.models[0].engine_key())
        await serving.switch(new)
        released.set()
        await first
        (status,) = [each for each in supervisor.status() if each.engine_key == old.models[0].engine_key()]
        assert (status.active_requests, status.tokens_per_second) == (0, 40.0)
        await second
        assert order == [("first", 1), ("second", 2)]

    run(scenario, spawn, serve=old)
