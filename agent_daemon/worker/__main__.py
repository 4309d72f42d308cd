"""`python -m agent_daemon.worker`: `--probe-runtime` prints what the library can do; `--fd N` serves a model."""

import argparse
import os
import queue
import socket
import sys
import threading

import psutil

from agent_daemon.worker import runtime
from agent_daemon.worker.embeddings import embed
from agent_daemon.worker.engine import Engine, EngineBroken
from agent_daemon.worker.model import Batch, LoadError, Model
from agent_daemon.worker_messages import (
    Cancel,
    Command,
    Embed,
    Event,
    Failed,
    Generate,
    Load,
    Ready,
    Refused,
    parse_command,
)


class Link:
    """The socket to the agent. Losing it ends the process: a worker never outlives its agent."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("rb")
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def first(self) -> Command:
        return parse_command(self._lines.readline())

    def listen(self) -> None:
        """Reads commands in a thread of its own, so that the engine can look for them between two steps."""
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _read(self) -> None:
        for line in self._lines:
            self.commands.put(parse_command(line))
        os._exit(0)

    def send(self, event: Event) -> None:
        try:
            self._socket.sendall(event.line())
        except OSError:
            os._exit(0)


def _memory() -> tuple[int, int]:
    info = psutil.Process().memory_info()
    return info.rss, info.rss - getattr(info, "shared", 0)


def _serve(fd: int) -> int:
    link = Link(fd)
    load = link.first()
    assert isinstance(load, Load)
    link.listen()
    log = runtime.EngineLog()
    before_total, before_private = _memory()
    try:
        model = Model(load, log)
    except LoadError as error:
        link.send(Failed(message=str(error)))
        return 1
    total, private = _memory()
    link.send(
        Ready(
            offloaded_layers=load.gpu_layers if runtime.simulating() else log.offloaded_layers,
            simulated_offload=runtime.simulating() and load.gpu_layers > 0,
            ram_bytes=total - before_total,
            ram_private_bytes=private - before_private,
        )
    )
    try:
        _work(model, link)
    except EngineBroken as error:
        print(f"edgectl worker: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _work(model: Model, link: Link) -> None:
    engine = Engine(model, link.send)
    batch = Batch(model.batch_limit) if model.embeds else None
    while True:
        while not engine.busy or not link.commands.empty():
            command = link.commands.get()
            match command:
                case Cancel():
                    engine.cancel(command.id)
                case Embed() if batch is not None:
                    link.send(embed(model, batch, command))
                case Generate() if batch is None:
                    engine.submit(command)
                case Embed() | Generate():
                    wanted = "chat" if model.embeds else "embeddings"
                    message = f"this model is not deployed for {wanted}; its manifest says what it is for"
                    link.send(Refused(id=command.id, code="wrong_task", message=message))
                case Load():
                    raise EngineBroken("a second load command arrived; a worker holds one model")
        engine.step()


def main() -> int:
    parser = argparse.ArgumentParser(prog="agent_daemon.worker")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--probe-runtime", action="store_true")
    what.add_argument("--fd", type=int)
    arguments = parser.parse_args()
    if arguments.probe_runtime:
        print(runtime.runtime_facts().model_dump_json())
        return 0
    return _serve(arguments.fd)


if __name__ == "__main__":
    # Not sys.exit: llama.cpp's own threads and atexit handlers have nothing to save, and can hang.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
