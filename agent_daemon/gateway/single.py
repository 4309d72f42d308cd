"""Answers that come in one piece: embeddings and tokens."""

import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway.admission import Admission, Ticket
from agent_daemon.gateway.answers import listing
from agent_daemon.gateway.answers.embeddings import embeddings
from agent_daemon.gateway.call import Call
from agent_daemon.gateway.capability import check_tools
from agent_daemon.gateway.connection import watching
from agent_daemon.gateway.errors import refused, unavailable
from agent_daemon.gateway.requests.embeddings import EmbeddingsBody
from agent_daemon.gateway.requests.tokenize import TokenizeBody
from agent_daemon.serving import Route
from agent_daemon.worker_messages import Refused


class Single:
    """Made for one request: `call`. Both methods raise ApiError and ClientGone."""

    def __init__(self, admission: Admission, call: Call) -> None:
        self._admission = admission
        self._call = call

    async def embed(self, request: Request, body: EmbeddingsBody) -> Response:
        route: Route | None = None
        try:
            async with self._ticket(request) as ticket:
                route = ticket.route
                answer = await ticket.process.embed(body.inputs())
                self._call.see(answer)
        finally:
            if route is not None:
                await self._call.settle(route)
        if isinstance(answer, Refused):
            raise refused(self._call.name, answer, "input")
        body.check_dimensions(len(answer.vectors[0]))
        return JSONResponse(embeddings(self._call.name, answer, body.encoding_format))

    async def tokenize(self, request: Request, body: TokenizeBody) -> Response:
        """Nothing is computed by the model for it, so it is not counted."""
        async with self._ticket(request) as ticket:
            wanted = body.tokenize(ticket.route.model)
            await check_tools(ticket.process, wanted.tools)
            answer = await ticket.process.tokenize(wanted)
        if isinstance(answer, Refused):
            raise refused(self._call.name, answer, "content" if body.messages is None else "messages")
        return JSONResponse(listing.tokens(answer, with_pieces=body.with_pieces))

    @contextlib.asynccontextmanager
    async def _ticket(self, request: Request) -> AsyncIterator[Ticket]:
        name = self._call.name
        try:
            async with (
                watching(request.receive),
                self._call.within(),
                self._admission.ticket(name, self._call.key) as ticket,
            ):
                yield ticket
        except WorkerFailure as failure:
            self._call.broke()
            raise unavailable(name, str(failure)) from None
