"""`python -m agent_daemon.worker`: `--probe-runtime` prints what the library can do, `--probe-bandwidth` how fast
memory is read, `--measure` what the model of the load message on stdin would take; `--fd N` serves a model."""

import contextlib
import ctypes
import os
import queue
import socket
import sys
import threading

# First of all: it decides what importing llama_cpp brings.
import agent_daemon.worker.lean  # isort: skip  # noqa: F401
from agent_daemon.worker import runtime
from agent_daemon.worker.embeddings import Embedder
from agent_daemon.worker.engine import Engine, EngineBroken
from agent_daemon.worker.measure import measure
from agent_daemon.worker.model import Model
from agent_daemon.worker.opening import LoadError
from agent_daemon.worker.own_memory import own_memory
from agent_daemon.worker_messages import (
    HEAD,
    Cancel,
    Chunk,
    Command,
    Embed,
    Event,
    Failed,
    Generate,
    Inspect,
    Load,
    Measure,
    Ready,
    Refused,
    Tokenize,
    parse_command,
)


class Link:
    """The socket to the agent. Losing it ends the process: a worker never outlives its agent."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._frames = self._socket.makefile("rb")
        self._unsent: list[bytes] = []
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def first(self) -> Command:
        """The first command. Ends the process when there is none."""
        command = self._next()
        if command is None:
            os._exit(0)
        return command

    def listen(self) -> None:
        """Reads commands in a thread of its own, so that the engine can look for them between two steps."""
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _next(self) -> Command | None:
        """None when the agent is gone. An agent that is killed with events unread resets the connection."""
        try:
            head = self._frames.read(HEAD.size)
            if len(head) < HEAD.size:
                return None
            _kind, _request, length = HEAD.unpack(head)
            body = self._frames.read(length)
        except OSError:
            return None
        return parse_command(body) if len(body) == length else None

    def _read(self) -> None:
        while (command := self._next()) is not None:
            self.commands.put(command)
        os._exit(0)

    def send(self, event: Event | Chunk) -> None:
        """Lets an event go with the next `flush`."""
        self._unsent.append(event.frame())

    def flush(self) -> None:
        """Sends what has come together, a whole step's events at once."""
        if not self._unsent:
            return
        data, self._unsent = b"".join(self._unsent), []
        try:
            self._socket.sendall(data)
        except OSError:
            os._exit(0)


def _serve(fd: int) -> int:
    link = Link(fd)
    before = own_memory()
    load = link.first()
    while isinstance(load, Measure):
        if not _measure(load.load, link):
            return 1
        load = link.first()
    assert isinstance(load, Load)
    link.listen()
    log = runtime.EngineLog()
    try:
        model = Model(load, log)
    except LoadError as error:
        link.send(Failed(message=str(error)))
        link.flush()
        return 1
    worker = Embedder(model, link.send) if model.embeds else Engine(model, link.send)
    now = own_memory()
    link.send(
        Ready(
            offloaded_layers=load.gpu_layers if runtime.simulating() else log.offloaded_layers,
            simulated_offload=runtime.simulating() and load.gpu_layers > 0,
            ram_bytes=now.resident - before.resident,
            ram_private_bytes=now.private - before.private,
            ram_repacked_bytes=model.repacked_bytes(),
            tools=isinstance(worker, Engine) and worker.prompts.declares_tools,
        )
    )
    try:
        _work(worker, link)
    except EngineBroken as error:
        print(f"edgectl worker: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _measure(load: Load, link: Link) -> bool:
    """Answers what a model would take; False when it could not be loaded at all."""
    answer = measure(load)
    link.send(answer)
    link.flush()
    # What measuring took goes back before the model comes: the worker's memory is told apart from the library's.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return not isinstance(answer, Failed)


def _work(worker: Engine | Embedder, link: Link) -> None:
    while True:
        link.flush()
        while not worker.busy or not link.commands.empty():
            _do(worker, link, link.commands.get())
            link.flush()
        worker.step()


def _do(worker: Engine | Embedder, link: Link, command: Command) -> None:
    match command, worker:
        case Cancel(), _:
            worker.cancel(command.id)
        case Inspect(), _:
            link.send(worker.stats(command.id))
        case Embed(), Embedder():
            worker.submit(command)
        case Generate(), Engine():
            worker.submit(command)
        case Tokenize(), Engine():
            worker.tokenize(command)
        case Load() | Measure(), _:
            raise EngineBroken("a second load command arrived; a worker holds one model")
        case _:
            wanted = "embeddings" if isinstance(worker, Embedder) else "chat"
            message = f"this model is deployed for {wanted}; its manifest says what it is for"
            link.send(Refused(id=command.id, code="wrong_task", message=message))


def main() -> int:
    # What nearly every start is; reading it takes no parser.
    if len(sys.argv) == 3 and sys.argv[1] == "--fd":
        return _serve(int(sys.argv[2]))
    return _tell()


def _tell() -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="agent_daemon.worker")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--probe-runtime", action="store_true")
    what.add_argument("--probe-bandwidth", action="store_true")
    what.add_argument("--measure", action="store_true")
    what.add_argument("--fd", type=int, metavar="N")
    parser.add_argument("--most", type=int, help="bytes of RAM that --probe-bandwidth may take")
    arguments = parser.parse_args()
    if arguments.probe_runtime:
        print(runtime.runtime_facts().model_dump_json())
        return 0
    if arguments.probe_bandwidth:
        from agent_daemon.worker import bandwidth

        print(bandwidth.probe(arguments.most).json().decode())
        return 0
    if arguments.measure:
        load = parse_command(sys.stdin.buffer.read())
        assert isinstance(load, Load)
        print(measure(load).json().decode())
        return 0
    return _serve(arguments.fd)


if __name__ == "__main__":
    # Not sys.exit: llama.cpp's own threads and atexit handlers have nothing to save, and can hang.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
