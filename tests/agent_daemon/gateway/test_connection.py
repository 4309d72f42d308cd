"""How a stream ends: by itself, by its client's leaving, or by its deadline. Whatever it is, what it held is free."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.types import Message

from agent_daemon.gateway.connection import EventStream
from agent_daemon.gateway.errors import ApiError, broken, refused, timed_out
from agent_daemon.worker_messages import Done, Refused

SCOPE: Any = {"type": "http"}


class Client:
    """The other end of a stream. It leaves once `leaves_after` bodies have come, and takes no byte behind `full`
    bodies until it is told to end."""

    def __init__(self, leaves_after: int | None = None, full: int | None = None) -> None:
        self.bodies: list[bytes] = []
        self.status = 0
        self.complete = False
        self._leaves_after, self._full = leaves_after, full
        self._gone = asyncio.Event()
        self.takes = asyncio.Event()

    async def receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if len(self.bodies) == self._full:
            await self.takes.wait()
        if message["body"]:
            self.bodies.append(message["body"])
        self.complete = not message["more_body"]
        if len(self.bodies) == self._leaves_after:
            self._gone.set()


def run(client: Client, pieces: int, *, stalls: bool = False, limit: float | None = None) -> list[str]:
    """Streams so many pieces to a client (and then nothing, where it stalls), and returns what was let go of, in
    order. At the deadline, `limit`
    seconds from now, a client that took nothing begins to take again."""
    freed: list[str] = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            for number in range(pieces):
                yield b"%d" % number
            if stalls:
                await asyncio.Event().wait()
        finally:
            freed.append("events")

    @contextlib.asynccontextmanager
    async def within() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            client.takes.set()
            raise timed_out("m", 0.5) from None

    async def stream() -> None:
        held = contextlib.AsyncExitStack()
        held.callback(freed.append, "held")

        def failed(error: ApiError) -> bytes:
            return str(error.body["error"]["code"]).encode()

        await EventStream(events(), held, within, failed)(SCOPE, client.receive, client.send)

    asyncio.run(stream())
    return freed


def test_a_stream_is_sent_piece_by_piece_and_ends() -> None:
    client = Client()
    assert run(client, 3) == ["events", "held"]
    assert (client.status, client.bodies, client.complete) == (200, [b"0", b"1", b"2"], True)


def test_a_client_that_leaves_ends_its_stream() -> None:
    client = Client(leaves_after=2)
    assert run(client, 2, stalls=True) == ["events", "held"]
    assert (client.bodies, client.complete) == ([b"0", b"1"], False)


def test_a_stream_that_stalls_ends_at_its_deadline_with_a_word_to_its_client() -> None:
    client = Client()
    assert run(client, 2, stalls=True, limit=0.01) == ["events", "held"]
    assert (client.bodies, client.complete) == ([b"0", b"1", b"timeout"], True)


def test_a_client_that_takes_nothing_does_not_hold_a_model_past_the_deadline() -> None:
    client = Client(full=1)
    # What is held is free before the client hears of it: that may take as long as it likes.
    assert run(client, 3, limit=0.01) == ["held", "events"]
    assert (client.bodies, client.complete) == ([b"0", b"timeout"], True)


def test_what_the_worker_could_not_do_is_a_503_to_come_again_or_the_requests_own_fault() -> None:
    done = Done(
        id=1, finish_reason="error", prompt_tokens=1, completion_tokens=1, seconds=0, error="decoding failed"
    )
    error = broken("m", done)
    assert (error.status, error.retry_after, error.body["error"]["code"]) == (503, 2, "engine_error")
    assert str(error) == "m could not finish this answer: decoding failed"
    assert refused("m", Refused(id=1, code="engine", message="no room"), "messages").status == 503
    own = refused("m", Refused(id=1, code="invalid_request", message="no", param="tools"), "messages")
    assert (own.status, own.body["error"]["param"]) == (400, "tools")
    assert refused("m", Refused(id=1, code="invalid_prompt", message="no"), "messages").body["error"] == {
        "message": "m: no",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "invalid_prompt",
    }
