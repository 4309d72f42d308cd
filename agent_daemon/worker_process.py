"""One worker process and the link to it. It ends once; starting again is a new one."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from msgspec.structs import replace

from agent_daemon.errors import WorkerFailure
from agent_daemon.worker_messages import (
    CHUNK,
    HEAD,
    Cancel,
    Chunk,
    Done,
    Embed,
    Event,
    Failed,
    Generate,
    Inspect,
    Load,
    Measure,
    Measured,
    Ready,
    Refused,
    Request,
    Stats,
    Tokenize,
    Tokens,
    Unmeasured,
    Vectors,
    parse_event,
)

Answer = Event | Chunk

_READ_SIZE = 256 * 1024
_LOG_LIMIT = 1024 * 1024
_SPIN_COUNT = "1000"
"""Rounds that one of libgomp's threads spins before it sleeps when it waits for the others, which it does after
every operation of a model. Its own default spins on, and a worker then starves as soon as anything else wants a
core, a second worker for one; sleeping at once is more than twice as slow on an idle machine (ARCHITECTURE.md has the
figures, tests/bench/bench_threads.py measures them)."""


class WorkerProcess:
    """Made by `spawn`. `ended` is set when the process is gone, with `end_reason` in one sentence."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._requests: dict[int, asyncio.Queue[Answer | None]] = {}
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting when a worker fails; that is no reason for asyncio to complain.
        self._ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._measured: asyncio.Future[Measured | Unmeasured | Failed] | None = None
        self._stopping = False
        self.ended = asyncio.Event()
        self.end_reason = ""
        self._answered = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def spawn(cls, load: Load | None, log: Path, environment: Mapping[str, str]) -> "WorkerProcess":
        """Starts a worker that loads a model, or waits for `load`; its stderr goes to `log`, which is begun anew past
        1 MiB."""
        ours, theirs = socket.socketpair()
        with theirs:
            if log.exists() and log.stat().st_size > _LOG_LIMIT:
                log.replace(log.with_suffix(".old"))
            with log.open("ab") as stderr:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "agent_daemon.worker", "--fd", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=stderr,
                    env={**os.environ, **_waiting_of_threads(os.environ), **environment},
                )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_READ_SIZE)
        worker = cls(process, reader, writer)
        if load is not None:
            worker.load(load)
        return worker

    def load(self, load: Load) -> None:
        """Begins to load a model: once, and before anything is asked of it."""
        self._send(load)

    async def measure(self, load: Load) -> Measured | Unmeasured | Failed:
        """What a model would take, asked of a worker that has loaded nothing. Raises WorkerFailure when it ends without
        an answer; after Failed it ends."""
        self._measured = asyncio.get_running_loop().create_future()
        self._send(Measure(load=load))
        return await self._measured

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> Ready:
        """What the worker said after loading. Raises WorkerFailure with llama.cpp's reason or the exit status."""
        return await asyncio.shield(self._ready)

    async def first_answer(self) -> bool:
        """Waits until the worker has answered something for the first time: it then holds all that it needs for it,
        which it does not when it is ready. False when it ended without."""
        await self._answered.wait()
        return not self.ended.is_set()

    async def generate(self, request: Generate) -> AsyncGenerator[Answer, None]:
        """Events and chunks of one completion, ending with Done or Refused. Leaving early cancels it in the worker.
        Raises WorkerFailure when the worker goes away before the end."""
        async with contextlib.aclosing(self._ask(request)) as answers:
            async for answer in answers:
                yield answer

    async def embed(self, inputs: tuple[str | tuple[int, ...], ...]) -> Vectors | Refused:
        """Vectors for these inputs. Raises WorkerFailure."""
        answer = await self._one(Embed(id=0, inputs=inputs))
        assert isinstance(answer, Vectors | Refused)
        return answer

    async def tokenize(self, request: Tokenize) -> Tokens | Refused:
        """Token ids. Raises WorkerFailure."""
        answer = await self._one(request)
        assert isinstance(answer, Tokens | Refused)
        return answer

    async def inspect(self) -> Stats:
        """The engine seen from inside, between two of its steps. Raises WorkerFailure."""
        answer = await self._one(Inspect(id=0))
        assert isinstance(answer, Stats)
        return answer

    async def _one(self, command: Request) -> Answer:
        async with contextlib.aclosing(self._ask(command)) as answers:
            async for answer in answers:
                return answer
        raise WorkerFailure(self.end_reason)

    async def _ask(self, command: Request) -> AsyncGenerator[Answer, None]:
        if self.ended.is_set():
            raise WorkerFailure(self.end_reason)
        command = replace(command, id=next(self._ids))
        answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        self._requests[command.id] = answers
        finished = False
        try:
            self._send(command)
            while True:
                answer = await answers.get()
                if answer is None:
                    finished = True
                    raise WorkerFailure(self.end_reason)
                finished = isinstance(answer, Done | Refused | Vectors | Tokens | Stats)
                yield answer
                if finished:
                    return
        finally:
            del self._requests[command.id]
            if not finished:
                self._send(Cancel(id=command.id))

    def _send(self, message: Load | Measure | Request | Cancel) -> None:
        # Writing to a worker that is gone is no error here: its end reaches every waiting request by itself.
        if not self._writer.is_closing():
            self._writer.write(message.frame())

    async def stop(self, grace: float = 5.0) -> None:
        """Ends the process: by closing the link, and by force after `grace` seconds."""
        self._stopping = True
        self._writer.close()
        try:
            await asyncio.wait_for(self.ended.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.ended.wait()

    async def _read(self) -> None:
        failure = ""
        try:
            async for kind, request, body in frames(self._reader):
                if kind == CHUNK:
                    if answers := self._requests.get(request):
                        answers.put_nowait(Chunk(request, body))
                    continue
                event = parse_event(body)
                if isinstance(event, Ready):
                    self._ready.set_result(event)
                elif isinstance(event, Measured | Unmeasured | Failed) and self._measured is not None:
                    self._measured.set_result(event)
                    self._measured = None
                elif isinstance(event, Measured | Unmeasured):
                    raise ValueError("a measurement that nobody asked for")
                elif isinstance(event, Failed):
                    failure = event.message
                elif answers := self._requests.get(event.id):
                    answers.put_nowait(event)
                    if isinstance(event, Vectors) or (isinstance(event, Done) and event.completion_tokens):
                        self._answered.set()
        except ConnectionError:
            pass  # a worker that was killed with something unread: how it ended says more
        except (ValueError, OSError) as error:
            failure = f"its messages could not be read: {error}"
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        finally:
            self._writer.close()
            status = await self._process.wait()
            self._end(failure or _describe(status, self._stopping))

    def _end(self, reason: str) -> None:
        self.end_reason = reason
        # First, so that the one who supervises notices the end no later than anybody else.
        self._answered.set()
        self.ended.set()
        if not self._ready.done():
            self._ready.set_exception(WorkerFailure(reason))
        if self._measured is not None and not self._measured.done():
            self._measured.set_exception(WorkerFailure(reason))
        for answers in self._requests.values():
            answers.put_nowait(None)


async def frames(reader: asyncio.StreamReader) -> AsyncGenerator[tuple[int, int, bytes], None]:
    """Kind, request and body of each frame until the stream's end, many for one look at the socket."""
    held = bytearray()
    while data := await reader.read(_READ_SIZE):
        held += data
        at = 0
        while len(held) - at >= HEAD.size:
            kind, request, length = HEAD.unpack_from(held, at)
            if len(held) - at < HEAD.size + length:
                break
            yield kind, request, bytes(held[at + HEAD.size : at + HEAD.size + length])
            at += HEAD.size + length
        del held[:at]


def _waiting_of_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """How OpenMP's threads wait for one another, unless whoever started the agent has decided it."""
    decided = "GOMP_SPINCOUNT" in environment or "OMP_WAIT_POLICY" in environment
    return {} if decided else {"GOMP_SPINCOUNT": _SPIN_COUNT}


def _describe(status: int, asked: bool) -> str:
    if asked:
        return "the worker was stopped"
    if status >= 0:
        return f"the worker ended by itself with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    known = {
        "SIGILL": "this build of llama.cpp uses instructions that the CPU does not have",
        "SIGKILL": "killed, possibly because the machine ran out of memory",
    }
    return f"the worker was ended by {name}" + (f" ({known[name]})" if name in known else "")
