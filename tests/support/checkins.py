"""A check-in loop at a pace for tests, and peers that are no hub."""

import asyncio
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.checkin import CheckInLoop, Pace
from agent_daemon.contract.wire import Usage
from agent_daemon.spool import Spool

RELEASE = f"sha256:{'a' * 64}"
QUICK = Pace(first=0.05, shortest=0.05, longest=0.4, apart=0.01, most_asked=0.1)


def count(spool: Spool, requests: int = 1, minute: int = 0) -> None:
    spool.count(Usage(minute=60 * minute, model="chat", release=RELEASE, number=1, requests=requests))


def stored(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        return int(connection.execute("SELECT coalesce(sum(requests), 0) FROM usage").fetchone()[0])


def loop_for(url: str, spool: Spool, token: Callable[[], str], pace: Pace = QUICK) -> CheckInLoop:
    async def flush() -> None:
        await asyncio.to_thread(spool.close_minutes, None)

    return CheckInLoop(url, token, "agent-desk", spool, flush, pace=pace, chance=random.Random(7))


async def until(what: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(what):
            await asyncio.sleep(0.02)


def during(loop: CheckInLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` while the loop runs, and sees that it ends at once when it is told to."""

    async def both() -> None:
        task = asyncio.create_task(loop.run())
        try:
            await work()
        finally:
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 1

    asyncio.run(both())


@contextmanager
def peer(answer: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Somebody who gives every connection the same answer, and the requests that came."""
    server = socket.create_server(("127.0.0.1", 0))
    came: list[bytes] = []
    held: list[socket.socket] = []

    def work() -> None:
        while True:
            try:
                stream, _ = server.accept()
            except OSError:
                return
            stream.settimeout(30)
            came.append(_request(stream))
            if hold:
                held.append(stream)
                continue
            with suppress(OSError):
                stream.sendall(answer)
            stream.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for stream in held:
            stream.close()


def _request(stream: socket.socket) -> bytes:
    """As much of a request as comes: a loop that is cancelled cuts its own anywhere."""
    data = b""
    with suppress(OSError):
        while chunk := stream.recv(65536):
            data += chunk
            head, _, body = data.partition(b"\r\n\r\n")
            if len(body) >= int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or b"0"):
                break
    return data


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
