"""One answer of a model from admission to the last byte, streamed or whole."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_daemon.contract.release import ServedModel
from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.admission import Admission, Ticket
from agent_daemon.gateway.answers.answer import Answer, Said
from agent_daemon.gateway.call import Call
from agent_daemon.gateway.capability import check_tools
from agent_daemon.gateway.connection import EventStream, watching
from agent_daemon.gateway.errors import broken, refused, unavailable
from agent_daemon.serving import Route
from agent_daemon.worker_messages import Chunk, Done, Event, Generate, Refused, Started, Text, ToolCall

Events = AsyncGenerator[Event | Chunk, None]
Shape = Callable[[Route], Answer]


class Body(Protocol):
    """What a generating endpoint's body can do."""

    @property
    def model(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    def generate(self, model: ServedModel) -> Generate: ...


class Generation:
    """Made for one request: `call`. `shape` makes the answer for the route that it was admitted to; `param` is the
    field that the worker's refusals are about where they name none."""

    def __init__(self, admission: Admission, call: Call, shape: Shape, param: str) -> None:
        self._admission = admission
        self._call = call
        self._shape = shape
        self._param = param

    async def answer(self, request: Request, body: Body) -> Response:
        """The response. Raises ApiError for whatever goes wrong before the first byte, and ClientGone."""
        stack = contextlib.AsyncExitStack()
        try:
            async with watching(request.receive), self._call.within():
                ticket = await stack.enter_async_context(self._admission.ticket(body.model, self._call.key))
                answer = self._shape(ticket.route)
                wanted = await self._wanted(body, ticket, answer)
                stack.push_async_callback(self._call.leave, ticket.route)
                events = ticket.process.generate(wanted)
                await stack.enter_async_context(contextlib.aclosing(events))
                await self._begin(events)
                if not body.stream:
                    whole = await self._whole(events, answer, ticket)
                    await stack.aclose()
                    return whole
        except WorkerFailure as failure:
            self._call.broke()
            await stack.aclose()
            raise unavailable(body.model, str(failure)) from None
        except BaseException:
            await stack.aclose()
            raise
        return EventStream(self._stream(events, answer, ticket), stack, self._call.within, answer.failed)

    async def _wanted(self, body: Body, ticket: Ticket, answer: Answer) -> Generate:
        wanted = body.generate(ticket.route.model)
        await check_tools(ticket.process, wanted.tools)
        return replace(
            wanted,
            client=self._call.key,
            adapter=ticket.route.adapter,
            stream=answer.frame if body.stream else None,
        )

    async def _begin(self, events: Events) -> None:
        """Waits until the worker has taken the request, so that a refusal is still an HTTP status."""
        event = await anext(events)
        self._call.see(event)
        if isinstance(event, Refused):
            raise refused(self._call.name, event, self._param)
        if isinstance(event, Done):
            raise broken(self._call.name, event)
        assert isinstance(event, Started)

    async def _whole(self, events: Events, answer: Answer, ticket: Ticket) -> Response:
        said = Said()
        async for event in events:
            self._call.see(event)
            if isinstance(event, Text | ToolCall):
                said.add(event)
            elif isinstance(event, Done):
                await self._finish(event, ticket)
                if event.finish_reason in ("error", "cancelled"):
                    raise broken(self._call.name, event)
                return JSONResponse(answer.whole(said, event))
        raise WorkerFailure("its answer ended without an end")

    async def _stream(self, events: Events, answer: Answer, ticket: Ticket) -> AsyncGenerator[bytes, None]:
        try:
            if opening := answer.begin():
                yield opening
            async for event in events:
                self._call.see(event)
                if isinstance(event, Chunk):
                    yield answer.chunk(event.data)
                elif isinstance(event, Text | ToolCall):
                    if piece := answer.more(event):
                        yield piece
                elif isinstance(event, Done):
                    await self._finish(event, ticket)
                    if event.finish_reason in ("error", "cancelled"):
                        yield answer.failed(broken(self._call.name, event))
                    else:
                        yield answer.end(event)
        except WorkerFailure as failure:
            self._call.broke()
            await self._call.settle(ticket.route)
            yield answer.failed(unavailable(self._call.name, str(failure)))

    async def _finish(self, done: Done, ticket: Ticket) -> None:
        if done.completion_tokens > 1 and done.seconds > 0:
            ticket.tokens_per_second = (done.completion_tokens - 1) / done.seconds
        await self._call.settle(ticket.route)
