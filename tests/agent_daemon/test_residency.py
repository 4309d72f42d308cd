"""Models that do not fit together: each comes in when it is asked for, and nobody is thrown out of an answer."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from agent_daemon.contract.release import Placement, Predicted, Residency, ServedModel
from agent_daemon.contract.wire import WorkerEvent, WorkerState
from agent_daemon.errors import WorkerFailure
from agent_daemon.residency import NotLoaded, Residents
from agent_daemon.room import FreeMemory
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess
from tests.support.idle_worker import spawn_idle
from tests.support.inventory_messages import device_release

MIB = 1 << 20
NEVER = 3600.0
"""A grace that no test lives to see."""


def model(name: str, size: int, **residency: object) -> ServedModel:
    """A model on demand that takes `size` MiB of RAM; its context makes its engine its own."""
    placement = Placement(
        memory="ram",
        gpu_layers=0,
        layers=31,
        context=1 + sum(ord(letter) for letter in name),
        parallel=1,
        kv_type="f16",
        predicted=Predicted(weights=size * MIB, kv_cache=0, compute=0, total=size * MIB),
    )
    (base,) = device_release(model=name).models
    asked = Residency.model_validate({"on_demand": True, **residency})
    return base.model_copy(update={"placement": placement, "residency": asked})


class Machine:
    """A device with `ram` MiB for models, and what happened on it. `broken` models do not load. What ended workers
    held is given back only while `gives_back`."""

    def __init__(self, ram: int | None, *models: ServedModel, grace: float = NEVER) -> None:
        self._ram = ram
        self._models = {each.name: each for each in models}
        self.broken: set[str] = set()
        self.gives_back = True
        self._withheld = 0
        self.spawned: list[str] = []
        self.told: list[WorkerEvent] = []
        self.supervisor = Supervisor(self._spawn, self._tell)
        self.residents = Residents(self.supervisor, self._free, grace)

    def key(self, name: str) -> str:
        return self._models[name].engine_key()

    def state(self, name: str) -> WorkerState:
        return self.supervisor.seated(self.key(name)).state

    def loaded(self) -> set[str]:
        return {name for name in self._models if self.supervisor.process(self.key(name))}

    async def acquire(self, name: str) -> WorkerProcess:
        return await self.residents.acquire(self.key(name))

    def release(self, name: str) -> None:
        self.supervisor.end_request(self.key(name), None)

    def waits_for_memory(self, name: str) -> bool:
        return "waits for memory" in (self.residents.obstacle(self.key(name)) or "")

    async def use(self, name: str) -> None:
        """One request, answered at once."""
        await self.acquire(name)
        self.release(name)

    def _free(self) -> FreeMemory:
        if self._ram is None:
            return FreeMemory(None, {})
        taken = sum(status.ram_bytes or 0 for status in self.supervisor.status())
        return FreeMemory(self._ram * MIB - taken - self._withheld, {})

    async def _spawn(self, wanted: ServedModel) -> WorkerProcess:
        self.spawned.append(wanted.name)
        if wanted.name in self.broken:
            raise WorkerFailure("llama.cpp gave no reason")
        return await spawn_idle(wanted.placement.predicted.total)

    def _tell(self, event: WorkerEvent) -> None:
        self.told.append(event)
        if event.what == "stopped" and not self.gives_back:
            self._withheld += self._models[event.model].placement.predicted.total

    def give_back(self) -> None:
        self.gives_back, self._withheld = True, 0

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            self.supervisor.start(self._models.values(), restart=True)
            try:
                async with asyncio.timeout(60):
                    await scenario()
            finally:
                await self.residents.close()
                await self.supervisor.close()

        asyncio.run(whole())


async def settle(task: "asyncio.Task[object]", until: Callable[[], object]) -> None:
    """Lets everything go on until something holds; the task that waits must not have ended by then."""
    while not until():
        await asyncio.sleep(0.01)
    assert not task.done()


# -- loading ---------------------------------------------------------------------------------------------


def test_nothing_is_loaded_until_it_is_asked_for_and_all_who_ask_share_one_load() -> None:
    machine = Machine(100, model("a", 60), model("p", 20, on_demand=False, pinned=True))

    async def scenario() -> None:
        await machine.supervisor.wait_ready(machine.key("p"))
        assert (machine.state("a"), machine.spawned) == (WorkerState.UNLOADED, ["p"])
        with pytest.raises(WorkerFailure, match="the worker was unloaded"):
            await machine.supervisor.wait_ready(machine.key("a"))
        processes = await asyncio.gather(*(machine.acquire("a") for _ in range(5)))
        assert len({process.pid for process in processes}) == 1
        assert machine.spawned == ["p", "a"]
        assert machine.supervisor.seated(machine.key("a")).active == 5
        for _ in range(5):
            machine.release("a")
        assert machine.supervisor.seated(machine.key("a")).active == 0
        assert machine.loaded() == {"a", "p"}

    machine.run(scenario)


def test_a_load_that_fails_is_told_to_all_who_waited_and_tried_again_only_after_a_while() -> None:
    machine = Machine(100, model("a", 60))
    machine.broken.add("a")

    async def scenario() -> None:
        told = await asyncio.gather(*(machine.acquire("a") for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in told] == ["llama.cpp gave no reason"] * 3
        assert machine.spawned == ["a"]
        with pytest.raises(NotLoaded, match="gave no reason") as caught:
            await machine.acquire("a")
        assert machine.spawned == ["a"]
        assert 0 < caught.value.retry_after <= 0.5
        status = machine.supervisor.status()[0]
        assert (status.state, status.error) == (WorkerState.UNLOADED, "llama.cpp gave no reason")
        await asyncio.sleep(caught.value.retry_after)
        with pytest.raises(NotLoaded) as again:
            await machine.acquire("a")
        # Each failure in a row doubles the pause.
        assert (machine.spawned, again.value.retry_after) == (["a", "a"], 1.0)
        machine.broken.clear()
        await asyncio.sleep(again.value.retry_after)
        await machine.use("a")
        assert machine.supervisor.status()[0].error is None

    machine.run(scenario)


def test_what_went_wrong_with_a_worker_that_was_given_up_is_forgotten_with_it() -> None:
    machine = Machine(100, model("a", 60))
    machine.broken.add("a")

    async def scenario() -> None:
        with pytest.raises(NotLoaded):
            await machine.acquire("a")
        await machine.supervisor.stop([machine.key("a")], drain=0)
        machine.residents.keep(frozenset())
        machine.broken.clear()
        machine.supervisor.start([model("a", 60)], restart=False)
        await machine.use("a")

    machine.run(scenario)


def test_a_crashed_worker_stays_out_of_memory_until_the_next_request() -> None:
    machine = Machine(100, model("a", 60))

    async def scenario() -> None:
        process = await machine.acquire("a")
        os.kill(process.pid, signal.SIGKILL)
        assert await machine.supervisor.settled(machine.key("a")) is WorkerState.READY
        await process.ended.wait()
        machine.release("a")
        assert await machine.supervisor.settled(machine.key("a")) is WorkerState.UNLOADED
        assert "SIGKILL" in (machine.supervisor.status()[0].error or "")
        assert machine.spawned == ["a"]
        assert (await machine.acquire("a")).pid != process.pid
        assert machine.supervisor.status()[0].error is None

    machine.run(scenario)


# -- who makes room --------------------------------------------------------------------------------------


def test_the_idle_one_used_longest_ago_makes_room_and_a_pinned_one_never_does() -> None:
    pinned = model("p", 30, on_demand=False, pinned=True)
    machine = Machine(115, pinned, model("a", 40), model("b", 40), model("c", 40))

    async def scenario() -> None:
        await machine.supervisor.wait_ready(machine.key("p"))
        for name in ("a", "b", "a"):
            await machine.use(name)
        assert machine.loaded() == {"p", "a", "b"}
        await machine.use("c")
        assert machine.loaded() == {"p", "a", "c"}
        (left,) = [event for event in machine.told if event.what == "stopped"]
        assert (left.model, left.detail) == ("b", "unloaded: c needs its memory")
        await machine.use("b")
        assert machine.loaded() == {"p", "c", "b"}

    machine.run(scenario)


def test_a_model_that_does_not_fit_beside_what_stays_says_by_how_much() -> None:
    pinned = model("p", 60, on_demand=False, pinned=True)
    machine = Machine(100, pinned, model("a", 50))

    async def scenario() -> None:
        await machine.supervisor.wait_ready(machine.key("p"))
        with pytest.raises(NotLoaded, match=r"it needs 50\.0 MiB of RAM, 40\.0 MiB are free") as caught:
            await machine.acquire("a")
        assert str(caught.value).endswith("and no other model can make room")
        assert (machine.loaded(), machine.spawned) == ({"p"}, ["p"])

    machine.run(scenario)


def test_where_nobody_knows_what_is_free_one_model_is_in_memory_at_a_time() -> None:
    machine = Machine(None, model("a", 10), model("b", 10))

    async def scenario() -> None:
        await machine.use("a")
        await machine.use("b")
        assert machine.loaded() == {"b"}

    machine.run(scenario)


def test_loading_waits_until_the_memory_has_really_been_given_back() -> None:
    machine = Machine(100, model("a", 60), model("b", 60))

    async def scenario() -> None:
        await machine.use("a")
        machine.gives_back = False
        load = asyncio.create_task(machine.use("b"))
        await settle(load, lambda: machine.state("a") is WorkerState.UNLOADED)
        await asyncio.sleep(0.3)
        assert machine.spawned == ["a"]
        machine.give_back()
        await load
        assert machine.spawned == ["a", "b"]

    machine.run(scenario)


def test_a_model_that_is_watched_by_a_probe_stays() -> None:
    machine = Machine(100, model("a", 60), model("b", 60))

    async def scenario() -> None:
        await machine.use("a")
        machine.residents.keep(frozenset({machine.key("a")}))
        with pytest.raises(NotLoaded):
            await machine.use("b")
        machine.residents.keep(frozenset())
        await asyncio.sleep(0.5)
        await machine.use("b")
        assert machine.loaded() == {"b"}

    machine.run(scenario)


# -- busy ones -------------------------------------------------------------------------------------------


def test_a_busy_model_is_waited_for_and_still_takes_requests_for_a_while() -> None:
    machine = Machine(100, model("a", 60), model("b", 60))

    async def scenario() -> None:
        await machine.acquire("a")
        waiting = asyncio.create_task(machine.acquire("b"))
        await settle(waiting, lambda: machine.waits_for_memory("b"))
        obstacle = machine.residents.obstacle(machine.key("b"))
        assert obstacle == "it waits for memory that a holds while it answers"
        assert machine.residents.obstacle(machine.key("a")) is None
        await machine.acquire("a")
        machine.release("a")
        assert not waiting.done()
        machine.release("a")
        await waiting
        assert machine.loaded() == {"b"}
        assert machine.residents.obstacle(machine.key("b")) is None

    machine.run(scenario)


def test_after_its_grace_new_requests_of_the_busy_one_queue_behind_the_other_load() -> None:
    machine = Machine(100, model("a", 60), model("b", 60), grace=0)

    async def scenario() -> None:
        order = []
        await machine.acquire("a")
        waiting = asyncio.create_task(machine.acquire("b"))
        await settle(waiting, lambda: machine.waits_for_memory("b"))
        late = asyncio.create_task(machine.acquire("a"))
        late.add_done_callback(lambda _: order.append("a"))
        waiting.add_done_callback(lambda _: order.append("b"))
        await asyncio.sleep(0.05)
        assert not late.done()
        assert machine.residents.obstacle(machine.key("a")) == "it waits until b is loaded"
        machine.release("a")
        await waiting
        machine.release("b")
        await late
        assert order == ["b", "a"]

    machine.run(scenario)


def test_two_models_that_take_turns_do_not_starve_one_another() -> None:
    machine = Machine(100, model("a", 60), model("b", 60), grace=0.05)

    async def scenario() -> None:
        served = {"a": 0, "b": 0}

        async def client(name: str) -> None:
            # Three of these overlap, so that their model is never idle by itself.
            for pause in count(1):
                await machine.acquire(name)
                await asyncio.sleep(0.01 + 0.003 * (pause % 3))
                machine.release(name)
                served[name] += 1

        clients = [asyncio.create_task(client(name)) for name in "aaabbb"]
        while min(served.values()) < 20 or len(machine.spawned) < 6:
            await asyncio.sleep(0.01)
            assert not any(each.done() for each in clients)
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        assert machine.spawned[:6] == ["a", "b"] * 3

    machine.run(scenario)


def test_a_client_that_leaves_while_it_waits_takes_its_load_along_and_holds_nobody_up() -> None:
    machine = Machine(100, model("a", 60), model("b", 60), grace=0)

    async def scenario() -> None:
        await machine.acquire("a")
        waiting = asyncio.create_task(machine.acquire("b"))
        await settle(waiting, lambda: machine.waits_for_memory("b"))
        late = asyncio.create_task(machine.acquire("a"))
        await asyncio.sleep(0.05)
        assert not late.done()
        waiting.cancel()
        await late
        assert machine.spawned == ["a"]
        assert machine.supervisor.seated(machine.key("a")).active == 2
        assert machine.supervisor.seated(machine.key("b")).active == 0
        # Nothing is remembered of it as a failure.
        machine.release("a")
        machine.release("a")
        await machine.use("b")

    machine.run(scenario)


# -- idle ones -------------------------------------------------------------------------------------------


def test_what_has_been_idle_for_its_time_leaves_and_comes_back_when_asked_for() -> None:
    brief = {"on_demand": False, "idle_ttl": 0.1}
    machine = Machine(
        100, model("a", 10, **brief), model("busy", 10, **brief), model("p", 10, **brief, pinned=True)
    )

    async def scenario() -> None:
        for name in ("a", "busy", "p"):
            await machine.residents.bring(machine.key(name))
        await machine.acquire("busy")
        sweeper = asyncio.create_task(machine.residents.run())
        await settle(sweeper, lambda: machine.state("a") is WorkerState.UNLOADED)
        assert machine.loaded() == {"busy", "p"}
        stopped = [(event.model, event.detail) for event in machine.told if event.what == "stopped"]
        assert stopped == [("a", "unloaded: it was idle for its idle_ttl")]
        assert machine.supervisor.available(machine.key("a"))
        await machine.acquire("a")
        machine.release("busy")
        await settle(sweeper, lambda: machine.state("busy") is WorkerState.UNLOADED)
        assert machine.loaded() == {"a", "p"}
        sweeper.cancel()

    machine.run(scenario)
