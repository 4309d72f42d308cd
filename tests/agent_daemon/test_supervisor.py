"""Workers that die: the agent stays, the worker comes back by itself, and everybody is told the truth."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from agent_daemon.contract.release import GpuLayers, Residency, ServedModel
from agent_daemon.contract.wire import WorkerEvent, WorkerState, WorkerStatus
from agent_daemon.errors import WorkerFailure
from agent_daemon.shared_worker import placed_vram
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Choosing, Done, Generate, Load, Started
from agent_daemon.worker_process import WorkerProcess
from tests.support.agent import AgentProcess, wait_until
from tests.support.idle_worker import spawn_idle
from tests.support.models import quickstart_model, refused_by_llama
from tests.support.releases import client, served, usage_of, worker_of

pytestmark = pytest.mark.engine

COUNT = "1 2 3 4 5 6 7 8 9 10 11 12 13"
LONG: dict[str, Any] = {"prompt": COUNT, "temperature": 0, "max_tokens": 900}


@pytest.fixture
def openai_client(served_agent: AgentProcess) -> Any:
    with OpenAI(base_url=f"{served_agent.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def kill_worker(agent: AgentProcess, model: str) -> int:
    """Ends the worker as a crash would; returns how often it had been restarted before."""
    worker = worker_of(agent, model)
    assert worker["state"] == "ready"
    os.kill(worker["pid"], signal.SIGKILL)
    return int(worker["restarts"])


def back(agent: AgentProcess, model: str, restarts: int) -> Any:
    def ready() -> Any:
        worker = worker_of(agent, model)
        return worker if worker["state"] == "ready" and worker["restarts"] == restarts else None

    return wait_until(ready)


# -- in a real agent -------------------------------------------------------------------------------------


def test_a_worker_killed_while_idle_comes_back_and_a_request_meanwhile_waits_for_it(
    served_agent: AgentProcess,
) -> None:
    served_agent.state()
    pid = served_agent.process.pid if served_agent.process else None
    before = kill_worker(served_agent, "single")
    wait_until(lambda: worker_of(served_agent, "single")["state"] != "ready", pause=0.01)
    assert served_agent.ask("/readyz")[1]["waiting"] == ["single"]
    assert served_agent.ask("/healthz")[0] == 200
    status, answer = served_agent.ask(
        "/v1/completions", {"model": "single", "prompt": COUNT, "max_tokens": 2}
    )
    assert (status, answer["usage"]["completion_tokens"]) == (200, 2)
    worker = back(served_agent, "single", before + 1)
    assert worker["error"] is None
    assert served_agent.process is not None
    assert (served_agent.process.pid, served_agent.process.poll()) == (pid, None)
    assert served_agent.ask("/readyz")[0] == 200
    with client(served_agent) as control:
        told = [each.body for each in control.reports(5000).records if each.kind == "worker"]
    of_model = [event["what"] for event in told if event["model"] == "single"]
    assert of_model[-4:] == ["ready", "crashed", "started", "ready"]
    crashed = next(event for event in reversed(told) if event["what"] == "crashed")
    assert "ended by SIGKILL" in crashed["detail"]


def test_a_stream_whose_worker_is_killed_ends_with_an_error_and_the_next_request_succeeds(
    served_agent: AgentProcess, openai_client: OpenAI
) -> None:
    failures = usage_of(served_agent, "single")["failures"]
    stream = openai_client.completions.create(model="single", **LONG, stream=True)
    next(stream)
    before = kill_worker(served_agent, "single")
    seen = []
    with pytest.raises(openai.APIError, match=r"single cannot answer at this moment.*SIGKILL"):
        seen.extend(chunk.choices[0].finish_reason for chunk in stream)
    assert set(seen) <= {None}
    back(served_agent, "single", before + 1)
    again = openai_client.completions.create(model="single", prompt=COUNT, temperature=0, max_tokens=2)
    assert again.usage is not None
    assert again.usage.completion_tokens == 2
    assert usage_of(served_agent, "single")["failures"] == failures + 1
    assert worker_of(served_agent, "single")["active_requests"] == 0


def test_other_workers_do_not_notice(served_agent: AgentProcess, openai_client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "counted", "prompt": COUNT, "temperature": 0, "max_tokens": 40}
    stream = openai_client.completions.create(**asked, stream=True)
    next(stream)
    before = kill_worker(served_agent, "vectors")
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    back(served_agent, "vectors", before + 1)


# -- a disconnected client -------------------------------------------------------------------------------


def test_a_client_that_leaves_its_stream_stops_the_generation(
    served_agent: AgentProcess, openai_client: OpenAI
) -> None:
    stream = openai_client.completions.create(model="left-streaming", **LONG, stream=True)
    while not next(stream).choices[0].text:
        pass
    assert worker_of(served_agent, "left-streaming")["active_requests"] == 1
    stream.close()
    wait_until(lambda: worker_of(served_agent, "left-streaming")["active_requests"] == 0)
    counted = usage_of(served_agent, "left-streaming")
    assert (counted["requests"], counted["failures"]) == (1, 1)
    assert 1 <= counted["completion_tokens"] < 300
    assert counted["prompt_tokens"] > 10


def test_a_client_that_leaves_without_streaming_stops_the_generation(
    served_agent: AgentProcess,
) -> None:
    import http.client
    import json

    connection = http.client.HTTPConnection("127.0.0.1", served_agent.port)
    connection.request("POST", "/v1/completions", json.dumps({"model": "left-waiting", **LONG}))
    wait_until(lambda: worker_of(served_agent, "left-waiting")["active_requests"] == 1, pause=0.01)
    connection.close()
    wait_until(lambda: worker_of(served_agent, "left-waiting")["active_requests"] == 0)
    counted = usage_of(served_agent, "left-waiting")
    assert (counted["requests"], counted["failures"]) == (1, 1)
    assert counted["completion_tokens"] < 300


def test_a_client_that_leaves_while_it_waits_for_its_turn_gives_its_place_back(
    served_agent: AgentProcess, openai_client: OpenAI
) -> None:
    import http.client
    import json

    def active() -> int:
        return int(worker_of(served_agent, "single")["active_requests"])

    before = usage_of(served_agent, "single")
    with openai_client.completions.create(model="single", **LONG, stream=True) as running:
        next(running)
        waiting = http.client.HTTPConnection("127.0.0.1", served_agent.port)
        waiting.request("POST", "/v1/completions", json.dumps({"model": "single", **LONG}))
        wait_until(lambda: active() == 2, pause=0.01)
        waiting.close()
        wait_until(lambda: active() == 1, pause=0.01)
    wait_until(lambda: active() == 0)
    answer = openai_client.completions.create(model="single", prompt=COUNT, max_tokens=2)
    assert answer.usage is not None
    counted = usage_of(served_agent, "single")
    assert counted["requests"] == before["requests"] + 3
    assert counted["failures"] == before["failures"] + 2


# -- the supervisor by itself, with real workers ---------------------------------------------------------


class Bench:
    """A supervisor whose workers load `path`, and what it reported."""

    def __init__(self, path: Path, log: Path) -> None:
        self._path = path
        self._log = log
        self.told: list[WorkerEvent] = []
        self.supervisor = Supervisor(self._spawn, self.told.append)

    async def _spawn(self, model: ServedModel) -> WorkerProcess:
        placement = model.placement
        load = Load(
            path=str(self._path),
            task=model.task,
            context=placement.context,
            parallel=placement.parallel,
            kv_type=placement.kv_type,
            gpu_layers=0,
            threads=1,
        )
        return await WorkerProcess.spawn(load, self._log, {})

    def what(self) -> list[str]:
        return [event.what for event in self.told]


def test_a_model_that_llama_refuses_stays_down_when_restarting_was_not_asked_for(tmp_path: Path) -> None:
    bench = Bench(refused_by_llama(tmp_path), tmp_path / "worker.log")
    model = served("m", quickstart_model())

    async def scenario() -> None:
        bench.supervisor.start([model], restart=False)
        with pytest.raises(WorkerFailure, match="attn_output"):
            await bench.supervisor.wait_ready(model.engine_key())
        (status,) = bench.supervisor.status()
        assert (status.state, status.pid, status.restarts) == (WorkerState.STOPPED, None, 0)
        assert status.error is not None
        await bench.supervisor.close()

    asyncio.run(scenario())
    assert bench.what()[:2] == ["started", "crashed"]


def test_models_with_the_same_engine_share_a_worker_and_a_drain_waits_for_its_requests(
    tmp_path: Path,
) -> None:
    bench = Bench(quickstart_model(), tmp_path / "worker.log")
    one, two = served("one", quickstart_model()), served("two", quickstart_model(), system_prompt="Be brief.")
    key = one.engine_key()

    async def scenario() -> None:
        supervisor = bench.supervisor
        supervisor.start([one, two], restart=True)
        assert supervisor.keys() == {key} == {two.engine_key()}
        process = await supervisor.wait_ready(key)
        (status,) = supervisor.status()
        assert (status.models, status.state, status.pid) == (("one", "two"), WorkerState.READY, process.pid)
        assert status.ram_bytes is not None
        assert status.ram_bytes > 90_000_000
        supervisor.start([two], restart=False)
        assert await supervisor.wait_ready(key) is process
        assert supervisor.status()[0].models == ("two",)

        supervisor.begin_request(key)
        request = Generate(id=0, prompt=COUNT, max_tokens=20, sampling=Choosing(temperature=0))
        events = process.generate(request)
        assert isinstance(await anext(events), Started)
        stopping = asyncio.create_task(supervisor.stop([key], drain=60))
        last = [event async for event in events][-1]
        assert isinstance(last, Done)
        assert last.completion_tokens == 20
        assert supervisor.process(key) is None
        assert not stopping.done()
        supervisor.end_request(key, 12.5)
        await stopping
        assert supervisor.keys() == frozenset()
        assert process.ended.is_set()
        with pytest.raises(WorkerFailure, match="there is no such worker"):
            await supervisor.wait_ready(key)
        with pytest.raises(WorkerFailure, match="the worker was stopped"):
            await anext(process.generate(Generate(id=0, prompt=COUNT)))

    asyncio.run(scenario())
    assert bench.what() == ["started", "started", "ready", "ready", "stopped"]


def test_a_worker_that_is_stopped_while_it_loads_has_not_crashed(tmp_path: Path) -> None:
    bench = Bench(quickstart_model(), tmp_path / "worker.log")
    model = served("m", quickstart_model())

    async def scenario() -> None:
        bench.supervisor.start([model], restart=True)
        while bench.supervisor.status()[0].pid is None:
            await asyncio.sleep(0.01)
        assert bench.supervisor.status()[0].state is WorkerState.STARTING
        waiting = asyncio.create_task(bench.supervisor.wait_ready(model.engine_key()))
        await asyncio.sleep(0)
        await bench.supervisor.stop([model.engine_key()], drain=5)
        with pytest.raises(WorkerFailure):
            await waiting

    asyncio.run(scenario())
    assert bench.what() == ["started", "stopped"]


def test_a_drain_ends_what_is_not_done_within_its_deadline(tmp_path: Path) -> None:
    bench = Bench(quickstart_model(), tmp_path / "worker.log")
    model = served("m", quickstart_model())
    key = model.engine_key()

    async def scenario() -> None:
        supervisor = bench.supervisor
        supervisor.start([model], restart=True)
        process = await supervisor.wait_ready(key)
        supervisor.begin_request(key)
        events = process.generate(Generate(id=0, prompt=COUNT, sampling=Choosing(temperature=0)))
        assert isinstance(await anext(events), Started)
        stopping = asyncio.create_task(supervisor.stop([key], drain=0.05))
        # What is new is refused while this goes on.
        while supervisor.process(key):
            await asyncio.sleep(0)
        assert not process.ended.is_set()
        with pytest.raises(WorkerFailure, match="the worker was stopped"):
            [event async for event in events]
        supervisor.end_request(key, None)
        await stopping
        assert process.ended.is_set()

    asyncio.run(scenario())
    assert bench.what() == ["started", "ready", "stopped"]


def test_only_an_idle_worker_is_unloaded_and_it_keeps_its_place() -> None:
    told: list[WorkerEvent] = []
    model = served("m", quickstart_model())
    key = model.engine_key()

    async def spawn(_model: ServedModel) -> WorkerProcess:
        return await spawn_idle(1 << 20)

    async def scenario() -> None:
        supervisor = Supervisor(spawn, told.append)
        assert not await supervisor.unload(key, "it is not there")
        supervisor.start([model], restart=True)
        assert not await supervisor.unload(key, "it is starting")
        process = await supervisor.wait_ready(key)
        supervisor.begin_request(key)
        assert not await supervisor.unload(key, "it is busy")
        assert supervisor.process(key) is process
        supervisor.end_request(key, None)
        unloading = asyncio.create_task(supervisor.unload(key, "nobody needs it"))
        await asyncio.sleep(0)
        # A request that comes in this moment does not get a worker that is about to end.
        assert supervisor.process(key) is None
        assert await unloading
        assert process.ended.is_set()
        (status,) = supervisor.status()
        assert (status.state, status.pid, status.error) == (WorkerState.UNLOADED, None, None)
        assert status.restarts == 0
        assert (supervisor.keys(), supervisor.running()) == ({key}, frozenset())
        # A release that serves it again does not need it in memory.
        supervisor.start([model], restart=True)
        assert supervisor.running() == frozenset()
        supervisor.load(key)
        assert (await supervisor.wait_ready(key)).pid != process.pid
        await supervisor.close()

    asyncio.run(scenario())
    assert [(event.what, event.detail) for event in told if event.what == "stopped"] == [
        ("stopped", "unloaded: nobody needs it"),
        ("stopped", None),
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([{"on_demand": True}, {"on_demand": True}], {"on_demand": True}),
        ([{"on_demand": True}, {}], {}),
        ([{"on_demand": True}, {"pinned": True}], {"pinned": True}),
        ([{"idle_ttl": 5}, {"idle_ttl": 60}], {"idle_ttl": 60}),
        ([{"idle_ttl": 5}, {}], {}),
    ],
)
def test_a_shared_worker_stays_for_whoever_wants_it_longest(
    asked: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    models = [
        served(f"m{number}", quickstart_model(), residency=Residency(**each))
        for number, each in enumerate(asked)
    ]

    async def spawn(_model: ServedModel) -> WorkerProcess:
        return await spawn_idle(1 << 20)

    async def scenario() -> None:
        supervisor = Supervisor(spawn, lambda _event: None)
        supervisor.start(models, restart=True)
        seat = supervisor.seated(models[0].engine_key())
        assert seat.residency == Residency(**expected)
        assert (seat.state is WorkerState.UNLOADED) is seat.residency.on_demand
        if not seat.residency.on_demand:
            await supervisor.wait_ready(seat.key)
        await supervisor.close()

    asyncio.run(scenario())


def test_a_program_that_cannot_be_started_is_tried_again_with_growing_pauses() -> None:
    told: list[WorkerEvent] = []

    async def spawn(_model: ServedModel) -> WorkerProcess:
        raise OSError(2, "No such file or directory", "python")

    model = served("m", quickstart_model())

    async def scenario() -> None:
        supervisor = Supervisor(spawn, told.append)
        supervisor.start([model], restart=True)
        while len(told) < 4:
            await asyncio.sleep(0.05)
        (status,) = supervisor.status()
        assert status.state is WorkerState.BACKOFF
        assert status.restarts == 2
        assert "No such file" in (status.error or "")
        assert supervisor.process(model.engine_key()) is None
        await supervisor.close()
        assert supervisor.status() == ()

    asyncio.run(scenario())
    assert [event.what for event in told] == ["started", "crashed", "started", "crashed", "stopped"]


@pytest.mark.parametrize(
    ("uuids", "held", "together"),
    [
        (("GPU-a", "GPU-b"), {"GPU-a": 5, "GPU-b": 6, "GPU-c": 7}, 11),
        (("GPU-a", "GPU-b"), {"GPU-a": 5}, None),
        (("GPU-a", "GPU-b"), None, None),
        ((), {"GPU-a": 5}, 5),
        ((), None, None),
    ],
)
def test_vram_over_several_gpus_is_known_when_each_is(
    uuids: tuple[str, ...], held: dict[str, int] | None, together: int | None
) -> None:
    placement = served("m", quickstart_model()).placement.model_copy(
        update={"gpus": tuple(GpuLayers(uuid=uuid, layers=1) for uuid in uuids)}
    )
    assert placed_vram(placement, held) == together


def test_a_load_is_told_once_after_its_first_answer_and_not_before(tmp_path: Path) -> None:
    bench = Bench(quickstart_model(), tmp_path / "worker.log")
    loads: list[tuple[str, int, float]] = []
    told = asyncio.Event()

    async def fitted(model: ServedModel, status: WorkerStatus, seconds: float) -> None:
        loads.append((model.name, status.ram_bytes or 0, seconds))
        told.set()

    bench.supervisor = Supervisor(bench._spawn, bench.told.append, fitted)
    model = served("m", quickstart_model())

    async def scenario() -> None:
        bench.supervisor.start([model], restart=True)
        process = await bench.supervisor.wait_ready(model.engine_key())
        assert loads == []
        for _ in range(2):
            request = Generate(id=0, prompt=COUNT, max_tokens=2, sampling=Choosing(temperature=0))
            assert [event async for event in process.generate(request)]
            await told.wait()
        await bench.supervisor.close()

    asyncio.run(scenario())
    ((name, size, seconds),) = loads
    assert name == "m"
    assert size > 90_000_000
    assert seconds > 0
