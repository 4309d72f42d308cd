"""The servers that are compared: how each is started, with the same model, threads and KV cache."""

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_daemon.contract.release import Probe
from tests.bench.serve.answers import Answer, Ask
from tests.bench.serve.http_door import HttpDoor
from tests.bench.serve.outfit import BENCH_PYTHON
from tests.bench.serve.worker_door import WorkerDoor, worker
from tests.support import releases
from tests.support.agent import free_port, running_agent, wait_until
from tests.support.models import quickstart_model

PARALLEL = 8
THREADS = 2
_START_SECONDS = 120


class Door(Protocol):
    """Where a server is asked."""

    async def ask(self, ask: Ask, heard: Callable[[int], None] = ...) -> Answer: ...


@dataclass(frozen=True)
class Running:
    """A server that answers: where to ask it, and the process whose family is its memory."""

    door: Door
    pid: int


Start = Callable[[int], AbstractAsyncContextManager[Running]]
"""Starts a server with a context (tokens) for each of its sequences; it is gone at the end of the block."""


@asynccontextmanager
async def edgectl(context: int) -> AsyncIterator[Running]:
    """Our agent, through its gateway."""
    model = quickstart_model()
    with tempfile.TemporaryDirectory() as folder, running_agent(Path(folder) / "state") as agent:
        served = releases.served("assistant", model, context=context, parallel=PARALLEL)
        # What the tests' releases predict is for a small context; how much memory it is gets measured here.
        probe = Probe(min_healthy=0, timeout=120, memory_margin=10)
        event = releases.deploy(agent, releases.release(served, probe=probe), model)
        assert event.state == "committed", event
        assert agent.process is not None
        yield Running(HttpDoor(agent.port), agent.process.pid)


@asynccontextmanager
async def edgectl_worker(context: int) -> AsyncIterator[Running]:
    """Our worker alone, by its own socket."""
    with tempfile.TemporaryDirectory() as folder:
        async with worker(
            quickstart_model(),
            context=context,
            parallel=PARALLEL,
            threads=THREADS,
            log=Path(folder) / "worker.log",
        ) as process:
            yield Running(WorkerDoor(process), process.pid)


def llama_cpp(*, unified: bool = True, host_cache_mib: int = 8192) -> Start:
    """llama.cpp's own server. `host_cache_mib` bounds its prompt cache outside the KV cache (8192: its default)."""

    def start(context: int) -> AbstractAsyncContextManager[Running]:
        port = free_port()
        wanted = {
            "model": str(quickstart_model()),
            "port": port,
            "context": context * PARALLEL,
            "parallel": PARALLEL,
            "threads": THREADS,
            "unified": unified,
            "host_cache_mib": host_cache_mib,
        }
        return _process([str(Path(__file__).with_name("llama_server.py")), json.dumps(wanted)], port)

    return start


def llama_cpp_server(context: int) -> AbstractAsyncContextManager[Running]:
    """`llama_cpp.server`, on the very build of llama.cpp that our worker uses. It answers one request at a time, so
    one sequence gets the whole KV cache; cutting off another client's answer is what it is told not to do."""
    port = free_port()
    settings = {
        "model": quickstart_model(),
        "model_alias": "assistant",
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": context * PARALLEL,
        "n_threads": THREADS,
        "n_threads_batch": THREADS,
        "flash_attn": True,
        "logits_all": False,
        "use_mlock": False,
        "interrupt_requests": False,
        "verbose": False,
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return _process(["-m", "llama_cpp.server", *options], port)


SERVERS: dict[str, Start] = {
    "edgectl": edgectl,
    "llama.cpp": llama_cpp(),
    "llama_cpp.server": llama_cpp_server,
    "edgectl-worker": edgectl_worker,
    "llama.cpp-lean": llama_cpp(host_cache_mib=0),
    "llama.cpp-split": llama_cpp(unified=False),
}


@asynccontextmanager
async def _process(arguments: list[str], port: int) -> AsyncIterator[Running]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(BENCH_PYTHON), *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

        def answers() -> bool:
            if process.poll() is not None:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-4000:])
                raise AssertionError(f"the server ended with status {process.returncode}")
            return _models_listed(port)

        try:
            wait_until(answers, _START_SECONDS)
            yield Running(HttpDoor(port), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _models_listed(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
