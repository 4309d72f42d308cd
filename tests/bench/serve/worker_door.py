"""The worker's own socket, without the gateway: what the gateway costs is measured against this."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from agent_daemon.worker_messages import Choosing, Chunk, Done, Frame, Generate, Load, Refused, Started
from agent_daemon.worker_process import WorkerProcess
from tests.bench.serve.answers import Answer, Ask
from tests.bench.serve.http_door import ServerFailure

_FRAME = Frame(head='data: {"choices":[{"delta":{"content":', tail="}}]}\n\n")


class WorkerDoor:
    """One worker process, asked as the gateway asks it."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    async def ask(self, ask: Ask, heard: Callable[[int], None] = lambda _pieces: None) -> Answer:
        """One streamed chat, greedy, to its end. Raises ServerFailure, or WorkerFailure when the worker died."""
        request = Generate(
            id=0,
            messages=tuple(dict(each) for each in ask.messages),
            max_tokens=ask.max_tokens,
            sampling=Choosing(temperature=0),
            stream=_FRAME,
        )
        asked, pieces, cached = time.monotonic(), [], 0
        async with aclosing(self._process.generate(request)) as events:
            async for event in events:
                match event:
                    case Chunk():
                        pieces.append(time.monotonic())
                        heard(len(pieces))
                    case Started():
                        cached = event.cached_tokens
                    case Refused():
                        raise ServerFailure(f"the worker refused: {event.message}")
                    case Done():
                        return Answer(
                            asked=asked,
                            pieces=tuple(pieces),
                            ended=time.monotonic(),
                            text="",
                            finish=event.finish_reason,
                            prompt_tokens=event.prompt_tokens,
                            cached_tokens=cached,
                            completion_tokens=event.completion_tokens,
                        )
        raise ServerFailure("the worker ended a request without saying so")


@asynccontextmanager
async def worker(
    model: Path, *, context: int, parallel: int, threads: int, log: Path
) -> AsyncIterator[WorkerProcess]:
    """A worker that has loaded `model`; it is stopped at the end of the block."""
    load = Load(
        path=str(model),
        task="chat",
        context=context,
        parallel=parallel,
        kv_type="f16",
        gpu_layers=0,
        threads=threads,
    )
    process = await WorkerProcess.spawn(load, log, {})
    try:
        await process.ready()
        yield process
    finally:
        await process.stop()
