"""The client's end of a request: whether it is still there, and how a stream gets to it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_daemon.gateway.errors import ApiError

_LAST_WORD = 5.0
"""Seconds that a client has to take the error at the end of a stream that took too long."""


class ClientGone(Exception):
    """The client closed its connection before the answer was finished."""


@contextlib.asynccontextmanager
async def watching(receive: Receive) -> AsyncIterator[None]:
    """Cancels the work inside when the client disconnects, and says so with ClientGone. The body has to have been
    read."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            task.uncancel()
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


class EventStream(Response):
    """Server-sent events, sent as they come. `within` bounds the time that sending may take, and raises the
    ApiError that `failed` writes as the stream's end. `held` is closed when the response is over for whatever
    reason, also when the client left before the first byte: that ends the request in the worker."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        held: contextlib.AsyncExitStack,
        within: Callable[[], AbstractAsyncContextManager[None]],
        failed: Callable[[ApiError], bytes],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._events = events
        self._held = held
        self._within = within
        self._failed = failed

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with watching(receive):
                await self._send(send)
        except ClientGone:
            pass
        finally:
            try:
                await self._events.aclose()
            finally:
                await self._held.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with self._within():
                async for piece in self._events:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ApiError as error:
            # The request is over, and counted, before its client reads so.
            await self._held.aclose()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await send({"type": "http.response.body", "body": self._failed(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
