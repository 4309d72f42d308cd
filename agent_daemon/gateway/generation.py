"""One completion from admission to the last byte, streamed or whole."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway import answers
from agent_daemon.gateway.admission import Admission, Ticket
from agent_daemon.gateway.errors import ApiError, unavailable
from agent_daemon.gateway.metering import Count, Meter
from agent_daemon.gateway.requests import ChatBody, CompletionBody
from agent_daemon.worker_messages import Done, Event, Refused, Started, Text


class ClientGone(Exception):
    """The client closed its connection before the answer was finished."""


class Generation:
    """Made for one request. The counting happens exactly once, whatever ends it."""

    def __init__(self, admission: Admission, count: Count) -> None:
        self._admission = admission
        self._count = count
        self._meter = Meter()
        self._counted = False

    async def answer(self, request: Request, body: ChatBody | CompletionBody) -> Response:
        """The response. Raises ApiError for whatever goes wrong before the first byte, and ClientGone."""
        stack = contextlib.AsyncExitStack()
        try:
            async with _watching(request):
                ticket = await stack.enter_async_context(self._admission.ticket(body.model))
                stack.push_async_callback(self._settle, ticket)
                events = ticket.process.generate(body.generate(ticket.route.model))
                await stack.enter_async_context(contextlib.aclosing(events))
                await self._begin(events, body.model)
                shape = answers.Shape(body.model, chat=isinstance(body, ChatBody))
                if not body.stream:
                    whole = await self._whole(events, shape, ticket)
                    await stack.aclose()
                    return whole
        except WorkerFailure as failure:
            await stack.aclose()
            raise unavailable(body.model, str(failure)) from None
        except BaseException:
            await stack.aclose()
            raise
        return _Stream(self._stream(events, shape, ticket, body.wants_usage), stack)

    async def _begin(self, events: AsyncIterator[Event], model: str) -> None:
        """Waits until the worker has taken the request, so that a refusal is still an HTTP status."""
        event = await anext(events)
        self._meter.see(event)
        if isinstance(event, Refused):
            status = 500 if event.code == "engine" else 400
            raise ApiError(status, event.code, f"{model}: {event.message}", param="messages")
        assert isinstance(event, Started | Done)

    async def _whole(self, events: AsyncIterator[Event], shape: answers.Shape, ticket: Ticket) -> Response:
        parts: list[str] = []
        async for event in events:
            self._meter.see(event)
            if isinstance(event, Text):
                parts.append(event.text)
            elif isinstance(event, Done):
                await self._finish(event, ticket)
                return JSONResponse(shape.whole("".join(parts), event))
        raise WorkerFailure("its answer ended without an end")

    async def _stream(
        self,
        events: AsyncIterator[Event],
        shape: answers.Shape,
        ticket: Ticket,
        wants_usage: bool,
    ) -> AsyncIterator[bytes]:
        try:
            yield shape.chunk("", first=True)
            async for event in events:
                self._meter.see(event)
                if isinstance(event, Text) and event.text:
                    yield shape.chunk(event.text)
                elif isinstance(event, Done):
                    await self._finish(event, ticket)
                    yield shape.chunk("", finish=event.finish_reason)
                    if wants_usage:
                        yield shape.usage_chunk(event)
            yield answers.END
        except WorkerFailure as failure:
            yield answers.event(unavailable(ticket.route.model.name, str(failure)).body)

    async def _finish(self, done: Done, ticket: Ticket) -> None:
        if done.completion_tokens > 1 and done.seconds > 0:
            ticket.tokens_per_second = (done.completion_tokens - 1) / done.seconds
        await self._settle(ticket)

    async def _settle(self, ticket: Ticket) -> None:
        if not self._counted:
            self._counted = True
            # Shielded: a client that hangs up in this very moment must not make its request uncounted.
            await asyncio.shield(asyncio.to_thread(self._count, self._meter.usage(ticket)))


class _Stream(StreamingResponse):
    """Server-sent events. `held` is closed when the response is over for whatever reason, also when the client
    left before the first byte: that ends the request in the worker and gives the turn back."""

    def __init__(self, events: AsyncIterator[bytes], held: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._held.aclose()


@contextlib.asynccontextmanager
async def _watching(request: Request) -> AsyncIterator[None]:
    """Cancels the work inside when the client disconnects, and says so with ClientGone."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
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
